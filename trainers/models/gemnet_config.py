"""Settings of a GemNet."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.trainers.models.config import DEFAULT, check_settings, factors_or_fit, read_settings


@dataclass(frozen=True, kw_only=True)
class ScaleFactors:
    """Numbers that hold the variance of activations: one for each block and, of outputs, one before the first.

    triplet_radial scales what a block's edges send to triplets, triplet_sum the sum over triplets, atom_sum the sum
    over an atom's edges; energy_sum the like in an output, force_radial what an output makes forces of. They are
    settings, not weights: no optimiser changes them.
    """

    triplet_radial: tuple[float, ...]
    triplet_sum: tuple[float, ...]
    atom_sum: tuple[float, ...]
    energy_sum: tuple[float, ...]
    force_radial: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.items():
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                    raise ConfigError(f"scale_factors.{name} must hold numbers above 0; got {value!r}")

    def items(self) -> Iterator[tuple[str, tuple[float, ...]]]:
        """Name and values of each kind."""
        return ((item.name, getattr(self, item.name)) for item in dataclasses.fields(self))


# Those of the students of the paper on joint distillation, used there on SPICE and on MPtrj alike.
DIRECT_FACTORS = ScaleFactors(
    triplet_radial=(3.8454, 3.8385, 3.9252, 3.8387),
    triplet_sum=(2.3951, 2.3397, 2.1765, 2.2911),
    atom_sum=(0.69224, 0.58269, 0.48931, 0.54554),
    energy_sum=(0.64743, 0.57830, 0.54641, 0.62219, 0.49617),
    force_radial=(3.91057, 3.81022, 3.69177, 3.92693, 3.65049),
)
CONSERVATIVE_FACTORS = dataclasses.replace(
    DIRECT_FACTORS, energy_sum=(0.64743, 0.64217, 0.52856, 0.56126, 0.51117), force_radial=()
)
_SIZES = MappingProxyType(
    {
        "n_blocks": 4,
        "n_spherical": 7,
        "n_radial": 6,
        "atom_size": 64,
        "edge_size": 64,
        "triplet_size": 32,
        "rbf_size": 16,
        "cbf_size": 16,
        "bilinear_size": 64,
        "n_before_skip": 1,
        "n_after_skip": 1,
        "n_concatenations": 1,
        "n_atom": 2,
        "envelope_exponent": 5,
    }
)
# two where a variance is taken over that many
_LOWEST = MappingProxyType(
    {name: 0 if name in ("n_before_skip", "n_after_skip", "n_concatenations", "n_atom") else 2 for name in _SIZES}
    | {"n_blocks": 1, "n_spherical": 1, "envelope_exponent": 3, "max_neighbours": 1}
)


@dataclass(frozen=True, kw_only=True)
class GemNetConfig:
    """Everything of a GemNet but its arrays; the defaults are the paper's.

    cutoff Å; e0 eV for each of atomic_numbers (ascending); outputs are times scale, in eV, and energies plus shift.
    max_neighbours are those that an edge comes from at most, the nearest. n_before_skip, n_after_skip,
    n_concatenations and n_atom count residual layers. direct says whether forces are an output, and is given by the
    model, not by a setting. avg_n_neighbors is kept as a fact of the data; scale_factors take its part here.

    scale_factors are ``paper``, ``fit`` (on the first batches of a training), or the numbers. The default is the
    paper's for a model of the paper's sizes, else to fit them.
    """

    atomic_numbers: tuple[int, ...]
    e0: tuple[float, ...]
    direct: bool
    cutoff: float = 6.0
    max_neighbours: int = 50
    n_blocks: int = _SIZES["n_blocks"]
    n_spherical: int = _SIZES["n_spherical"]
    n_radial: int = _SIZES["n_radial"]
    atom_size: int = _SIZES["atom_size"]
    edge_size: int = _SIZES["edge_size"]
    triplet_size: int = _SIZES["triplet_size"]
    rbf_size: int = _SIZES["rbf_size"]
    cbf_size: int = _SIZES["cbf_size"]
    bilinear_size: int = _SIZES["bilinear_size"]
    n_before_skip: int = _SIZES["n_before_skip"]
    n_after_skip: int = _SIZES["n_after_skip"]
    n_concatenations: int = _SIZES["n_concatenations"]
    n_atom: int = _SIZES["n_atom"]
    envelope_exponent: int = _SIZES["envelope_exponent"]
    scale: float = 1.0
    shift: float = 0.0
    avg_n_neighbors: float = 1.0
    scale_factors: ScaleFactors | str = DEFAULT

    def __post_init__(self) -> None:
        check_settings(self, lowest=_LOWEST)
        object.__setattr__(self, "scale_factors", self._resolved())  # so that configurations compare by their numbers

    def _resolved(self) -> ScaleFactors | str:
        given = self.scale_factors
        if isinstance(given, ScaleFactors):
            self._check_lengths(given)
            return given
        published = DIRECT_FACTORS if self.direct else CONSERVATIVE_FACTORS
        return factors_or_fit(given, self, sizes=_SIZES, published=published)

    def _check_lengths(self, factors: ScaleFactors) -> None:
        for name, values in factors.items():
            count = self.n_blocks + (name in ("energy_sum", "force_radial"))
            count = count if self.direct or name != "force_radial" else 0
            if len(values) != count:
                raise ConfigError(f"scale_factors.{name} has {len(values)} values; {self.n_blocks} blocks need {count}")

    @property
    def factors(self) -> ScaleFactors | None:
        """The scale factors in numbers; None where they are yet to be fitted."""
        return self.scale_factors if isinstance(self.scale_factors, ScaleFactors) else None

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        values = {name: _listed(value) for name, value in dataclasses.asdict(self).items()}
        del values["direct"]
        return values


def config_from_json(values: Mapping[str, Any], *, direct: bool) -> GemNetConfig:
    """A configuration from JSON values. Raises ConfigError for a setting that is unknown, missing or out of range."""
    model = "gemnet-dt" if direct else "gemnet-t"
    settings = read_settings(values, GemNetConfig, model=model, left_out={"direct"})
    if isinstance(factors := settings.get("scale_factors"), Mapping):
        settings["scale_factors"] = _factors_from_json(factors)
    return GemNetConfig(direct=direct, **settings)


def _factors_from_json(values: Mapping[str, Any]) -> ScaleFactors:
    known = {item.name for item in dataclasses.fields(ScaleFactors)}
    if unknown := sorted(values.keys() - known):
        raise ConfigError(f"scale_factors has no {unknown[0]!r}.{did_you_mean(unknown[0], known)}")
    if missing := sorted(known - {"force_radial"} - values.keys()):
        raise ConfigError(f"scale_factors lacks {', '.join(missing)}; give all of them, or 'fit'")
    return ScaleFactors(**{name: tuple(numbers) for name, numbers in values.items()})


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _listed(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
