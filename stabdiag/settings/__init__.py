"""What is asked for: requests, configuration, and the values that settings may have."""
