from hypothesis import given
from hypothesis import strategies as st

from mlipdb.stats.histogram import by_edges, merged, of_sizes

FINE = st.dictionaries(st.integers(-(10**9), 10**9), st.integers(1, 1000), min_size=1, max_size=30)


@given(FINE)
def test_merging_loses_no_value_and_keeps_the_order(fine):
    histogram = merged(fine, 0.05, unit="eV")
    assert histogram.total == sum(fine.values())
    assert len(histogram.bins) <= 18
    for before, after in zip(histogram.bins, histogram.bins[1:], strict=False):
        assert before.high == after.low


@given(FINE)
def test_every_bin_counts_the_fine_bins_within_its_limits(fine):
    for bin in merged(fine, 1.0, unit="eV").bins:
        inside = (
            count
            for number, count in fine.items()
            if (bin.low is None or number >= bin.low) and (bin.high is None or number < bin.high)
        )
        assert bin.count == sum(inside)


def test_an_outlier_does_not_hide_the_rest():
    histogram = merged({0: 1000, 1: 1000, 2: 1000, 10**9: 1}, 1.0, unit="eV")
    assert [(bin.name, bin.count) for bin in histogram.bins] == [
        ("0 to 1", 1000),
        ("1 to 2", 1000),
        ("2 to 3", 1000),
        ("3 and more", 1),
    ]


def test_limits_of_bins_are_round_numbers():
    names = [bin.name for bin in merged(dict.fromkeys(range(-7, 60), 1), 0.05, unit="eV").bins]
    assert names[0] == "-0.5 to -0.25"
    assert names[-1] == "2.75 to 3"


def test_sizes_are_named_as_whole_numbers():
    assert [(bin.name, bin.count) for bin in of_sizes({1: 1, 4: 2, 5: 3, 8: 4, 300: 5}).bins] == [
        ("1", 1), ("2", 0), ("3 to 4", 2), ("5 to 8", 7), ("9 to 16", 0), ("17 to 32", 0), ("33 to 64", 0),
        ("65 to 128", 0), ("129 to 256", 0), ("257 and more", 5),
    ]  # fmt: skip


def test_nothing_has_no_bins():
    assert merged({}, 1.0, unit="eV").bins == ()
    assert by_edges({}, (1, 2), unit="eV").bins == ()
