"""How the subject is run and measured. With `stabdiag.subject`, the only code that imports torch."""
