"""What the recorded graph says: the main path, nonlinearities, softmaxes, origins."""
