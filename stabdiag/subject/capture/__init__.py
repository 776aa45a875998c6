"""A training step that a script really takes, kept as a tape that can be played again in every precision."""
