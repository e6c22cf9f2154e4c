"""Formulas and chemical systems as words, in the one spelling that the catalog stores."""

import re

from mlipdb.structures import ATOMIC_NUMBERS, chemical_system, reduced_formula

_PART = re.compile(r"([A-Z][a-z]?)([1-9][0-9]{0,5})?")
_FORMULA = re.compile(rf"(?:{_PART.pattern})+")


def parse_formula(text: str) -> dict[int, int] | None:
    """Atomic number to count for a formula of whole numbers in any order; None when the text is none."""
    if not _FORMULA.fullmatch(text):
        return None
    composition: dict[int, int] = {}
    for symbol, count in _PART.findall(text):
        if symbol not in ATOMIC_NUMBERS:
            return None
        number = ATOMIC_NUMBERS[symbol]
        composition[number] = composition.get(number, 0) + int(count or 1)
    return composition


def stored_formula(text: str) -> str | None:
    """The reduced formula as stored, such as ``FeLiO4P`` for ``LiFePO4``; None when the text is no formula."""
    composition = parse_formula(text)
    return None if composition is None else reduced_formula(composition)


def stored_system(text: str) -> str | None:
    """The chemical system as stored, such as ``Fe-Li-O`` for ``Li-Fe-O``; None when the text is none."""
    symbols = text.split("-")
    if not all(symbol in ATOMIC_NUMBERS for symbol in symbols) or len(set(symbols)) != len(symbols):
        return None
    return chemical_system({ATOMIC_NUMBERS[symbol]: 1 for symbol in symbols})
