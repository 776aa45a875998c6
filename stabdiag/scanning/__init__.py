"""One scan: the pipeline and the run of the tool."""
