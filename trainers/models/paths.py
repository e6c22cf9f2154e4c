"""Which harmonics couple in a convolution, and with what coefficients."""

from dataclasses import dataclass
from functools import cache

import e3nn_jax
import numpy as np
from jaxtyping import Float64, Int64

from mlipdb.errors import ConfigError


@dataclass(frozen=True)
class Path:
    """One product: features of degree l_in (channels of them) times harmonics of degree l_edge, into degree l_out.

    scale multiplies it, beside the coefficients.
    """

    l_in: int
    l_edge: int
    l_out: int
    channels: int
    scale: float = 1.0

    @property
    def components(self) -> int:
        """Components of the product, 2·l_out + 1."""
        return 2 * self.l_out + 1


def parse_irreps(text: str) -> tuple[int, ...]:
    """Channels of each degree from a string such as ``128x0e + 64x1o``: index is the degree, 0 where it is absent.

    Degrees must ascend and have the parity of the harmonics, (-1)^l, because no others come about. Raises ConfigError.
    """
    try:
        irreps = e3nn_jax.Irreps(text)
    except ValueError as error:
        raise ConfigError(f"hidden_irreps {text!r} cannot be read ({error}); write them as '128x0e + 64x1o'") from error
    degrees = [irrep.l for _, irrep in irreps]
    for count, irrep in irreps:
        if irrep.p != (-1) ** irrep.l or count < 1:
            raise ConfigError(f"hidden_irreps {text!r}: {count}x{irrep} has the wrong parity or no channels")
    if degrees != sorted(set(degrees)) or degrees[:1] != [0]:
        raise ConfigError(f"hidden_irreps {text!r}: degrees must start at 0e and ascend, each once")
    channels = dict(zip(degrees, (count for count, _ in irreps), strict=True))
    return tuple(channels.get(degree, 0) for degree in range(max(degrees) + 1))


def coupled_paths(channels_in: tuple[int, ...], *, lmax: int, channels_out: tuple[int, ...]) -> tuple[Path, ...]:
    """Every path from features and harmonics up to lmax into the degrees that the output has.

    The order is that of published weights: by output degree, then input degree, then degree of the harmonics.
    """
    found = [
        Path(l_in, l_edge, l_out, channels)
        for l_out, wanted in enumerate(channels_out)
        for l_in, channels in enumerate(channels_in)
        for l_edge in range(lmax + 1)
        if wanted and channels and abs(l_in - l_edge) <= l_out <= l_in + l_edge and (l_in + l_edge + l_out) % 2 == 0
    ]
    return tuple(found)


def channels_of(paths: tuple[Path, ...]) -> tuple[int, ...]:
    """Channels of each degree that the paths make together."""
    highest = max(path.l_out for path in paths)
    return tuple(sum(path.channels for path in paths if path.l_out == degree) for degree in range(highest + 1))


def shared_degrees(first: tuple[int, ...], second: tuple[int, ...]) -> list[int]:
    """The degrees, ascending, of which both have channels."""
    return [degree for degree, pair in enumerate(zip(first, second, strict=False)) if all(pair)]


def group_by_input(paths: tuple[Path, ...]) -> dict[int, tuple[Path, ...]]:
    """The paths from each input degree, ascending, in the order of paths."""
    degrees = sorted({path.l_in for path in paths})
    return {degree: tuple(path for path in paths if path.l_in == degree) for degree in degrees}


def weight_columns(paths: tuple[Path, ...]) -> Int64[np.ndarray, " numbers"]:
    """Where the weights of paths grouped by input stand among those in the order of paths."""
    starts = np.cumsum([0, *(path.channels for path in paths)])
    grouped = sorted(range(len(paths)), key=lambda place: paths[place].l_in)
    columns: Int64[np.ndarray, " numbers"] = np.concatenate(
        [np.arange(starts[place], starts[place + 1]) for place in grouped]
    )
    return columns


@cache
def rows_of(group: tuple[Path, ...]) -> tuple[tuple[int, int], ...]:
    """Order of the components of all paths from one input degree: (place of the path, component).

    Paths into one degree take turns, component by component, so that what goes into a degree is one block in which
    components come first and the paths' channels stand side by side.
    """
    rows = [(path.l_out, component, place) for place, path in enumerate(group) for component in range(path.components)]
    return tuple((place, component) for _, component, place in sorted(rows))


@cache
def coupling_matrix(group: tuple[Path, ...], *, columns: int) -> Float64[np.ndarray, "columns products"]:
    """Coefficients of all paths from one input degree, as a matrix that is applied to all harmonics of an edge.

    Row l² + l + m belongs to the harmonic (l, m); products are (component of a path's result, in the order of rows_of)
    times (component of the input), the latter fastest.
    """
    matrix = np.zeros((columns, len(rows_of(group)), 2 * group[0].l_in + 1))
    for row, (place, component) in enumerate(rows_of(group)):
        path = group[place]
        coefficients = coupling(path.l_in, path.l_edge, path.l_out)[:, :, component]
        matrix[path.l_edge**2 : (path.l_edge + 1) ** 2, row] = path.scale * coefficients.T
    flat: Float64[np.ndarray, "columns products"] = matrix.reshape(columns, -1)
    return flat


@cache
def path_of_component(group: tuple[Path, ...]) -> Float64[np.ndarray, "components paths"]:
    """One where a component, in the order of rows_of, is of the path; else zero."""
    places: Float64[np.ndarray, "components paths"] = np.eye(len(group))[[place for place, _ in rows_of(group)]]
    return places


@cache
def coupling(l_in: int, l_edge: int, l_out: int) -> Float64[np.ndarray, "m_in m_edge m_out"]:
    """Real Clebsch-Gordan coefficients times √(2·l_out + 1), which keeps the variance of each component at one."""
    coefficients = np.asarray(e3nn_jax.clebsch_gordan(l_in, l_edge, l_out), dtype=np.float64)
    scaled: Float64[np.ndarray, "m_in m_edge m_out"] = coefficients * np.sqrt(2 * l_out + 1)
    return scaled
