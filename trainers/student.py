"""A student: a model of the recipe, set up from statistics of the training set."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from mlipdb import registry
from mlipdb.errors import ConfigError
from mlipdb.subsets.training_statistics import TrainingStatistics
from mlipdb.trainers.graph import GraphNeeds
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractModel
from mlipdb.trainers.models.kernel import Wanted, require_kernel


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a model takes from the training set and never learns.

    e0 in eV for each of atomic_numbers (ascending); scale is the RMS force component in eV/Å, shift the mean of
    (E − ΣE0)/N in eV, avg_n_neighbors the mean over structures of edges per atom.
    """

    atomic_numbers: tuple[int, ...]
    e0: tuple[float, ...]
    scale: float
    shift: float
    avg_n_neighbors: float


def data_facts(found: TrainingStatistics, *, elements: Iterable[int]) -> DataFacts:
    """The facts of a training set; elements are those that the model must know, with E0 0 where there is none."""
    numbers = tuple(sorted(elements))
    return DataFacts(
        atomic_numbers=numbers,
        e0=tuple(float(found.e0.get(number, 0.0)) for number in numbers),
        scale=found.scale,
        shift=found.mean,
        avg_n_neighbors=found.neighbours or 1.0,
    )


def make_student(options: Mapping[str, Any], facts: DataFacts, *, seed: int) -> AbstractModel:
    """A model with random weights; options are the recipe's table [model].

    Raises ConfigError for an option that the model does not have.
    """
    model_class, rest = _model_class(options)
    config = model_class.from_config({**rest, **_json(facts)}).config
    student: AbstractModel = model_class.create(config, key=jax.random.key(seed))
    return student


def student_edges(options: Mapping[str, Any]) -> tuple[float, GraphNeeds]:
    """The cutoff in Å and the needs of the model that the recipe's table [model] describes.

    Its options are checked on the way.
    """
    blank = DataFacts(atomic_numbers=(1,), e0=(0.0,), scale=1.0, shift=0.0, avg_n_neighbors=1.0)
    model_class, rest = _model_class(options)
    model = model_class.from_config({**rest, **_json(blank)})
    return float(model.cutoff), model.graph_needs


def check_losses(options: Mapping[str, Any], weights: Mapping[str, float]) -> None:
    """Raise ConfigError where loss terms need a stress and the model that the table [model] names has none."""
    model_class, _ = _model_class(options)
    terms = [name for name, weight in weights.items() if weight]
    refused = [name for name in terms if "stress" in registry.load("mlipdb.losses", name).needs]
    if refused and issubclass(model_class, AbstractDirectModel):
        off = " ".join(f"--set loss.{name}=0" for name in refused)
        raise ConfigError(
            f"{options.get('name')} cannot be trained with {', '.join(refused)}: its forces are an output of their "
            f"own, so that it has no stress. Leave that out with {off}, or choose a conservative model"
        )


def check_kernel(options: Mapping[str, Any], kernel: Wanted) -> None:
    """Raise what choose_kernel would raise of the model that the table [model] names, before anything is written."""
    require_kernel(kernel, _model_class(options)[0])


def _model_class(options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    rest = dict(options)
    return registry.load("mlipdb.models", str(rest.pop("name", "nequix"))), rest


def _json(facts: DataFacts) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(facts).items()}
