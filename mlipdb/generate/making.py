"""What is to be made: the kind, how many, and its settings."""

from dataclasses import dataclass
from typing import Any

from mlipdb.errors import ConfigError, did_you_mean

# which settings each kind has, beside count and seed
KINDS: dict[str, tuple[str, ...]] = {
    "rattled": ("sigma",),
    "strained": ("strain",),
    "compressed": ("nearest", "farthest"),
    "dimers": ("nearest", "farthest", "box"),
    "trimers": ("nearest", "farthest", "box"),
    "crystals": ("atoms",),
}
OF_PARENTS = ("rattled", "strained", "compressed")


@dataclass(frozen=True, kw_only=True)
class Making:
    """count structures of a kind. Those of the same seed and settings are the same, also where count is larger.

    sigma is the width of each displaced coordinate in Å; strain the largest component of the symmetric strain; nearest
    and farthest bound the shortest distance of atoms over the sum of their covalent radii; box is the edge in Å of the
    cube round a dimer or trimer; atoms the most in the cell of a crystal. elements are those of dimers, trimers and
    crystals, by default those of the structures that they are made for.
    """

    kind: str
    count: int
    seed: int = 0
    elements: tuple[int, ...] = ()
    sigma: float = 0.1
    strain: float = 0.05
    nearest: float = 0.5
    farthest: float = 1.0
    box: float = 20.0
    atoms: int = 12

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"{self.kind!r} cannot be made.{did_you_mean(self.kind, KINDS)} Known: {', '.join(KINDS)}"
            )
        above_zero = {name: getattr(self, name) for name in ("count", *KINDS[self.kind])}
        for name, value in above_zero.items():
            if not value > 0:
                raise ConfigError(f"{name} is {value}; give more than 0")
        if self.nearest > self.farthest:
            raise ConfigError(f"nearest {self.nearest} is above farthest {self.farthest}; exchange them")

    def options(self) -> dict[str, Any]:
        """What decides each structure, but not how many there are."""
        return {"kind": self.kind, "seed": self.seed, **{name: getattr(self, name) for name in KINDS[self.kind]}}
