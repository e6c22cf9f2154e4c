import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipdb.errors import ConfigError
from mlipdb.subsets.splits import format_fractions, make_split, parse_fractions, uniform

KEYS = [f"mp-{number}" for number in range(20_000)]


def test_the_place_of_a_key_never_changes():
    """Worked out with `printf '0:mp-149' | b2sum -l 64`, the first 53 of 64 bits; a change would move every split."""
    assert uniform("mp-149", seed=0) == (0xB701B26A71DB487E >> 11) / 2**53


def test_the_parts_have_the_sizes_that_were_asked_for():
    split = make_split(fractions=(80, 15, 5), seed=3)
    parts = [split.part(key) for key in KEYS]
    for part, percent in zip(("train", "validation", "test"), split.fractions, strict=True):
        assert abs(100 * parts.count(part) / len(KEYS) - percent) < 1  # three standard deviations are 0.85 for 80 %


def test_another_seed_is_another_split():
    one, other = make_split(seed=0), make_split(seed=1)
    held_out = {key for key in KEYS if one.part(key) != "train"}
    again = {key for key in KEYS if other.part(key) != "train"}
    assert len(held_out & again) / len(held_out) < 0.2


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_a_place_is_in_the_unit_interval(key, seed):
    assert 0 <= uniform(key, seed=seed) < 1


@given(st.text())
def test_a_part_without_a_fraction_stays_empty(key):
    assert make_split(fractions=(100, 0, 0)).part(key) == "train"
    assert make_split(fractions=(50, 0, 50)).part(key) != "validation"


@given(st.text())
def test_a_larger_train_part_keeps_what_it_had(key):
    if make_split(fractions=(80, 10, 10)).part(key) == "train":
        assert make_split(fractions=(90, 5, 5)).part(key) == "train"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (90, 5)}, "90/5: three are needed"),
        ({"fractions": (90, 5, 6)}, "sum to 100"),
        ({"fractions": (0.9, 0.05, 0.05)}, "sum to 100"),
        ({"fractions": (110, -5, -5)}, "percent of 0 to 100"),
        ({"fractions": (float("nan"), 50, 50)}, "percent of 0 to 100"),
        ({"fractions": (0, 50, 50)}, "nothing would be left to train on"),
        ({"by": "materials"}, "Did you mean 'material'"),
    ],
)
def test_a_split_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_split(**settings)


@pytest.mark.parametrize("text", ["90/5/5", "99.5/0.25/0.25", "100/0/0"])
def test_fractions_come_back_from_their_text(text):
    assert format_fractions(parse_fractions(text)) == text


def test_fractions_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="as in 90/5/5"):
        parse_fractions("most/some/rest")
