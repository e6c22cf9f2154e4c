"""Neighbour lists kept between a teacher's edges() and its label(), so that each is made once."""

from collections import OrderedDict

from mlipdb.structures import Structure
from mlipdb.trainers.batching.neighbours import Neighbours, neighbours
from mlipdb.trainers.graph import NO_NEEDS, GraphNeeds

KEPT_BYTES = 256 * 2**20  # a thousand structures of 5,000 edges are a tenth of it


class KeptLists:
    """The lists of the structures that were last counted, for one cutoff in Å: no more bytes than so many.

    Only those that are counted are kept: structures displaced for a Hessian row come once and never again.
    """

    def __init__(self, cutoff: float, *, needs: GraphNeeds = NO_NEEDS, most: int = KEPT_BYTES) -> None:
        self.bytes = 0
        self._cutoff, self._needs, self._most = cutoff, needs, most
        self._lists: OrderedDict[bytes, Neighbours] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lists)

    def count(self, structure: Structure) -> int:
        """How many ordered pairs are closer than the cutoff, images included; the list is kept."""
        found = self.of(structure)
        key = structure.content_hash
        if key not in self._lists:
            self._lists[key] = found
            self.bytes += found.nbytes
            while self.bytes > self._most:
                self.bytes -= self._lists.popitem(last=False)[1].nbytes
        return len(found)

    def of(self, structure: Structure) -> Neighbours:
        """All those pairs: the list that was kept, or one made for this call."""
        kept = self._lists.get(structure.content_hash)
        return neighbours(structure, self._cutoff, needs=self._needs) if kept is None else kept
