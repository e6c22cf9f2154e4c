"""Structures that are larger than a usual batch: what they are and what they cost."""

import numpy as np
from jaxtyping import Int64

from mlipdb.trainers.batching.packing import Sizes, fits
from mlipdb.trainers.batching.pad import GraphShape

NAMED = 5


def oversized_text(
    sizes: Sizes, ids: Int64[np.ndarray, " structures"], *, shapes: tuple[GraphShape, ...]
) -> str | None:
    """A sentence that names the largest structures that exceed the first shape; None where there are none."""
    places = np.flatnonzero(~fits(sizes, shapes[0]))
    if not len(places):
        return None
    largest = places[np.argsort(-sizes.edges[places], kind="stable")][:NAMED]
    named = ", ".join(f"{ids[place]} ({sizes.atoms[place]} atoms, {sizes.edges[place]} edges)" for place in largest)
    larger = ", ".join(str(shape.edges) for shape in shapes[1:])
    return (
        f"{len(places)} of {len(sizes)} structures are larger than a batch of {shapes[0].edges} edges and "
        f"{shapes[0].atoms - 1} atoms: {named}{', …' if len(places) > NAMED else ''}. They come in batches of {larger} "
        "edges, each of which is compiled once more and takes memory by its size; leave them out of the subset, or "
        "raise batch.graphs, to have fewer shapes"
    )
