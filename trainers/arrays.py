"""The arrays of a pytree by name, and back."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mlipdb.errors import ConfigError, CorruptError

T = TypeVar("T")


def named_arrays(tree: object) -> dict[str, np.ndarray]:
    """Every array leaf under its place in the tree, such as ``layers[0].weight``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    return {array_name(path): np.asarray(leaf) for path, leaf in leaves}


def count_parameters(model: object) -> int:
    """How many numbers a model has that learn: all of its arrays."""
    return sum(array.size for array in named_arrays(model).values())


def with_arrays(tree: T, arrays: Mapping[str, np.ndarray], *, where: str) -> T:
    """The tree with its array leaves replaced by those of the same name, bit for bit.

    Raises CorruptError, naming `where`, when names, shapes or dtypes differ.
    """
    expected = named_arrays(tree)
    if expected.keys() != arrays.keys():
        missing, extra = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
        raise CorruptError(f"{where}: arrays do not fit the model: missing {missing[:3]}, not expected {extra[:3]}")
    for name, array in expected.items():
        if array.shape != arrays[name].shape or array.dtype != arrays[name].dtype:
            raise CorruptError(
                f"{where}: array {name!r} is {arrays[name].dtype} {arrays[name].shape}; "
                f"the model has {array.dtype} {array.shape}"
            )
    filled: T = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(arrays[array_name(path)]) if eqx.is_array(leaf) else leaf, tree
    )
    return filled


def arrays_like(tree: object, patterns: Iterable[str]) -> PyTree[bool]:
    """True at the arrays whose names a pattern fits, in which * stands for any text and brackets for themselves.

    Raises ConfigError for a pattern that fits no array.
    """
    escaped = {pattern: pattern.replace("[", "[[]") for pattern in patterns}
    leaves, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))
    known = [array_name(path) for path, _ in leaves]
    for pattern, text in escaped.items():
        if not any(fnmatchcase(name, text) for name in known):
            raise ConfigError(f"no array of the model is like {pattern!r}; it has {', '.join(known[:4])}, …")

    def fits(path: tuple[object, ...], leaf: object) -> bool:
        return eqx.is_array(leaf) and any(fnmatchcase(array_name(path), text) for text in escaped.values())

    return jax.tree_util.tree_map_with_path(fits, tree)


def array_name(path: tuple[object, ...]) -> str:
    """The name of the leaf at a path of jax.tree_util."""
    return jax.tree_util.keystr(path).lstrip(".")
