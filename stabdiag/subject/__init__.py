"""What is scanned: the model, its inputs, its objective."""
