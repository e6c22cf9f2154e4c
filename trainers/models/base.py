"""What a model is: atomic interaction energies from a graph and its edge vectors, with or without forces of its own."""

import abc
import copy
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Float64, PyTree

from mlipdb.errors import MlipdbError
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.trainers.graph import AtomicGraph, GraphNeeds

Model = TypeVar("Model", bound=eqx.Module)


class ElementError(MlipdbError):
    """A structure has an element that the model does not know."""


class AbstractModel(eqx.Module):
    """What both kinds of model have: AbstractForceField and AbstractDirectModel; a model is of one of them.

    The model's output does not contain e0. Every array leaf is trained: what is fixed belongs into static fields,
    where no optimiser, decay or average can reach it. A model that mlipdb trains has a field ``config``, a dataclass,
    and a class method ``create(config, *, key)``.
    """

    @property
    @abc.abstractmethod
    def cutoff(self) -> float:
        """Longest edge in Å."""

    @property
    @abc.abstractmethod
    def graph_needs(self) -> GraphNeeds:
        """What the edges must be; the default is all pairs within the cutoff, images included."""

    @property
    @abc.abstractmethod
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements that the model knows, ascending."""

    @property
    @abc.abstractmethod
    def e0(self) -> Float64[np.ndarray, " species"]:
        """Energy of each isolated atom in eV, float64, in the order of atomic_numbers."""

    @property
    def has_long_sums(self) -> bool:
        """Whether gradients by the arrays sum down columns of edges, as those of biases do; see trainers/compiled.py.

        Without such sums a training step is compiled a tenth sooner; with them it takes up to twice as long.
        """
        return True

    @abc.abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Everything but the arrays as JSON values; from_config makes the same model from it but for the arrays."""

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: dict[str, Any]) -> "AbstractModel":
        """A model of that configuration whose arrays are yet to be filled. Raises ConfigError for a bad setting."""


class AbstractForceField(AbstractModel):
    """A conservative model. It gives atomic energies; forces, stress and Hessian rows are derived in derive.py."""

    @abc.abstractmethod
    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV, 0 on padding atoms; differentiable twice in the edge vectors."""

    def works_in_parts(self, graph: AtomicGraph) -> bool:
        """Whether such a graph goes through part by part, and derivatives make each part anew to save memory."""
        return False

    def for_rows(self, count: int) -> "AbstractForceField":
        """The model that answers the same, made for the change of everything along so many Hessian rows at once."""
        return self


class DirectOutputs(NamedTuple):
    """What a direct model says: interaction energies in eV and forces in eV/Å, 0 on padding atoms."""

    atomic_energies: Float[Array, " atoms"]
    forces: Float[Array, "atoms 3"]


class AbstractDirectModel(AbstractModel):
    """A model whose forces are an output of their own, not the derivative of its energy; it has no stress.

    Its Hessian rows are those of minus the derivative of its forces, which is not symmetric.
    """

    @abc.abstractmethod
    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> DirectOutputs:
        """Energies and forces of the atoms; the forces are differentiable in the edge vectors, and then in weights."""


class AbstractTrunked(AbstractModel):
    """What a force field or direct model has whose call is a readout of a trunk's features: it can be fine-tuned.

    The trunk depends on neither e0, nor scale, nor shift of the config; the readout may. Names of arrays are those of
    `mlipdb.trainers.arrays.named_arrays`, where * stands for any text and brackets for themselves. Of the ways to learn
    only a part, freeze-conv is readout_arrays and gain_arrays, freeze-backbone is readout_arrays and last_layer_arrays.
    """

    config: eqx.AbstractVar[Any]  # a dataclass with e0, scale and shift

    @abc.abstractmethod
    def trunk(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> PyTree:
        """Features, from which read makes the outputs."""

    @abc.abstractmethod
    def read(self, graph: AtomicGraph, features: PyTree) -> Float[Array, " atoms"] | DirectOutputs:
        """What the model gives when called, from the features of the same graph."""

    @abc.abstractmethod
    def invariants(self, features: PyTree) -> Float[Array, "atoms size"]:
        """Numbers of each atom among the features that no rotation or inversion changes; any on padding atoms."""

    @property
    @abc.abstractmethod
    def readout_arrays(self) -> tuple[str, ...]:
        """Patterns of the names of the arrays that read uses; the trunk uses all others and none of these."""

    @property
    @abc.abstractmethod
    def last_layer_arrays(self) -> tuple[str, ...]:
        """Patterns of the arrays of the last round of messages."""

    @property
    @abc.abstractmethod
    def gain_arrays(self) -> tuple[str, ...]:
        """Patterns of the gains (and biases) of norms; none of a model without norms."""

    def with_reference(
        self, *, e0: Mapping[int, float], scale: float | None = None, shift: float | None = None
    ) -> "AbstractTrunked":
        """The same arrays with other settings: e0 in eV by atomic number, scale and shift in eV.

        What is not named stays. Raises ElementError for an element that the model does not know.
        """
        if unknown := sorted(e0.keys() - set(self.atomic_numbers)):
            raise ElementError(
                f"e0 has {', '.join(SYMBOLS[number] for number in unknown)}, which the model does not know; it covers "
                f"{' '.join(SYMBOLS[number] for number in self.atomic_numbers)}"
            )
        changes: dict[str, Any] = {
            "e0": tuple(
                float(e0.get(number, before))
                for number, before in zip(self.atomic_numbers, self.config.e0, strict=True)
            )
        }
        changes |= {name: value for name, value in (("scale", scale), ("shift", shift)) if value is not None}
        changed: AbstractTrunked = dataclasses.replace(self, config=dataclasses.replace(self.config, **changes))
        return changed


def with_static(model: Model, **fields: object) -> Model:
    """The model with other static fields.

    It is copied, not made anew, because parts of models lack arrays that making asks for.
    """
    copied = copy.copy(model)
    for name, value in fields.items():
        object.__setattr__(copied, name, value)
    return copied


def require_elements(model: AbstractModel, structures: Iterable[Structure]) -> None:
    """Raise ElementError that names the first structure with an element the model does not know, and the elements."""
    known = set(model.atomic_numbers)
    for index, structure in enumerate(structures):
        unknown = sorted(structure.composition.keys() - known)
        if unknown:
            name = f"structure {structure.id}" if structure.id is not None else f"structure number {index} of the batch"
            raise ElementError(
                f"{name} has {', '.join(SYMBOLS[number] for number in unknown)}, which the model does not know; "
                f"it covers {len(known)} elements: {' '.join(SYMBOLS[number] for number in sorted(known))}"
            )


def reference_energies(model: AbstractModel, structure: Structure) -> Float64[np.ndarray, " atoms"]:
    """E0 of each atom in eV and float64: what to add to the model's atomic energies for totals.

    It stays on the host, since totals of -1e5 eV in float32 have steps of several meV.
    """
    require_elements(model, [structure])
    energies: Float64[np.ndarray, " atoms"] = model.e0[np.searchsorted(model.atomic_numbers, structure.atomic_numbers)]
    return energies
