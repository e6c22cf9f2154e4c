"""Which Hessian rows of a structure are computed, and in which order."""

import hashlib
from typing import Literal

import numpy as np
from jaxtyping import Int32

from mlipdb.structures import Structure

RowCount = int | Literal["all"]


def row_order(structure: Structure) -> Int32[np.ndarray, " rows"]:
    """Every row number 0 … 3N-1 in a random order that depends on nothing but the structure's content.

    Row r is 3·atom + axis. The keys are SHAKE-128 of the content hash rather than numpy's generator, whose stream may
    change between versions: the order must be the same on every machine and in every year.
    """
    count = 3 * len(structure)
    keys = np.frombuffer(hashlib.shake_128(structure.content_hash).digest(8 * count), dtype="<u8")
    return np.argsort(keys, kind="stable").astype(np.int32)


def wanted_rows(structure: Structure, *, have: int, want: int) -> Int32[np.ndarray, " rows"]:
    """The rows still to be computed when `have` of `want` are there; more than 3N wanted means all of them.

    Rows are always taken from the front of the order, so four rows are the first four of eight.
    """
    return row_order(structure)[have:want]


def row_target(natoms: int, wanted: RowCount) -> int:
    """How many rows a structure of that many atoms shall have."""
    return 3 * natoms if wanted == "all" else min(wanted, 3 * natoms)
