"""Which arrays of a model are matrices."""

from collections.abc import Sequence
from typing import Any

# Arrays of two axes that are no matrices: tables of one row an element, vectors stacked over layers, and factors of
# low-rank changes. They neither decay nor are they orthogonalised.
NO_MATRICES = frozenset({"embedding", "atom_embedding", "frequencies", "bias", "gain", "lora_in", "lora_out"})


def is_matrix(path: Sequence[Any], leaf: Any) -> bool:
    """Two or more axes, and no table or stack of vectors by the name of its field; path is that of jax.tree_util."""
    fields = [name for name in map(key_name, path) if name]
    return leaf.ndim >= 2 and not (fields and fields[-1] in NO_MATRICES)


def key_name(key: Any) -> str:
    """The field or key of one step of a path; empty for a place in a sequence."""
    return str(getattr(key, "name", getattr(key, "key", "")))
