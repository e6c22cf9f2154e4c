"""Which part of a split a structure is in: train, validation or test, from a hash, so that new data moves nothing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.structures import ATOMIC_NUMBERS

PARTS = ("train", "validation", "test")
SPLIT_BY = ("material", "frame", "system", "element", "fold", "tag", "file")
EXAMPLES = "material, frame, system, element:Y, fold:1/5, tag:split, file"
PART_NAMES = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "test": "test"}
PART_NAMES |= {"validation": "validation", "testing": "test"}

Fractions = Sequence[int | float]


@dataclass(frozen=True)
class Split:
    """How to split. fractions are percent for train, validation and test.

    by is what stays together: ``material``, ``frame`` or ``system`` (chemical system); or what decides: ``element:Y``
    (structures that hold yttrium are the test part), ``fold:2/5`` (the second fifth of the materials is the test
    part), ``tag:split`` (the word that the source gives), ``file:…`` (a file of ids, in named). Where the test part is
    decided, the others are split by material in the proportion of their fractions. The part of a structure depends on
    nothing but its key, the seed and the fractions: not on the other members.
    """

    by: str = "material"
    fractions: tuple[float, float, float] = (90.0, 5.0, 5.0)
    seed: int = 0
    named: Mapping[str | int, str] = field(default_factory=dict, repr=False)

    @property
    def kind(self) -> str:
        """The first word of by."""
        return self.by.partition(":")[0]

    @property
    def argument(self) -> str:
        """What follows the first word of by: elements, a fold, the name of a tag or file."""
        return self.by.partition(":")[2]

    @property
    def given(self) -> bool:
        """True when the source or a file says the part of each structure."""
        return self.kind in ("tag", "file")

    def part(self, key: str) -> str:
        """The part of a key: the name of a material, of a chemical system, or of a frame."""
        if self.kind == "fold":
            fold, folds = self.fold
            return "test" if int(folds * uniform(key, seed=self.seed)) == fold - 1 else self.rest(key)
        place = 100 * uniform(key, seed=self.seed)
        if place < self.fractions[0]:
            return "train"
        return "validation" if place < self.fractions[0] + self.fractions[1] else "test"

    def rest(self, key: str) -> str:
        """Train or validation, for a key that is not in the test part."""
        train, validation, _ = self.fractions
        place = uniform(f"validation:{key}", seed=self.seed) * (train + validation)
        return "train" if place < train else "validation"

    @property
    def fold(self) -> tuple[int, int]:
        """The fold that is the test part, from 1, and how many there are."""
        fold, _, folds = self.argument.partition("/")
        return int(fold), int(folds)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers of the elements that are left out of training."""
        return tuple(ATOMIC_NUMBERS[symbol] for symbol in self.argument.split(","))


def make_split(
    *,
    by: str = "material",
    fractions: Fractions = (90, 5, 5),
    seed: int = 0,
    named: Mapping[str | int, str] | None = None,
) -> Split:
    """A checked split. Raises ConfigError that names what does not fit."""
    if len(fractions) != 3:
        raise ConfigError(f"fractions {format_fractions(fractions)}: three are needed, as in 90/5/5")
    if not all(0 <= fraction <= 100 for fraction in fractions) or abs(sum(fractions) - 100) > 1e-9:
        raise ConfigError(f"fractions {format_fractions(fractions)}: percent of 0 to 100 that sum to 100, as in 90/5/5")
    if not fractions[0]:
        raise ConfigError(f"fractions {format_fractions(fractions)}: nothing would be left to train on")
    train, validation, test = map(float, fractions)
    split = Split(by, (train, validation, test), seed, dict(named or {}))
    _check_by(split)
    return split


def _check_by(split: Split) -> None:
    kind, argument = split.kind, split.argument
    if kind not in SPLIT_BY:
        raise ConfigError(f"split by {split.by!r} is unknown; it is {EXAMPLES}.{did_you_mean(kind, SPLIT_BY)}")
    if kind in ("material", "frame", "system"):
        if argument:
            raise ConfigError(f"split by {split.by!r}: {kind} takes nothing more")
    elif kind == "element":
        wrong = [symbol for symbol in argument.split(",") if symbol not in ATOMIC_NUMBERS]
        if wrong:
            raise ConfigError(f"split by {split.by!r}: {wrong[0]!r} is not an element; as in element:Y or element:Y,Zr")
    elif kind == "fold":
        words = argument.split("/")
        if len(words) != 2 or not all(word.isdecimal() for word in words) or not 1 <= int(words[0]) <= int(words[1]):
            raise ConfigError(f"split by {split.by!r}: give the fold and how many there are, as in fold:1/5")
        if int(words[1]) < 2:
            raise ConfigError(f"split by {split.by!r}: one fold would leave nothing to train on; two are needed")
    elif not argument:
        need = {"tag": "the name of a tag, as in tag:split", "file": "a file of ids (--split-file)"}[kind]
        raise ConfigError(f"split by {split.by!r} needs {need}")


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
