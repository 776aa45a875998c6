"""One file per report format: `render(report) -> str`."""
