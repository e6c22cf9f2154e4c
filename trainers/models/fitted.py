"""Models with numbers that are fitted on a few batches before the first step, and then stay."""

import abc
from collections.abc import Sequence

from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.base import AbstractModel

BATCHES = 16  # that a training gives to fit on; as many as the published scale factors were fitted on


class AbstractFitted(AbstractModel):
    """What such a model is beside a force field or direct model. Before the fit it cannot be evaluated."""

    @property
    @abc.abstractmethod
    def is_fitted(self) -> bool:
        """Whether it can be evaluated."""

    @abc.abstractmethod
    def fitted(self, graphs: Sequence[AtomicGraph]) -> "AbstractFitted":
        """The same model with its numbers fitted on these batches, in place of any it had; its config has them.

        Raises TrainError where the batches cannot tell them.
        """
