"""One file per rule. The listing is the catalogue."""
