"""The kernel of a Nequix: what computes its convolutions, plain JAX or, where it proves right, cuEquivariance."""

import dataclasses
import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.structures import make_structure
from mlipdb.trainers.arrays import named_arrays
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.base import with_static
from mlipdb.trainers.models.derive import predict_with_rows
from mlipdb.trainers.models.nequix import CUEQUIVARIANCE, PLAIN, Nequix, NequixConfig

Wanted = Literal["auto", "plain", "cuequivariance"]
Tree = TypeVar("Tree")
# Of the largest number of an array. Rounding of float32 makes 1e-5; a kernel that is known to have been wrong, 1e-2.
TOLERANCE = 1e-3
INSTALL = "pip install 'mlipdb[cuequivariance]'"
INSTALL_CUDA = "pip install cuequivariance-ops-jax-cu12 (or -cu13, as CUDA is)"


def choose_kernel(tree: object, wanted: Wanted, *, say: Callable[[str], None]) -> str:
    """The kernel for a model, or for whatever has models in it; says which and, where auto comes to plain, why.

    Raises MissingExtraError or ConfigError where cuequivariance is asked for by name and cannot be had.
    """
    found = [node for node in jax.tree.leaves(tree, is_leaf=_is_nequix) if _is_nequix(node)]
    require_kernel(wanted, type(found[0] if found else tree))
    if not found or wanted == PLAIN:
        return PLAIN
    on_cpu = jax.default_backend() == "cpu"
    reason = _why_not_automatic() if wanted == "auto" else None
    reason = reason or (None if on_cpu else fault(found[0].config))
    if reason and wanted == CUEQUIVARIANCE:
        raise ConfigError(f"the kernel cuequivariance is not used: {reason}. Leave it out with --kernel plain")
    held = "slow on a CPU" if on_cpu else f"held against plain to {TOLERANCE:g}"
    say(f"kernel plain: {reason}" if reason else f"kernel cuequivariance, {held}")
    return PLAIN if reason else CUEQUIVARIANCE


def with_kernel(tree: Tree, kernel: str) -> Tree:
    """The model, or whatever has models in it, with that kernel in each Nequix; no array changes."""

    def changed(node: Any) -> Any:
        return with_static(node, kernel=kernel) if _is_nequix(node) else node

    with_it: Tree = jax.tree.map(changed, tree, is_leaf=_is_nequix)
    return with_it


def require_kernel(wanted: Wanted, model: type[Any]) -> None:
    """Raise what choose_kernel raises, as far as it can be told from the class of the model."""
    if wanted != CUEQUIVARIANCE:
        return
    if not issubclass(model, Nequix):
        raise ConfigError(f"the kernel cuequivariance is for nequix, not for {model.__name__}; leave it out")
    if missing := _missing():
        raise MissingExtraError(f"the kernel cuequivariance {missing}, or leave it out with --kernel plain")


def _missing() -> str | None:
    if importlib.util.find_spec("cuequivariance_jax") is None:
        return f"is not installed; run {INSTALL}"
    if jax.default_backend() == "gpu" and importlib.util.find_spec("cuequivariance_ops_jax") is None:
        return f"lacks its part for GPUs; run {INSTALL_CUDA}"
    return None


def _why_not_automatic() -> str | None:
    if jax.default_backend() != "gpu":
        return f"the device is a {jax.default_backend()}, not a GPU"
    missing = _missing()
    return missing and f"cuequivariance {missing}"


def _is_nequix(node: object) -> bool:
    return isinstance(node, Nequix)


@cache
def fault(config: NequixConfig) -> str | None:
    """What is wrong with the kernel in a Nequix of up to three layers of that width, held against plain; else None.

    That is all kinds of layers. Compared are energies, forces, a Hessian row, and the gradient of their squares by the
    weights, which is the third derivative.
    """
    model = Nequix.create(dataclasses.replace(config, n_layers=min(config.n_layers, 3)), key=jax.random.key(0))
    graph = _small_graph(model)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*Falling back")  # to what is slower than plain
            found = named_arrays(_answers(with_kernel(model, CUEQUIVARIANCE), graph))
    except (ArithmeticError, AssertionError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError,
            UserWarning) as error:  # fmt: skip
        return f"it fails ({(str(error) or repr(error)).splitlines()[0]})"
    for name, expected in named_arrays(_answers(model, graph)).items():
        apart = np.abs(found[name] - expected).max() / max(np.abs(expected).max(), 1e-30)
        if not apart <= TOLERANCE:
            shown = name.replace("['", "").replace("']", "")
            return f"its {shown} differ from those of plain by {apart:.1e} of the largest"
    return None


@compiled
def _answers(model: Nequix, graph: AtomicGraph) -> dict[str, Any]:
    first = jnp.zeros((1, len(graph.graph_mask)), jnp.int32)

    def squares(model: Nequix) -> tuple[Any, dict[str, Any]]:
        prediction, rows = predict_with_rows(model, graph, first, written_out=True)
        names = ("energies", "forces", "stress", "Hessian rows")
        found = (prediction.atomic_energies, prediction.forces, prediction.stress, rows)
        return jnp.stack([(values**2).sum() for values in found]).sum(), dict(zip(names, found, strict=True))

    differentiated: Any = eqx.filter_grad(squares, has_aux=True)
    gradient, found = differentiated(model)
    return {**found, "gradients": gradient}


def _small_graph(model: Nequix) -> AtomicGraph:
    """A crystal of four atoms."""
    numbers = (model.atomic_numbers * 4)[:4]
    places = np.array([[0.0, 0.0, 0.0], [0.45, 0.05, -0.1], [-0.12, 0.4, 0.07], [0.2, -0.15, 0.43]])
    cell = np.eye(3) + 0.1 * places[1:]
    structure = make_structure(numbers, places * model.cutoff, cell=cell * model.cutoff, pbc=(True, True, True))
    lists = [neighbours(structure, model.cutoff)]
    graph: AtomicGraph = jax.tree.map(
        jnp.asarray, pad_graph([structure], lists, shape=needed_shape([structure], lists))
    )
    return graph
