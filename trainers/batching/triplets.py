"""Triplets: pairs of edges that end in one atom, listed for a whole batch at once."""

import numpy as np
from jaxtyping import Int32

from mlipdb.trainers.graph import Triplets


def pad_triplets(receivers: Int32[np.ndarray, " edges"], *, edges: int, length: int) -> Triplets:
    """The triplets of all edges given, whose receivers ascend, then padding up to the length.

    edges is the padded number of edges; the length must hold the triplets.
    """
    edge_in, edge_out = _pairs(receivers)
    return Triplets(
        edge_in=_filled(edge_in, length=length, fill=edges - 1),
        edge_out=_filled(edge_out, length=length, fill=edges - 1),
        mask=np.arange(length) < len(edge_in),
    )


def _pairs(receivers: Int32[np.ndarray, " edges"]) -> tuple[Int32[np.ndarray, " pairs"], Int32[np.ndarray, " pairs"]]:
    """For each edge all others with its receiver, as (edge_in, edge_out)."""
    own = np.arange(len(receivers), dtype=np.int32)
    degrees = np.bincount(receivers, minlength=1).astype(np.int32)
    start = (np.cumsum(degrees, dtype=np.int32) - degrees)[receivers]
    partners = degrees[receivers] - 1
    edge_out = np.repeat(own, partners)
    before = np.cumsum(partners) - partners
    place = np.arange(len(edge_out), dtype=np.int32) - np.repeat(before.astype(np.int32), partners)
    edge_in = np.repeat(start, partners) + place
    edge_in += edge_in >= edge_out  # an edge is no partner of itself
    return edge_in, edge_out


def _filled(values: Int32[np.ndarray, " pairs"], *, length: int, fill: int) -> Int32[np.ndarray, " length"]:
    padded = np.full(length, fill, dtype=np.int32)
    padded[: len(values)] = values
    return padded
