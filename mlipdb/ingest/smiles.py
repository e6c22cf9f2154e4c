"""The two facts that a SMILES string tells without its chemistry: total formal charge, and atoms by their numbers."""

import re

from mlipdb.structures import ATOMIC_NUMBERS

# [isotope symbol chirality hydrogens charge :number]; a sign stands nowhere else inside the brackets.
_ATOM = re.compile(
    r"\[(?P<isotope>\d*)(?P<symbol>[A-Za-z][a-z]?)(?P<middle>[^\[\]+:-]*)(?P<charge>\++\d*|-+\d*)?(?::(?P<number>\d+))?\]"
)
_BARE = re.compile(r"Br|Cl|[BCNOPSFIbcnops]")  # atoms without brackets have no charge and no number


def formal_charge(smiles: str) -> int:
    """The sum of the charges in brackets, such as -1 for ``[O-:1]`` and +2 for ``[Ca+2]`` or ``[Ca++]``."""
    return sum(_charge(match["charge"] or "") for match in _ATOM.finditer(smiles))


def numbered_elements(smiles: str) -> list[int] | None:
    """Atomic numbers in the order of the atoms' numbers; None unless every atom is written out with one."""
    found: dict[int, int] = {}
    atoms = list(_ATOM.finditer(smiles))
    for match in atoms:
        # What follows a symbol of one letter may look like its second: [nH], [cH].
        symbol = match["symbol"] if match["symbol"].capitalize() in ATOMIC_NUMBERS else match["symbol"][0]
        element = ATOMIC_NUMBERS.get(symbol.capitalize())
        if match["number"] is None or element is None:
            return None
        found[int(match["number"])] = element
    if len(found) != len(atoms) or _BARE.search(_ATOM.sub("", smiles)):
        return None
    return [found[number] for number in sorted(found)]


def _charge(text: str) -> int:
    if not text:
        return 0
    signs = text.rstrip("0123456789")
    digits = text[len(signs) :]
    size = int(digits) if digits else len(signs)
    return size if signs[0] == "+" else -size
