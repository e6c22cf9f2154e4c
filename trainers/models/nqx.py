"""Weight files of the Nequix package: one line of JSON, then the arrays in NPY format one after another."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from mlipdb.errors import ConfigError, CorruptError
from mlipdb.trainers.models.nequix import PUBLISHED_ACTIVATION_NORM, Nequix, NequixConfig

SETTINGS = (
    "hidden_irreps",
    "lmax",
    "n_layers",
    "cutoff",
    "radial_basis_size",
    "radial_mlp_size",
    "radial_mlp_layers",
    "radial_polynomial_p",
    "mlp_init_scale",
    "scale",
    "shift",
    "avg_n_neighbors",
)
# The variants of the package that published weights use; other values would make another network.
FIXED: dict[str, Any] = {"index_weights": False, "layer_norm": True}


def load_nqx(path: str | Path) -> tuple[Nequix, dict[str, Any]]:
    """The model in a weight file, and its JSON, which also holds the settings it was trained with.

    E0 is read from the array; the copy in the JSON differs from it in the seventh digit. What follows the last
    expected array is ignored, because published files end in stray bytes or in extra arrays.

    Raises CorruptError where the bytes end early or an array is of another shape, ConfigError for a network that
    is not one of the published kind.
    """
    with Path(path).open("rb") as file:
        values = _header(file.readline(), path)
        numbers = tuple(sorted(values["atomic_numbers"]))
        e0 = _read_array(file, (len(numbers),), path=path, index=0)
        config = NequixConfig(
            atomic_numbers=numbers,
            e0=tuple(e0.astype(np.float64).tolist()),
            activation_norm=PUBLISHED_ACTIVATION_NORM,
            **{name: values[name] for name in SETTINGS},
        )
        leaves, structure = jax.tree.flatten(Nequix.skeleton(config))
        arrays = [_read_array(file, leaf.shape, path=path, index=index) for index, leaf in enumerate(leaves, start=1)]
    model: Nequix = jax.tree.unflatten(structure, [jax.numpy.asarray(array) for array in arrays])
    return model, values


def save_nqx(path: str | Path, model: Nequix, *, extra: dict[str, Any] | None = None) -> None:
    """Write a file that the Nequix package opens; extra is added to its JSON (training settings, for instance).

    The package integrates the activation's norm itself, so that a model with another norm than the published one
    would change there; that raises ConfigError.
    """
    if model.config.activation_norm != PUBLISHED_ACTIVATION_NORM:
        raise ConfigError(
            f"activation_norm is {model.config.activation_norm}, but the Nequix package always uses about "
            f"{PUBLISHED_ACTIVATION_NORM}; such a model cannot be written as .nqx"
        )
    values = {name: getattr(model.config, name) for name in SETTINGS} | FIXED
    values["atomic_numbers"] = list(model.atomic_numbers)
    e0 = np.asarray(model.e0, dtype="<f4")
    values["atom_energies"] = {str(n): float(e) for n, e in zip(model.atomic_numbers, e0, strict=True)}
    with Path(path).open("wb") as file:
        file.write(json.dumps({**(extra or {}), **values}).encode() + b"\n")
        for array in [e0, *jax.tree.leaves(model)]:
            np.lib.format.write_array(file, np.asarray(array, dtype="<f4"), version=(1, 0), allow_pickle=False)


def _header(line: bytes, path: str | Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise CorruptError(f"{path}: the first line is not JSON ({error}); is it a Nequix weight file?") from error
    missing = [name for name in ("atomic_numbers", *SETTINGS) if name not in values]
    if missing:
        raise CorruptError(f"{path}: its JSON lacks {', '.join(missing)}; is it a Nequix weight file?")
    for name, expected in FIXED.items():
        if values.get(name, expected) != expected:
            raise ConfigError(f"{path}: {name} is {values[name]}; only {expected} is supported")
    return values


def _read_array(file: Any, shape: tuple[int, ...], *, path: str | Path, index: int) -> Float32[np.ndarray, "..."]:
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptError(f"{path}: array {index} cannot be read ({error}); download the file again") from error
    if array.shape != shape:
        raise CorruptError(f"{path}: array {index} has shape {array.shape}; its JSON means {shape}")
    return array.astype(np.float32)
