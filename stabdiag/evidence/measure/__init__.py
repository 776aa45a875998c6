"""What is measured while the model runs, in the worker: tensor methods only."""
