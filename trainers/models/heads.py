"""Several heads on one trunk: each has a readout of its own, and its own E0, scale and shift."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int, PyTree

from mlipdb import registry
from mlipdb.errors import ConfigError, NotFoundError, did_you_mean
from mlipdb.trainers.arrays import arrays_like
from mlipdb.trainers.graph import AtomicGraph, GraphNeeds
from mlipdb.trainers.models.base import (
    AbstractDirectModel,
    AbstractForceField,
    AbstractModel,
    AbstractTrunked,
    DirectOutputs,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # no @, which divides a run's name from a head's


@dataclass(frozen=True, kw_only=True)
class Head:
    """What one head says: the kind of energy, by which method, and the settings that its readout has of its own.

    energy is a kind such as energy_uncorrected; method the name of the labels' method, empty where structures have
    their own. e0 in eV for each element of the model; scale and shift in eV. e0 empty, scale or shift None: those of
    the model that the head is put on.
    """

    name: str
    energy: str = "energy_uncorrected"
    method: str = ""
    e0: tuple[float, ...] = ()
    scale: float | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"a head cannot be called {self.name!r}; use letters, digits and . _ + -, beginning with one of the "
                "first two"
            )


class AbstractHeaded(AbstractModel):
    """What Headed and HeadedDirect share. Graphs choose their head by AtomicGraph.head; without it, all the first.

    shared is a model without the arrays of its readout, and each of readouts has only these. For use outside a
    training, only_head gives the plain model of one head. e0 is that of the first.
    """

    shared: eqx.AbstractVar[AbstractTrunked]
    readouts: eqx.AbstractVar[tuple[AbstractTrunked, ...]]
    heads: eqx.AbstractVar[tuple[Head, ...]]

    def single(self, place: int) -> AbstractTrunked:
        """The plain model of the head at that place; it shares the trunk's arrays."""
        head = self.heads[place]
        whole: AbstractTrunked = eqx.combine(self.shared, self.readouts[place])
        return whole.with_reference(
            e0=dict(zip(self.atomic_numbers, head.e0, strict=True)), scale=head.scale, shift=head.shift
        )

    @property
    def readout_arrays(self) -> tuple[str, ...]:
        """Patterns of the readouts of all heads; see AbstractTrunked."""
        return ("readouts[*",)

    @property
    def last_layer_arrays(self) -> tuple[str, ...]:
        """Those of the shared trunk."""
        return tuple(f"shared.{pattern}" for pattern in self.shared.last_layer_arrays)

    @property
    def gain_arrays(self) -> tuple[str, ...]:
        """Those of the shared trunk."""
        return tuple(f"shared.{pattern}" for pattern in self.shared.gain_arrays)

    @property
    def cutoff(self) -> float:
        """Longest edge in Å."""
        return self.shared.cutoff

    @property
    def graph_needs(self) -> GraphNeeds:
        """Those of the shared trunk."""
        return self.shared.graph_needs

    @property
    def atomic_numbers(self) -> tuple[int, ...]:
        """Elements covered, ascending."""
        return self.shared.atomic_numbers

    @property
    def e0(self) -> Float64[np.ndarray, " species"]:
        """Energy of each isolated atom in eV, of the first head."""
        return np.array(self.heads[0].e0, dtype=np.float64)

    @property
    def has_long_sums(self) -> bool:
        """Those of the shared model."""
        return self.shared.has_long_sums

    def to_config(self) -> dict[str, Any]:
        """The shared model's name and configuration, and the heads."""
        return {
            "model": {"name": registry.name_of("mlipdb.models", type(self.shared)), "config": self.shared.to_config()},
            "heads": [{**dataclasses.asdict(head), "e0": list(head.e0)} for head in self.heads],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AbstractHeaded":
        """A model of that configuration, its arrays yet to be filled. Raises ConfigError for a bad setting."""
        made = _from_config(config)
        if not isinstance(made, cls):
            raise ConfigError(
                f"{config['model']['name']!r} does not go into {cls.__name__}: only one of the two derives its forces"
            )
        return made

    def outputs(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> PyTree:
        """What each graph's head says; the trunk is evaluated once."""
        features = self.shared.trunk(graph, edge_vectors)
        if graph.head is None:
            return self.single(0).read(graph, features)
        every = [self.single(place).read(graph, features) for place in range(len(self.heads))]
        return _by_head(every, graph.head[graph.atom_graph])


class Headed(AbstractHeaded, AbstractForceField):
    """A conservative model with several heads."""

    shared: AbstractTrunked
    readouts: tuple[AbstractTrunked, ...]
    heads: tuple[Head, ...] = eqx.field(static=True)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> Float[Array, " atoms"]:
        """Interaction energy of each atom in eV by its graph's head, 0 on padding atoms."""
        energies: Float[Array, " atoms"] = self.outputs(graph, edge_vectors)
        return energies

    def works_in_parts(self, graph: AtomicGraph) -> bool:
        """Where the shared model does."""
        return isinstance(self.shared, AbstractForceField) and self.shared.works_in_parts(graph)

    def for_rows(self, count: int) -> "Headed":
        """With its parts made for them, all alike, since heads are joined with the trunk."""
        shared, *readouts = (_for_rows(part, count) for part in (self.shared, *self.readouts))
        return dataclasses.replace(self, shared=shared, readouts=tuple(readouts))


class HeadedDirect(AbstractHeaded, AbstractDirectModel):
    """A direct model with several heads."""

    shared: AbstractTrunked
    readouts: tuple[AbstractTrunked, ...]
    heads: tuple[Head, ...] = eqx.field(static=True)

    def __call__(self, graph: AtomicGraph, edge_vectors: Float[Array, "edges 3"]) -> DirectOutputs:
        """Energies and forces of the atoms by their graph's head, 0 on padding atoms."""
        found: DirectOutputs = self.outputs(graph, edge_vectors)
        return found


def _for_rows(part: AbstractTrunked, count: int) -> AbstractTrunked:
    return cast("AbstractTrunked", part.for_rows(count)) if isinstance(part, AbstractForceField) else part


def with_heads(model: AbstractModel, heads: Sequence[Head]) -> Headed | HeadedDirect:
    """The model with these heads, each of which starts as its readout: the arrays, and what the head leaves open.

    Heads that the model has already stay, before the others, which then start as the first. Raises ConfigError for a
    model that is not divided into trunk and readout, for a name that is there twice, and for E0 of other elements.
    """
    if isinstance(model, AbstractHeaded):
        shared, readouts, before, origin = model.shared, model.readouts, model.heads, model.single(0)
    elif isinstance(model, AbstractTrunked):
        first, shared = eqx.partition(model, arrays_like(model, model.readout_arrays))
        readouts, before, origin = (first,), (), model
    else:
        raise ConfigError(
            f"{type(model).__name__} is not divided into trunk and readout, so that it can have no heads; derive it "
            "from mlipdb.trainers.models.base.AbstractTrunked as well, or fine-tune it without replay"
        )
    every = (*before, *(_resolved(head, origin) for head in heads))
    _check_heads(every, atomic_numbers=model.atomic_numbers)
    kind = HeadedDirect if isinstance(model, AbstractDirectModel) else Headed
    kept = readouts if before else ()
    return kind(shared=shared, readouts=(*kept, *[readouts[0]] * len(heads)), heads=every)


def head_names(model: AbstractModel) -> tuple[str, ...]:
    """Names of the heads in their order; none of a model with a single readout."""
    return tuple(head.name for head in model.heads) if isinstance(model, AbstractHeaded) else ()


def only_head(model: AbstractModel, name: str | None) -> AbstractModel:
    """The plain model of the head of that name, of the first where name is None.

    Raises NotFoundError for a name that is not there.
    """
    place = head_place(head_names(model), name)
    return model.single(place) if isinstance(model, AbstractHeaded) else model


def head_place(known: Sequence[str], name: str | None) -> int:
    """Which of the heads a name means; the first for None. Raises NotFoundError for a name that is not there."""
    if name is not None and name not in known:
        which = f"Its heads: {', '.join(known)}" if known else f"It has one readout, without a name: leave @{name} off"
        raise NotFoundError(f"the model has no head {name!r}.{did_you_mean(name, known)} {which}")
    return 0 if name is None else known.index(name)


def heads_from_json(values: Sequence[Mapping[str, Any]]) -> tuple[Head, ...]:
    """Heads as a configuration has them."""
    return tuple(Head(**{**value, "e0": tuple(value["e0"])}) for value in values)


def _resolved(head: Head, model: AbstractTrunked) -> Head:
    """The head with what it leaves open taken from the model."""
    return dataclasses.replace(
        head,
        e0=head.e0 or tuple(model.e0.tolist()),
        scale=model.config.scale if head.scale is None else head.scale,
        shift=model.config.shift if head.shift is None else head.shift,
    )


def _check_heads(heads: Sequence[Head], *, atomic_numbers: Sequence[int]) -> None:
    if not heads:
        raise ConfigError("a model with heads needs one at least; give their names")
    names = [head.name for head in heads]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two heads are called {twice[0]!r}; give each a name of its own")
    for head in heads:
        if len(head.e0) != len(atomic_numbers):
            raise ConfigError(f"head {head.name!r} has {len(head.e0)} E0s for {len(atomic_numbers)} elements")


def _from_config(config: Mapping[str, Any]) -> Headed | HeadedDirect:
    if missing := sorted({"model", "heads"} - config.keys()):
        raise ConfigError(f"a headed model needs the setting {missing[0]!r}; it is made by fine-tuning with replay")
    inner = registry.load("mlipdb.models", config["model"]["name"]).from_config(config["model"]["config"])
    return with_heads(inner, heads_from_json(config["heads"]))


def _by_head(outputs: Sequence[PyTree], head: Int[Array, " atoms"]) -> PyTree:
    """Of each atom the output of its head."""
    found = outputs[0]
    for place, other in enumerate(outputs[1:], start=1):
        own = head == place
        found = jax.tree.map(
            lambda new, old, own=own: jnp.where(own.reshape(-1, *[1] * (new.ndim - 1)), new, old), other, found
        )
    return found
