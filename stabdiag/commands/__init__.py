"""One file per command of `stabdiag`."""
