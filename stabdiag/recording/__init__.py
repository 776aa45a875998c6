"""How one execution is recorded: ops, values, source lines, statistics."""
