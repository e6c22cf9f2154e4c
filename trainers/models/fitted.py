"""Models with numbers that are fitted on a few batches before the first step, and then stay."""

import abc
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import numpy as np
from jaxtyping import Float64

from mlipdb.errors import ConfigError
from mlipdb.trainers.graph import AtomicGraph, GraphNeeds
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractModel

BATCHES = 16  # that a training gives to fit on; as many as the published scale factors were fitted on


@runtime_checkable
class FittedConfig(Protocol):
    """What the settings of such a model have."""

    @property
    def direct(self) -> bool:
        """Whether forces are an output."""
        ...

    @property
    def cutoff(self) -> float:
        """Longest edge in Å."""
        ...

    @property
    def max_neighbours(self) -> int:
        """How many edges an atom has at most, the nearest."""
        ...

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        ...

    @property
    def e0(self) -> tuple[float, ...]:
        """Energy of each isolated atom in eV."""
        ...

    @property
    def factors(self) -> Any:
        """What is fitted; None before."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        ...


class AbstractFitted(AbstractModel):
    """What such a model is beside a force field or direct model. Before the fit it cannot be evaluated."""

    config: eqx.AbstractVar[Any]  # a FittedConfig

    def __check_init__(self) -> None:
        if self._settings.direct != isinstance(self, AbstractDirectModel):
            raise ConfigError(f"{type(self).__name__} cannot have a configuration with direct = {self.config.direct}")

    @property
    def _settings(self) -> FittedConfig:
        found: FittedConfig = self.config
        return found

    @property
    def cutoff(self) -> float:
        """Longest edge in Å."""
        return self._settings.cutoff

    @property
    def graph_needs(self) -> GraphNeeds:
        """The nearest neighbours, each edge both ways."""
        return GraphNeeds(max_neighbours=self._settings.max_neighbours, symmetric=True)

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self._settings.atomic_numbers

    @property
    def e0(self) -> Float64[np.ndarray, " species"]:
        """Energy of each isolated atom in eV."""
        return np.array(self._settings.e0, dtype=np.float64)

    def to_config(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return self._settings.to_json()

    @property
    def is_fitted(self) -> bool:
        """Whether it can be evaluated."""
        return self._settings.factors is not None

    @abc.abstractmethod
    def fitted(self, graphs: Sequence[AtomicGraph]) -> "AbstractFitted":
        """The same model with its numbers fitted on these batches, in place of any it had; its config has them.

        Raises TrainError where the batches cannot tell them.
        """
