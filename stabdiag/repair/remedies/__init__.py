"""One file per remedy; see `stabdiag.repair.remedy` for what a file offers."""
