import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipdb.errors import QueryError
from mlipdb.query.parse import And, Comparison, Not, Or, parse


def shape(node):
    """A node as nested tuples without places."""
    match node:
        case Comparison():
            return (node.property.name, node.operator, *(value.value for value in node.values))
        case Not():
            return ("NOT", shape(node.term))
        case And():
            return ("AND", *map(shape, node.terms))
        case Or():
            return ("OR", *map(shape, node.terms))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("AND",)),
        ("  \n ", ("AND",)),
        ("all", ("id", "IS KNOWN")),
        ("Y", ("elements", "HAS", "Y")),
        ('"Y"', ("elements", "HAS", "Y")),
        ("No", ("elements", "HAS", "No")),
        ("Li-Fe-O", ("_mlipdb_chemical_system", "=", "Fe-Li-O")),
        ("LiFePO4", ("chemical_formula_reduced", "=", "FeLiO4P")),
        ("Li2Fe2P2O8", ("chemical_formula_reduced", "=", "FeLiO4P")),
        ("Y2", ("chemical_formula_reduced", "=", "Y")),
        ("Pm-3m", ("space_group_it_number", "=", 221)),
        ('"P m -3 m"', ("space_group_it_number", "=", 221)),
        ("P6_3/mmc", ("space_group_it_number", "=", 194)),
        ("gap>=5", ("_mlipdb_band_gap", ">=", 5)),
        ("5<=gap", ("_mlipdb_band_gap", ">=", 5)),
        ("-1.5e-3 != gap", ("_mlipdb_band_gap", "!=", -1.5e-3)),
        ("nsites=.5", ("nsites", "=", 0.5)),
        ("big_one", ("_mlipdb_subset", "HAS", "big_one")),
        ("good", ("good", "=", True)),
        ("good = FALSE", ("good", "=", False)),
        ("good!=TRUE", ("good", "!=", True)),
        ('a="x\\"y\\\\z"', ("a", "=", 'x"y\\z')),
        ('a STARTS "x"', ("a", "STARTS", "x")),
        ('a ENDS WITH "AND Y"', ("a", "ENDS", "AND Y")),
        ('elements HAS ALL "Y", "O"', ("elements", "HAS ALL", "Y", "O")),
        ("elements LENGTH 3", ("elements", "LENGTH =", 3)),
        ("elements LENGTH >= 3", ("elements", "LENGTH >=", 3)),
        ("a IS UNKNOWN", ("a", "IS UNKNOWN")),
        (
            "NOT Y OR gap>1 AND O",
            ("OR", ("NOT", ("elements", "HAS", "Y")), ("AND", ("_mlipdb_band_gap", ">", 1), ("elements", "HAS", "O"))),
        ),
        ("not (Y or O)", ("NOT", ("OR", ("elements", "HAS", "Y"), ("elements", "HAS", "O")))),
        ("((Y))AND(NOT(O))", ("AND", ("elements", "HAS", "Y"), ("NOT", ("elements", "HAS", "O")))),
    ],
)
def test_a_filter_has_this_tree(text, expected):
    assert shape(parse(text, subsets=["big_one"], fields=["good"], flags=["good"])) == expected


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("nelements >= AND Y", "expected a value here", 13),
        ("nelements >=", "ends too early", 12),
        ("Y AND", "expected a comparison or a shorthand", 5),
        ("AND Y", "expected a comparison or a shorthand", 0),
        ("NOT NOT Y", "expected a comparison or a shorthand", 4),
        ("Y Pm-3m", "expected AND or OR before this", 2),
        ("nelements=3 Y", "expected AND or OR before this", 12),
        ("nelements=3 nsites=4", "expected AND or OR before this", 12),
        ("(Y OR O", "not closed", 0),
        ("Y)", "never opened", 1),
        ("()", "expected a comparison or a shorthand", 1),
        ("Y & O", "unexpected character '&'", 2),
        ("a = 'x'", "double quotes", 4),
        ('a = "x', "not closed", 4),
        ("221", "a number alone", 0),
        ("Y AND 3 < 4", "two constants", 6),
        ("a < b", "not with another field", 4),
        ("a.b = 3", "nested property names", 0),
        ("elements HAS < 3", "optional HAS <", 9),
        ('elements HAS ANY < 3, "x"', "optional operators inside a list", 17),
        ('a:b HAS "x":"y"', "correlated lists", 1),
        ("elements LENGTH 2.5", "takes a whole number", 16),
        ('elements LENGTH "3"', "expected a whole number", 16),
        ("a IS BIG", "expected KNOWN or UNKNOWN", 5),
        ("a STARTS WITH", "ends too early", 13),
        ("a : 3", "expected", 4),
        ("Y AND C2", "'C2' could mean the formula C2 .* or the space group C2 ", 6),
        ("Cm", r"'Cm' could mean the element Cm \(write elements HAS \"Cm\"\) or the space group Cm", 0),
        ("P1", r"the formula P1 \(write .*\"P\"\) or the space group P1 \(write space_group_it_number=1\)", 0),
        ("y", "Did you mean 'Y'", 0),
        ("fm-3M", "Did you mean 'Fm-3m'", 0),
        ("big_ones", "Did you mean 'big_one'", 0),
        ("good2", "Did you mean 'good'", 0),
        ("gap", "is a field; compare it", 0),
        ("LiFoO2", "is no element, formula", 0),
        ("Li-Li", "is no element, formula", 0),
        ("a\n= = 3", "expected a value", 4),
    ],
)
def test_a_bad_filter_is_shown_with_a_caret_under_the_place(text, message, caret):
    with pytest.raises(QueryError, match=message) as error:
        parse(text, subsets=["big_one"], fields=["good"], flags=["good"])
    _, shown, pointer = str(error.value).splitlines()
    assert shown == "  " + text.replace("\n", " ")
    assert pointer == "  " + " " * caret + "^"


def test_a_word_that_is_also_a_subset_is_refused():
    with pytest.raises(QueryError, match=r"'Y' could mean the element Y .* or the frozen subset 'Y'"):
        parse("Y", subsets=["Y"])


def test_deep_nesting_is_refused_before_the_parser_runs_out_of_stack():
    with pytest.raises(QueryError, match="nested"):
        parse("(" * 500 + "Y" + ")" * 500)


@given(st.text(max_size=30) | st.text(alphabet='YO(")=<>ANDHSgap.,:3 \\-', max_size=40))
def test_any_text_gives_a_tree_or_a_query_error(text):
    with contextlib.suppress(QueryError):
        parse(text)
