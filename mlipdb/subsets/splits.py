"""Which part of a split a structure is in: train, validation or test, from a hash, so that new data moves nothing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mlipdb.errors import ConfigError, did_you_mean

PARTS = ("train", "validation", "test")
SPLIT_BY = ("material", "frame")

Fractions = Sequence[int | float]


@dataclass(frozen=True)
class Split:
    """How to split. fractions are percent for train, validation and test; by is ``material`` or ``frame``.

    The part depends on nothing but the key, the seed and the fractions: not on the other members.
    """

    by: str = "material"
    fractions: tuple[float, float, float] = (90.0, 5.0, 5.0)
    seed: int = 0

    def part(self, key: str) -> str:
        """The part of a key: the name of a material, or of a frame."""
        place = 100 * uniform(key, seed=self.seed)
        if place < self.fractions[0]:
            return "train"
        return "validation" if place < self.fractions[0] + self.fractions[1] else "test"


def make_split(*, by: str = "material", fractions: Fractions = (90, 5, 5), seed: int = 0) -> Split:
    """A checked split. Raises ConfigError that names what does not fit."""
    if by not in SPLIT_BY:
        raise ConfigError(f"split by {by!r} is unknown; it is material or frame.{did_you_mean(by, SPLIT_BY)}")
    if len(fractions) != 3:
        raise ConfigError(f"fractions {format_fractions(fractions)}: three are needed, as in 90/5/5")
    if not all(0 <= fraction <= 100 for fraction in fractions) or abs(sum(fractions) - 100) > 1e-9:
        raise ConfigError(f"fractions {format_fractions(fractions)}: percent of 0 to 100 that sum to 100, as in 90/5/5")
    if not fractions[0]:
        raise ConfigError(f"fractions {format_fractions(fractions)}: nothing would be left to train on")
    train, validation, test = map(float, fractions)
    return Split(by, (train, validation, test), seed)


def parse_fractions(text: str) -> tuple[float, ...]:
    """The numbers of a text such as ``90/5/5``. Raises ConfigError."""
    try:
        return tuple(float(part) for part in text.split("/"))
    except ValueError:
        raise ConfigError(f"fractions {text!r}: give three numbers with slashes, as in 90/5/5") from None


def format_fractions(fractions: Fractions) -> str:
    """Fractions as text, such as ``90/5/5``."""
    return "/".join(f"{fraction:.15g}" for fraction in fractions)


def uniform(key: str, *, seed: int) -> float:
    """A number in [0, 1) that a key and a seed decide: 53 bits of the BLAKE2b of ``seed:key``."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
