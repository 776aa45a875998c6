"""What rules read out of a Trace: the main path, depth, units, births of infinities, forms of expressions. No torch."""
