"""From findings to a report: one cause one finding, verdicts, layers."""
