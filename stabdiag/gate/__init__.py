"""The CI gate: what is accepted, what is new, what got worse."""
