"""The Hermann-Mauguin symbols of the 230 space groups, from moyopy's tables."""

from functools import cache

from moyopy import SpaceGroupType

# Symbols of before the 1992 edition of the International Tables, still the ones that many papers print.
OLD_SYMBOLS = {"Abm2": 39, "Aba2": 41, "Cmca": 64, "Cmma": 67, "Ccca": 68}


@cache
def short_symbols() -> dict[int, str]:
    """Space-group number to short symbol without spaces, such as ``P6_3/mmc`` for 194."""
    return {number: str(SpaceGroupType(number).hm_short).replace(" ", "") for number in range(1, 231)}


@cache
def _numbers() -> dict[str, int]:
    symbols = {symbol: number for number, symbol in short_symbols().items()}
    plain = {symbol.replace("_", ""): number for symbol, number in symbols.items()}
    return plain | symbols | OLD_SYMBOLS


def space_group_number(symbol: str) -> int | None:
    """The number of a short symbol, with or without its spaces and underscores; None when it is no such symbol."""
    return _numbers().get(symbol.replace(" ", ""))
