"""Training: models, losses, batching, the loop, checkpoints and the calculator."""
