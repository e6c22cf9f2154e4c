"""Shapes that programs were compiled for: a smaller graph is padded to one of them rather than compiled for anew."""

from collections import Counter
from collections.abc import Callable

from mlipdb.trainers.batching.pad import GraphShape

Rounding = Callable[[GraphShape], GraphShape]
WORTH = 131_072  # edges that a model of the published size evaluates in about the time of one compilation


def _as_it_is(shape: GraphShape) -> GraphShape:
    return shape


class KnownShapes:
    """The shapes that one program was compiled for, in a process; rounded makes those that graphs would have alone.

    A graph takes the smallest of them that holds it, until graphs of its own size have had as many edges of padding as
    are worth a compilation; then it has a shape of its own. So all of them together cost at most twice what they would
    if it were known beforehand how many there will be.
    """

    def __init__(self, rounded: Rounding = _as_it_is, *, worth: int = WORTH) -> None:
        self._rounded = rounded
        self._worth = worth
        self._known: set[GraphShape] = set()
        self._wasted: Counter[GraphShape] = Counter()

    def fitting(self, needed: GraphShape) -> GraphShape:
        """The shape to pad a graph to. It counts as compiled from now on."""
        own = self._rounded(needed)
        holding = [shape for shape in self._known if shape.holds(needed)]
        if own not in self._known and holding:
            smallest = min(holding, key=lambda shape: (shape.edges, shape.capacity))
            self._wasted[own] += max(smallest.edges - own.edges, 1)
            if self._wasted[own] <= self._worth:
                return smallest
        self._known.add(own)
        return own

    def drop(self, shape: GraphShape) -> None:
        """Nothing is padded to this one again, nor to a larger one: it does not fit into memory."""
        self._known = {known for known in self._known if not known.holds(shape)}
