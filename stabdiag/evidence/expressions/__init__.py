"""Unstable expressions: which computations in a recorded run have a stable form that was not used (rules SD6)."""
