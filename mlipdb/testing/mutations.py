"""Damage to bytes and texts for fuzzing: small steps that keep most of a valid file, so that parsers are reached."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = ("flip", "set", "cut", "repeat", "drop", "insert", "number", "swap")
NUMBERS = (
    *(b"0", b"-1", b"nan", b"inf", b"-inf", b"1e400", b"1e-400", b"-0.0", b"", b"null", b"true", b'"x"', b"[]", b"{}"),
    *(b"2147483648", b"-9223372036854775809", b"99999999999999999999999999", b"1" * 400, b"119", b"255", b"65536"),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SPAN = 64


@dataclass(frozen=True)
class Mutation:
    """One step of damage. place is where, as a fraction of the length; value picks what, from 0 to 2**16 - 1."""

    kind: str
    place: float
    value: int

    def apply(self, data: bytes) -> bytes:
        """The bytes with this damage; empty bytes stay as they are."""
        if not data:
            return data
        at = min(int(self.place * len(data)), len(data) - 1)
        span = 1 + self.value % _SPAN
        if self.kind == "flip":
            return data[:at] + bytes([data[at] ^ (1 << self.value % 8)]) + data[at + 1 :]
        if self.kind == "set":
            return data[:at] + bytes([self.value % 256]) + data[at + 1 :]
        if self.kind == "cut":
            return data[:at]
        if self.kind == "repeat":
            return data[: at + span] + data[at : at + span] + data[at + span :]
        if self.kind == "drop":
            return data[:at] + data[at + span :]
        if self.kind == "insert":
            return data[:at] + bytes((self.value * k) % 256 for k in range(1, 1 + span % 8)) + data[at:]
        return self._number(data, at) if self.kind == "number" else _swapped(data, at, span)

    def _number(self, data: bytes, at: int) -> bytes:
        """The next number in the text replaced by one of the troublesome ones."""
        found = _NUMBER.search(data, at)
        if found is None:
            return data
        return data[: found.start()] + NUMBERS[self.value % len(NUMBERS)] + data[found.end() :]


def _swapped(data: bytes, at: int, span: int) -> bytes:
    first, second = data[at : at + span], data[at + span : at + 2 * span]
    return data[:at] + second + first + data[at + 2 * span :]


def mutated(data: bytes, mutations: Sequence[Mutation]) -> bytes:
    """The bytes with every damage in turn."""
    for mutation in mutations:
        data = mutation.apply(data)
    return data


def random_mutations(source: random.Random, *, most: int = 4) -> list[Mutation]:
    """One to most steps of damage, as the source of randomness picks them."""
    count = source.randint(1, most)
    return [Mutation(source.choice(KINDS), source.random(), source.randrange(1 << 16)) for _ in range(count)]
