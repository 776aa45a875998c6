"""stabdiag: finds where the numbers of a PyTorch model go wrong, before training does."""

__version__ = "0.1.0"
