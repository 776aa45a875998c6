"""What a format does to numbers: births of infinities, blame for errors, predictions, epsilons, loss scales."""
