"""One file per family of remedies; see `stabdiag.repair.remedy` for what a remedy is."""

FAMILIES = (
    *("stable_forms", "arithmetic", "masks", "guards", "domains", "epsilons", "precision", "attention"),
    *("data", "initialisation", "normalisation", "activation", "recurrence", "training"),
)
"""In the order in which they are tried: what keeps the function before what changes it, the model before its training."""
