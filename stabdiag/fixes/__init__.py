"""One file per remedy; see `stabdiag.remedy` for what a file offers."""
