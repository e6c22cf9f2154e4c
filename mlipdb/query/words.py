"""What a bare word in a filter means: an element, a formula, a chemical system, a space group or a frozen subset."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from mlipdb.errors import QueryError, did_you_mean
from mlipdb.query.formulas import stored_formula, stored_system
from mlipdb.query.spacegroups import short_symbols, space_group_number
from mlipdb.structures import ATOMIC_NUMBERS

EVERYTHING = "all"
ALIASES = {
    "gap": "_mlipdb_band_gap",
    "tags": "_mlipdb_tags",
    "source": "_mlipdb_source",
    "material": "_mlipdb_material",
    "method": "_mlipdb_method",
    "teacher": "_mlipdb_teacher",
}
KEYWORDS = {
    *("AND", "OR", "NOT", "IS", "KNOWN", "UNKNOWN", "HAS", "ALL", "ANY", "ONLY"),
    *("CONTAINS", "STARTS", "ENDS", "WITH", "LENGTH", "TRUE", "FALSE"),
}
_SUBSET_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,199}")


@dataclass(frozen=True)
class Meaning:
    """One thing that a word can mean, in words and as an OPTIMADE comparison."""

    what: str
    filter: str


def meanings(word: str, *, subsets: Collection[str]) -> list[Meaning]:
    """Everything that a bare word can mean; more than one is for the caller to refuse."""
    found = _fixed_meanings(word)
    if word in subsets:
        found.append(Meaning(f"the frozen subset {word!r}", f'_mlipdb_subset HAS "{word}"'))
    return found


def _fixed_meanings(word: str) -> list[Meaning]:
    """What a word means in every database. A symbol alone is the element, not a formula of one atom."""
    found: list[Meaning] = []
    if word == EVERYTHING:
        found.append(Meaning("everything", "id IS KNOWN"))
    if word in ATOMIC_NUMBERS:
        found.append(Meaning(f"the element {word}", f'elements HAS "{word}"'))
    elif formula := stored_formula(word):
        found.append(Meaning(f"the formula {word}", f'chemical_formula_reduced="{formula}"'))
    if "-" in word and (system := stored_system(word)):
        found.append(Meaning(f"the chemical system {system}", f'_mlipdb_chemical_system="{system}"'))
    if number := space_group_number(word):
        found.append(Meaning(f"the space group {word}", f"space_group_it_number={number}"))
    return found


def suggestion(word: str, *, known: Collection[str]) -> str:
    """A hint for a word that means nothing, or nothing: one that differs in case only, else the closest."""
    candidates = [*known, *ATOMIC_NUMBERS, *short_symbols().values(), *ALIASES, EVERYTHING]
    same = [candidate for candidate in candidates if candidate.casefold() == word.casefold()]
    return f" Did you mean {same[0]!r}?" if same else did_you_mean(word, candidates)


def check_subset_name(name: str, *, fields: Collection[str]) -> None:
    """Raise QueryError unless a name can stand in a filter and mean nothing else there; fields are the field names."""
    if not _SUBSET_NAME.fullmatch(name):
        raise QueryError(
            f"subset name {name!r} cannot be used: it takes a letter, then letters, digits, '_', '.', '+' and '-' "
            "(200 at most), so that it can stand in a filter"
        )
    taken = [meaning.what for meaning in _fixed_meanings(name)]
    if name.upper() in KEYWORDS:
        taken.append("a word of the filter language")
    if name in fields or name in ALIASES:
        taken.append("a field")
    if taken:
        raise QueryError(f"subset name {name!r} cannot be used: in a filter it means {taken[0]}; choose another name")
