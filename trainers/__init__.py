"""Training: models, losses, batching, the loop, checkpoints; and the ASE calculator of a trained model."""

from mlipdb.trainers.calculator import Calculator

__all__ = ["Calculator"]
