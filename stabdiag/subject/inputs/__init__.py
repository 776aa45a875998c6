"""What the model is fed: from a file, from the command line, declared by the author, or inferred."""
