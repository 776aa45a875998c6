"""Watching inside training frameworks, and its numbers in the loggers that are already there. None of them is a dependency:
each module here imports its framework when it is imported itself."""
