"""Settings of a PaiNN."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mlipdb.errors import ConfigError
from mlipdb.trainers.models.config import DEFAULT, check_settings, factors_or_fit, read_settings

# Those of the students of the paper on joint distillation, for SPICE and for MPtrj alike.
PAPER_FACTORS = (1.5760139, 1.2381928, 1.2548271, 1.2066829)
_SIZES = MappingProxyType({"n_layers": 4, "hidden_size": 128, "n_radial": 128, "envelope_exponent": 5})
_LOWEST = MappingProxyType(
    {"n_layers": 1, "hidden_size": 2, "n_radial": 2, "envelope_exponent": 3, "max_neighbours": 1}
)


@dataclass(frozen=True, kw_only=True)
class PainnConfig:
    """Everything of a PaiNN but its arrays; the defaults are the paper's.

    cutoff Å; e0 eV for each of atomic_numbers (ascending); outputs are times scale, in eV and eV/Å, and energies plus
    shift. Edges come from the max_neighbours nearest. direct says whether forces are an output, and is given by the
    model, not by a setting. avg_n_neighbors is kept as a fact of the data and not used.

    The published messages do not vanish at the cutoff, because a bias is added after the envelope; with
    smooth_messages the envelope multiplies the messages too, and they do. scale_factors multiply the scalars after
    each layer: ``paper``, ``fit`` (on the first batches of a training), or the numbers; the default is the paper's for
    a model of the paper's sizes, else to fit them.
    """

    atomic_numbers: tuple[int, ...]
    e0: tuple[float, ...]
    direct: bool
    cutoff: float = 12.0
    max_neighbours: int = 50
    n_layers: int = _SIZES["n_layers"]
    hidden_size: int = _SIZES["hidden_size"]
    n_radial: int = _SIZES["n_radial"]
    envelope_exponent: int = _SIZES["envelope_exponent"]
    smooth_messages: bool = False
    scale: float = 1.0
    shift: float = 0.0
    avg_n_neighbors: float = 1.0
    scale_factors: tuple[float, ...] | str = DEFAULT

    def __post_init__(self) -> None:
        check_settings(self, lowest=_LOWEST)
        if self.hidden_size % 2:
            raise ConfigError(f"hidden_size must be even, since the outputs have half of it; got {self.hidden_size}")
        object.__setattr__(self, "scale_factors", self._resolved())  # so that configurations compare by their numbers

    def _resolved(self) -> tuple[float, ...] | str:
        given = self.scale_factors
        if not isinstance(given, str):
            return self._checked(given)
        return factors_or_fit(given, self, sizes=_SIZES, published=PAPER_FACTORS)

    def _checked(self, given: tuple[float, ...]) -> tuple[float, ...]:
        if len(given) != self.n_layers:
            raise ConfigError(f"scale_factors has {len(given)} values for {self.n_layers} layers; give one each")
        for value in given:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ConfigError(f"scale_factors must be numbers above 0; got {value!r}")
        return tuple(float(value) for value in given)

    @property
    def factors(self) -> tuple[float, ...] | None:
        """The scale factors in numbers; None where they are yet to be fitted."""
        return None if isinstance(self.scale_factors, str) else self.scale_factors

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
        del values["direct"]
        return values


def config_from_json(values: Mapping[str, Any], *, direct: bool) -> PainnConfig:
    """A configuration from JSON values. Raises ConfigError for a setting that is unknown, missing or out of range."""
    model = "painn" if direct else "painn-conservative"
    settings = read_settings(values, PainnConfig, model=model, left_out={"direct"})
    return PainnConfig(direct=direct, **settings)
