"""phonopy's text files FORCE_SETS and FORCE_CONSTANTS as arrays, with errors that say what is missing."""

from typing import Any

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import IngestError


def parse_force_sets(text: bytes, where: str, *, atoms: int) -> dict[str, Any]:
    """FORCE_SETS as a phonopy dataset: one displaced atom a set (type 1), or all of them (type 2).

    Raises IngestError where the file is for another number of atoms or ends early.
    """
    numbers = _numbers(text, where)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines[0].split()) == 6:
        if len(numbers) % (6 * atoms):
            raise IngestError(
                f"{where}: {len(numbers)} numbers are no whole sets of 6 for {atoms} atoms; the file was cut or is "
                "for another supercell: fetch or make it again"
            )
        both = numbers.reshape(-1, atoms, 6)
        return {"natom": atoms, "displacements": both[:, :, :3].copy(), "forces": both[:, :, 3:].copy()}
    given, count = (int(number) for number in numbers[:2]) if len(numbers) > 1 else (0, 0)
    if given != atoms:
        raise IngestError(
            f"{where}: forces of {given} atoms, the supercell has {atoms}; give the files of one run again"
        )
    size = 4 + 3 * atoms
    if len(numbers) != 2 + count * size:
        raise IngestError(
            f"{where}: {len(numbers)} numbers where {count} displacements of {atoms} atoms make {2 + count * size}; "
            "the file was cut: fetch or make it again"
        )
    sets = numbers[2:].reshape(count, size)
    first = [
        {"number": int(one[0]) - 1, "displacement": one[1:4].copy(), "forces": one[4:].reshape(atoms, 3).copy()}
        for one in sets
    ]
    return {"natom": atoms, "first_atoms": first}


def parse_force_constants(text: bytes, where: str) -> Float64[np.ndarray, "first atoms 3 3"]:
    """FORCE_CONSTANTS: the sizes, then for each pair its numbers and a 3 × 3 block."""
    numbers = _numbers(text, where)
    sizes = [int(word) for word in text.split(b"\n", 1)[0].split()]
    first, second = (sizes * 2)[:2] if sizes else (0, 0)
    if not sizes or len(numbers) != len(sizes) + 11 * first * second:
        raise IngestError(
            f"{where}: {len(numbers)} numbers where {first} × {second} blocks make {len(sizes) + 11 * first * second}; "
            "the file was cut: fetch or make it again"
        )
    blocks = numbers[len(sizes) :].reshape(first, second, 11)
    return blocks[:, :, 2:].reshape(first, second, 3, 3).copy()


def _numbers(text: bytes, where: str) -> Float64[np.ndarray, " numbers"]:
    words = text.split()
    if not words:
        raise IngestError(f"{where}: the file is empty; fetch or make it again")
    try:
        return np.array(words, dtype=np.float64)
    except ValueError as error:
        raise IngestError(f"{where}: not a file of numbers ({error}); fetch or make it again") from error
