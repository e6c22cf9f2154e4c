import pytest

from mlipdb.query.spacegroups import short_symbols, space_group_number


def test_every_group_has_a_symbol_of_its_own():
    symbols = short_symbols()
    assert list(symbols) == list(range(1, 231))
    assert len(set(symbols.values())) == 230
    assert len({symbol.replace("_", "") for symbol in symbols.values()}) == 230


@pytest.mark.parametrize(
    ("symbol", "number"),
    [
        ("P1", 1),
        ("P-1", 2),
        ("P2_1/c", 14),
        ("P21/c", 14),
        ("Cmce", 64),
        ("Cmca", 64),
        ("P6_3/mmc", 194),
        ("P 6_3/m m c", 194),
        ("Pm-3m", 221),
        ("Fm-3m", 225),
        ("Ia-3d", 230),
        ("pm-3m", None),
        ("P_m-3m", None),
        ("", None),
    ],
)
def test_a_symbol_is_found_in_its_usual_spellings(symbol, number):
    """Numbers from the International Tables."""
    assert space_group_number(symbol) == number
