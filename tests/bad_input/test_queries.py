"""Filters that make no sense: the error says what and shows the place with a caret."""

import pytest

FILTERS = [
    ("a word that is nothing", "yttrum", ("yttrum",)),
    ("an element that is none", 'elements HAS "Qq"', ("'Qq' is no element",)),
    ("an unknown field", "gapp>=5", ("'gapp' is no field", "Did you mean 'gap'?")),
    ("an OPTIMADE field that is not stored", 'chemical_formula_anonymous="A"', ("mlipdb does not store",)),
    ("a list compared with =", 'elements="Y"', ("elements is a list; ask with HAS",)),
    ("a number compared with a string", 'nsites="three"', ("nsites is compared with a number",)),
    ("a string compared with a number", "_mlipdb_source=3", ("a string in double quotes",)),
    ("a field compared with a field", "nsites=nelements", ("not with another field",)),
    ("a value that is missing", "gap>=", ("ends too early",)),
    ("a comparison that is missing", "nsites AND Y", ("nsites",)),
    ("an AND without a second term", "Y AND", ("Y AND",)),
    ("a parenthesis that is not closed", "(Y AND O", ("(Y AND O",)),
    ("a parenthesis too many", "Y) AND O", ("Y) AND O",)),
    ("a quote that is not closed", '_mlipdb_source="mp', ('"mp',)),
    ("a space group that is none", 'space_group_symbol_hermann_mauguin="Pm-3q"', ("'Pm-3q' is no space-group symbol",)),
    ("HAS on a number", 'nsites HAS "3"', ("nsites is of type integer",)),
    ("LENGTH of a number", "nsites LENGTH 3", ("nsites",)),
    ("LENGTH with a fraction", "elements LENGTH 2.5", ("whole number",)),
    ("IS without KNOWN", "gap IS NULL", ("KNOWN or UNKNOWN",)),
    ("a subset that is not frozen", '_mlipdb_subset HAS "nothing"', ("'nothing' is no frozen subset",)),
    ("a NUL character", "Y\0", ("NUL",)),
    ("a hundred parentheses", "(" * 100 + "Y" + ")" * 100, ("more than 50 nested parentheses",)),
    ("a chemical system with an unknown element", "Li-Qq", ("Li-Qq",)),
    ("SQL", "1=1; DROP TABLE structure", ("1=1",)),
]


@pytest.mark.parametrize(("text", "parts"), [case[1:] for case in FILTERS], ids=[case[0] for case in FILTERS])
def test_a_filter_that_makes_no_sense_shows_the_place(filled, refused, rows, text, parts):
    before = rows(filled)
    shown = refused("--db", filled, "query", text, parts=parts, lines=3)
    assert shown == ""
    assert rows(filled) == before


@pytest.mark.parametrize("words", [("subset", "freeze", "new"), ("stats",)], ids=["subset freeze", "stats"])
def test_every_command_that_takes_a_filter_refuses_it_alike(filled, refused, rows, words):
    before = rows(filled)
    refused("--db", filled, *words, "nsites=nelements", parts=("not with another field",), lines=3)
    assert rows(filled) == before
