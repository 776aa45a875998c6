"""Edits tried and proven."""
