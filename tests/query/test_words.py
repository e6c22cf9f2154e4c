import pytest

from mlipdb.errors import QueryError
from mlipdb.query import check_subset_name, fields


@pytest.mark.parametrize("name", ["yttrium", "Y-gap5", "mptrj_v1.2", "a", "Oxides2024", "filter-Y-0123456789", "P21-c"])
def test_a_name_that_means_nothing_else_is_taken(name):
    check_subset_name(name, fields=fields({}))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Y", "the element Y"),
        ("YO", "the formula YO"),
        ("Li-O", "the chemical system Li-O"),
        ("Pm-3m", "the space group Pm-3m"),
        ("all", "everything"),
        ("ALL", "a word of the filter language"),
        ("and", "a word of the filter language"),
        ("true", "a word of the filter language"),
        ("gap", "a field"),
        ("nsites", "a field"),
        ("2024", "it takes a letter"),
        ("", "it takes a letter"),
        ("my set", "it takes a letter"),
        ('a"b', "it takes a letter"),
        ("a" * 201, "it takes a letter"),
        ("µ", "it takes a letter"),
    ],
)
def test_a_name_that_would_make_a_filter_ambiguous_is_refused(name, why):
    with pytest.raises(QueryError, match=why):
        check_subset_name(name, fields=fields({}))
