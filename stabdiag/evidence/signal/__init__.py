"""What activations and gradients do over depth, time and steps."""
