import pytest

from mlipdb.errors import QueryError
from mlipdb.query.compile import MANY


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", lambda s: True),
        ("Y", lambda s: "Y" in s.counts),
        ("NOT Y", lambda s: "Y" not in s.counts),
        ("LiO2", lambda s: set(s.counts) == {"Li", "O"} and s.counts["O"] == 2 * s.counts["Li"]),
        ('chemical_formula_reduced="O2Y2"', lambda s: set(s.counts) == {"Y", "O"} and s.counts["O"] == s.counts["Y"]),
        ('_mlipdb_chemical_system="Y-O-Li"', lambda s: set(s.counts) == {"Li", "O", "Y"}),
        ('elements HAS ONLY "O","Y"', lambda s: set(s.counts) <= {"O", "Y"}),
        ('space_group_symbol_hermann_mauguin="P 6_3/m m c"', lambda s: s.group == 194),
        ('space_group_symbol_hermann_mauguin != "Pm-3m"', lambda s: s.group not in (None, 221)),
        ('space_group_symbol_hermann_mauguin STARTS WITH "P"', lambda s: s.group in (1, 62, 194, 221)),
        ("nperiodic_dimensions=1", lambda s: s.pbc == 4),
        ('_mlipdb_source="100%"', lambda s: s.source == "100%"),
        ('_mlipdb_source CONTAINS "%"', lambda s: s.source == "100%"),
        ('_mlipdb_source CONTAINS "_"', lambda s: s.source == "own_set"),
        ('_mlipdb_external_id STARTS WITH "frame"', lambda s: s.external_id.startswith("frame")),
        ('_mlipdb_external_id ENDS WITH "\\\\7"', lambda s: s.external_id.endswith("\\7")),
        ("nsites=2.5", lambda s: False),
        ("nsites<99999999999999999999", lambda s: True),
        ("NOT nsites>1e999", lambda s: True),
        ("first AND NOT second_half", lambda s: "first" in s.subsets and "second_half" not in s.subsets),
        ('_mlipdb_teacher LENGTH 0', lambda s: not any(x.kind == "teacher" and x.status == "done" for x in s.labels)),
    ],
)  # fmt: skip
def test_a_filter_matches_these_structures(catalog, text, condition):
    assert catalog.ids(text) == catalog.matching(condition)


def test_an_unknown_value_matches_neither_a_comparison_nor_its_opposite(catalog):
    """OPTIMADE: filters that use any comparison of an unknown value must not match."""
    unknown = set(catalog.ids("gap IS UNKNOWN"))
    assert unknown
    assert not unknown & set(catalog.ids("gap>=5"))
    assert not unknown & set(catalog.ids("NOT gap>=5"))
    assert unknown == set(catalog.ids("NOT gap IS KNOWN"))
    assert set(catalog.ids("gap>=5 OR NOT gap>=5")) | unknown == set(catalog.ids("all"))


def test_a_gap_is_one_of_any_dft_label_and_never_of_a_teacher(catalog):
    both = catalog.ids("gap<1 AND gap>5")
    assert both == catalog.matching(
        lambda s: {0.0, 7.25} <= {x.gap for x in s.labels if x.kind == "dft"}
    )  # the gaps of the catalog are 0, 1.5, 5 and 7.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nelments=3", "'nelments' is no field. Did you mean 'nelements'"),
        ("band_gap>3", "Did you mean '_mlipdb_band_gap'"),
        ("lattice_vectors IS KNOWN", "OPTIMADE field that mlipdb does not store"),
        ('nelements="3"', "compared with a number"),
        ("nelements=TRUE", "compared with a number"),
        ("_mlipdb_source=3", "compared with a string"),
        ("_mlipdb_has_forces=1", "compared with TRUE or FALSE"),
        ('elements="Y"', "is a list; ask with HAS"),
        ('elements HAS "Yy"', "'Yy' is no element. Did you mean 'Y'"),
        ("elements HAS 39", "compared with a string"),
        ('nsites CONTAINS "3"', "of type integer, which takes"),
        ('_mlipdb_source < "x"', "of type string, which takes"),
        ("_mlipdb_has_forces > FALSE", "of type boolean, which takes"),
        ('_mlipdb_source HAS "x"', "of type string, which takes"),
        ('_mlipdb_subset HAS "frist"', "'frist' is no frozen subset. Did you mean 'first'"),
        ('chemical_formula_reduced="Fo2"', "'Fo2' is no formula"),
        ('space_group_symbol_hermann_mauguin="Pm3m"', "no space-group symbol. Did you mean 'Pm-3m'"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_with_its_reason(catalog, text, message):
    with pytest.raises(QueryError, match=message):
        catalog.ids(text)


@pytest.mark.parametrize("filter", ["gap>=1.5", "NOT gap>=1.5", "_mlipdb_volume>20", 'tags HAS "split=train"', "NOT Y"])
def test_many_terms_mean_what_few_mean(catalog, filter):
    assert catalog.ids(" AND ".join([filter] * (MANY + 1))) == catalog.ids(filter)
    assert catalog.ids(f"NOT (nsites<0 OR {' OR '.join([filter] * MANY)})") == catalog.ids(f"NOT ({filter})")
