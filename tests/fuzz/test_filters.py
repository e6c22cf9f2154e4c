"""The parser of filters is given garbage: it says QueryError or gives a statement, and never anything else."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mlipdb
from mlipdb.errors import QueryError
from mlipdb.labels import Method
from mlipdb.query import fields
from mlipdb.query.rewrite import MAX_TERMS
from mlipdb.testing.fuzzing import ask
from mlipdb.testing.mutations import KINDS, Mutation, mutated
from mlipdb.testing.samples import sample_records

SUBSETS = {"Yttrium-1": 1, "train_set": 2}
FILTERS = [
    'elements HAS "Y" AND nelements=3 AND space_group_it_number=221 AND _mlipdb_band_gap >= 5',
    "Y AND NOT (Pm-3m OR gap>=5.5e-1) AND Li-Fe-O",
    'elements HAS ALL "Li","O" OR elements LENGTH >= 4',
    'chemical_formula_reduced CONTAINS "Fe" AND "O2Ti" = chemical_formula_reduced',
    '_mlipdb_source="a\\"b" OR _mlipdb_material STARTS WITH "mp-"',
    "Yttrium-1 OR train_set AND _mlipdb_has_forces=TRUE AND _mlipdb_charge IS UNKNOWN",
    "-1.5 < _mlipdb_energy_per_atom AND Y2O3",
]
WORDS = [
    *("AND", "OR", "NOT", "(", ")", "=", "!=", "<", ">=", "HAS", "ALL", "ANY", "ONLY", "LENGTH", "IS", "KNOWN"),
    *("UNKNOWN", "CONTAINS", "STARTS", "WITH", "ENDS", "TRUE", "FALSE", ",", ":", '"', "\\", "'", ".", "-", "all"),
    *("Y", "Li-O", "Pm-3m", "P6_3/mmc", "Y2O3", "gap", "gap>=5", "1e999", "-0", "99999999999999999999", '"Y"'),
    *("Yttrium-1", "tags", "source", *fields(SUBSETS)),
]
DAMAGE = st.lists(
    st.builds(Mutation, st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 2**16 - 1)), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    db = mlipdb.create(tmp_path_factory.mktemp("fuzz") / "db")
    source = db.open_source("sample", reader="none", uri="x")
    db.append(sample_records(6), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    with db.session() as session:
        yield session
    db.close()


def assert_answered_or_refused(session, text):
    found = ask(session, text, subsets=SUBSETS)
    assert isinstance(found, list | QueryError)
    if isinstance(found, QueryError):
        assert "Traceback" not in str(found)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
@example("\ud800")
@example("\0")
@example("(" * 500)
@example("NOT " * 500 + "Y")
@example("Y AND " * 500 + "Y")
@example("(" * 5000)
@example("NOT " * 5000 + "Y")
@example("gap>=" + "9" * 5000)
def test_any_text_is_a_filter_or_a_query_error(session, text):
    assert_answered_or_refused(session, text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_words_of_the_language_are_a_filter_or_a_query_error(session, words):
    assert_answered_or_refused(session, " ".join(words))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FILTERS), DAMAGE)
def test_a_damaged_filter_is_a_filter_or_a_query_error(session, text, damage):
    assert_answered_or_refused(session, mutated(text.encode(), damage).decode(errors="replace"))


@pytest.mark.parametrize(
    "text",
    [
        " AND NOT ".join(["gap>=5"] * MAX_TERMS),
        "NOT (" + " OR ".join(["gap>=5"] * MAX_TERMS) + ")",
        " AND ".join(['_mlipdb_material ENDS "a"'] * MAX_TERMS),
        "tags HAS ANY " + ",".join(f'"a={number}"' for number in range(MAX_TERMS)),
        "tags HAS ONLY " + ",".join(f'"a={number}"' for number in range(MAX_TERMS)),
    ],
    ids=["AND NOT", "NOT OR", "ENDS", "HAS ANY", "HAS ONLY"],
)
def test_a_filter_of_as_many_terms_as_may_be_is_answered(session, text):
    assert isinstance(ask(session, text, subsets={}), list)


@pytest.mark.parametrize(
    "text", [" OR ".join(["Y"] * (MAX_TERMS + 1)), " AND NOT ".join(["Y"] * 1100), "tags HAS ANY " + '"a=b",' * 40_000]
)
def test_a_filter_of_more_terms_is_refused_at_once_with_the_way_out(session, text):
    error = ask(session, text, subsets={})
    assert isinstance(error, QueryError)
    assert f"{MAX_TERMS} are the most; freeze parts of it as subsets" in str(error)
