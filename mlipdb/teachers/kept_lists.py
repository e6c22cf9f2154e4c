"""Neighbour lists kept between a teacher's edges() and its label(), so that each is made once."""

from collections import OrderedDict

from mlipdb.structures import Structure
from mlipdb.trainers.batching.neighbours import Neighbours, neighbours

KEPT = 2048  # more than the runner holds at once


class KeptLists:
    """The lists of the structures that were last asked for, all for one cutoff in Å."""

    def __init__(self, cutoff: float) -> None:
        self._cutoff = cutoff
        self._lists: OrderedDict[bytes, Neighbours] = OrderedDict()

    def of(self, structure: Structure) -> Neighbours:
        """All ordered pairs closer than the cutoff, images included."""
        key = structure.content_hash
        if key not in self._lists:
            self._lists[key] = neighbours(structure, self._cutoff)
            if len(self._lists) > KEPT:
                self._lists.popitem(last=False)
        return self._lists[key]
