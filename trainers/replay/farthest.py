"""Farthest-point selection: each structure that is chosen is the one least like all that were chosen before."""

import numpy as np
from jaxtyping import Float32, Float64, Int64

from mlipdb.trainers.replay.descriptors import Descriptors


def farthest(found: Descriptors, *, count: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """Places of the chosen structures, in the order of the choice; the seed decides the first, the lowest place ties.

    The distance of two structures is that of their descriptors, element by element; where one lacks an element, that
    element counts as the length of the other's descriptor, which is near 1. count must not exceed their number.
    """
    squares = found.squares()
    nearest = np.full(len(squares), np.inf)
    chosen = np.zeros(count, dtype=np.int64)
    place = int(np.random.default_rng(seed).integers(len(squares)))
    for turn in range(count):
        chosen[turn] = place
        distances = squares + squares[place] - 2.0 * _products(found, place)
        nearest = np.minimum(nearest, np.maximum(distances, 0.0))
        nearest[chosen[: turn + 1]] = -1.0  # also where others are exactly alike
        place = int(np.argmax(nearest))
    return chosen


def _products(found: Descriptors, place: int) -> Float64[np.ndarray, " structures"]:
    """Inner products of one structure's descriptor with all."""
    products = np.zeros(len(found), dtype=np.float64)
    for block in found.blocks.values():
        row = int(np.searchsorted(block.structures, place))
        if row < len(block.structures) and block.structures[row] == place:
            means: Float32[np.ndarray, "rows features"] = block.means
            products[block.structures] += means @ means[row]
    return products
