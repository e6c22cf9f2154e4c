"""Histograms: fine bins that SQL counted, joined into the few that a person looks at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SIZE_EDGES = (1, 2, 3, 5, 9, 17, 33, 65, 129, 257)  # atoms
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Bin:
    """How many values lie in [low, high); None is an open end."""

    low: float | int | None
    high: float | int | None
    count: int

    @property
    def name(self) -> str:
        """The limits as words: ``0.1 to 0.3``, ``below 2``, and ``5 to 8`` of whole numbers."""
        if self.low is None:
            return f"below {self.high:g}"
        if self.high is None:
            return f"{self.low:g} and more"
        if isinstance(self.low, int) and isinstance(self.high, int):
            return f"{self.low}" if self.high == self.low + 1 else f"{self.low} to {self.high - 1}"
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins that follow one another, in a unit."""

    unit: str
    bins: tuple[Bin, ...]

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(bin.count for bin in self.bins)


def by_edges(counts: Mapping[int, int], edges: Sequence[float | int], *, unit: str) -> Histogram:
    """A histogram of counts by the number of the bin: bin k lies between edges k-1 and k, the ends are open.

    Empty bins at the ends are left out.
    """
    limits = (None, *edges, None)
    bins = [Bin(limits[place], limits[place + 1], counts.get(place, 0)) for place in range(len(edges) + 1)]
    return Histogram(unit, _trimmed(bins))


def of_sizes(counts: Mapping[int, int]) -> Histogram:
    """A histogram of whole numbers of atoms, in bins that double."""
    placed: dict[int, int] = {}
    for atoms, count in counts.items():
        place = sum(atoms >= edge for edge in SIZE_EDGES)
        placed[place] = placed.get(place, 0) + count
    return by_edges(placed, SIZE_EDGES, unit="atoms")


def merged(fine: Mapping[int, int], width: float, *, unit: str, most: int = 16, tail: float = 0.005) -> Histogram:
    """Bins of a round width from fine ones (number k covers k·width to (k+1)·width).

    At most so many cover all but a fraction tail of the values on each side; what lies beyond them is counted in a
    bin with an open end, so that a few outliers do not hide the rest.
    """
    if not fine:
        return Histogram(unit, ())
    low, high = _quantile(fine, tail), _quantile(fine, 1 - tail)
    step = next(step for step in _round_steps() if (high // step) - (low // step) < most)
    first, last = low // step, high // step
    counts: dict[int, int] = {}
    for number, count in fine.items():
        place = min(max(number // step, first - 1), last + 1)
        counts[place] = counts.get(place, 0) + count
    edges = [_round(place * step * width) for place in range(first, last + 2)]
    inner = [Bin(edges[n], edges[n + 1], counts.get(first + n, 0)) for n in range(len(edges) - 1)]
    below, above = Bin(None, edges[0], counts.get(first - 1, 0)), Bin(edges[-1], None, counts.get(last + 1, 0))
    return Histogram(unit, tuple(bin for bin in (below, *inner, above) if bin in inner or bin.count))


def _round_steps() -> Iterable[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    scale = 1
    while True:
        yield from (step * scale for step in _STEPS)
        scale *= 10


def _quantile(fine: Mapping[int, int], part: float) -> int:
    """The fine bin in which a fraction of the values is reached."""
    wanted, seen = part * sum(fine.values()), 0
    for number in sorted(fine):
        seen += fine[number]
        if seen > wanted:
            return number
    return max(fine)


def _round(value: float) -> float:
    """Without the dust of binary fractions, so that an edge prints as what it is."""
    return float(f"{value:.10g}")


def _trimmed(bins: list[Bin]) -> tuple[Bin, ...]:
    filled = [place for place, bin in enumerate(bins) if bin.count]
    return tuple(bins[filled[0] : filled[-1] + 1]) if filled else ()
