"""Random filters give what a Python loop over the same data gives, unknown values included."""

import operator
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipdb.query.spacegroups import short_symbols
from mlipdb.structures import chemical_system, reduced_formula

# A condition gives True, False or None (unknown) for a structure; a filter is its text and its condition.
Condition = Callable[[Any], bool | None]
Filter = tuple[str, Condition]

OPERATORS = {
    **{"=": operator.eq, "!=": operator.ne, "<": operator.lt},
    **{"<=": operator.le, ">": operator.gt, ">=": operator.ge},
}
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
SUBSTRINGS = {"CONTAINS": lambda a, b: b in a, "STARTS WITH": str.startswith, "ENDS WITH": str.endswith}


def dft(name: str) -> Callable[[Any], list[Any]]:
    return lambda s: [getattr(label, name) for label in s.labels if label.kind == "dft"]


def per_atom(structure: Any) -> list[Any]:
    size = sum(structure.counts.values())
    return [None if energy is None else energy / size for energy in dft("energy")(structure)]


def hessian_rows(structure: Any) -> list[int]:
    totals = dict.fromkeys((label.method for label in structure.labels), 0)
    for label in structure.labels:
        totals[label.method] += label.rows
    return [max(totals.values(), default=0)]


def disagreement(name: str, place: int) -> Callable[[Any], list[Any]]:
    return lambda s: [s.disagreements[name][place]] if name in s.disagreements else []


def volume_per_atom(structure: Any) -> list[Any]:
    return [None if structure.volume is None else structure.volume / sum(structure.counts.values())]


# name -> values of a structure (None: unknown)
NUMBERS: dict[str, Callable[[Any], list[Any]]] = {
    "id": lambda s: [s.id],
    "nelements": lambda s: [len(s.counts)],
    "nsites": lambda s: [sum(s.counts.values())],
    "nperiodic_dimensions": lambda s: [bin(s.pbc).count("1")],
    "space_group_it_number": lambda s: [s.group],
    "_mlipdb_volume": lambda s: [s.volume],
    "_mlipdb_volume_per_atom": volume_per_atom,
    "_mlipdb_charge": lambda s: [s.charge],
    "_mlipdb_spin_multiplicity": lambda s: [s.spin],
    "_mlipdb_band_gap": dft("gap"),
    "gap": dft("gap"),
    "_mlipdb_energy": dft("energy"),
    "_mlipdb_energy_corrected": dft("corrected"),
    "_mlipdb_energy_per_atom": per_atom,
    "_mlipdb_max_force": dft("force"),
    "_mlipdb_n_hessian_rows": hessian_rows,
    "_mlipdb_disagreement_pair": disagreement("pair", 0),
    "_mlipdb_disagreement_three_of_them": disagreement("three_of_them", 0),
    "_mlipdb_energy_disagreement_pair": disagreement("pair", 1),
}
STRINGS: dict[str, Callable[[Any], list[Any]]] = {
    "_mlipdb_source": lambda s: [s.source],
    "_mlipdb_material": lambda s: [s.material],
    "_mlipdb_external_id": lambda s: [s.external_id],
    "chemical_formula_reduced": lambda s: [reduced_formula(s.composition)],
    "_mlipdb_chemical_system": lambda s: [chemical_system(s.composition)],
    "space_group_symbol_hermann_mauguin": lambda s: [s.group and short_symbols()[s.group]],
}
STRICT = ("chemical_formula_reduced", "_mlipdb_chemical_system", "space_group_symbol_hermann_mauguin")
FLAGS: dict[str, Callable[[Any], bool]] = {
    "_mlipdb_has_forces": lambda s: any("forces" in x.arrays for x in s.labels if x.kind == "dft"),
    "_mlipdb_has_stress": lambda s: any("stress" in x.arrays for x in s.labels if x.kind == "dft"),
    "_mlipdb_has_magmoms": lambda s: any("magmoms" in x.arrays for x in s.labels if x.kind == "dft"),
    "_mlipdb_has_atomic_energies": lambda s: any("atomic_energies" in x.arrays for x in s.labels),
}
LISTS: dict[str, tuple[Callable[[Any], set[str]], list[str]]] = {
    "elements": (lambda s: set(s.counts), ["Li", "Fe", "O", "Y", "Zr", "P", "H"]),
    "_mlipdb_method": (
        lambda s: {x.method for x in s.labels if x.status == "done"},
        ["PBE", "r2SCAN", "nequix-mp-1", "none"],
    ),
    "_mlipdb_teacher": (
        lambda s: {x.method for x in s.labels if x.status == "done" and x.kind == "teacher"},
        ["PBE", "nequix-mp-1", "mace_mp"],
    ),
    "_mlipdb_subset": (lambda s: set(s.subsets), ["first", "second_half", "nobody"]),
    "tags": (
        lambda s: {f"{name}={value}" for name, value in s.tags.items()},
        ["subset=SPICE Dipeptides", "subset=µ=1", "split=train", "split=test", "split=", "=train"],
    ),
}


def some(values: Callable[[Any], list[Any]], test: Callable[[Any], bool]) -> Condition:
    """True when a known value passes, None when no value is known."""

    def condition(structure: Any) -> bool | None:
        known = [value for value in values(structure) if value is not None]
        return any(test(value) for value in known) if known else None

    return condition


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def number_filters(draw: st.DrawFn) -> Filter:
    name, symbol = draw(st.sampled_from(sorted(NUMBERS))), draw(st.sampled_from(sorted(OPERATORS)))
    nice = st.sampled_from([0, 1, 2, 3, 4, 5, 7, 7.25, 10, 33.25, 62, 100, 194, -7.0, -10.5, 0.05, -1, 2.5])
    constant = draw(st.one_of(nice, st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
    condition = some(NUMBERS[name], lambda value: OPERATORS[symbol](value, constant))
    text = f"{constant!r} {FLIPPED[symbol]} {name}" if draw(st.booleans()) else f"{name}{symbol}{constant!r}"
    return text, condition


@st.composite
def string_filters(draw: st.DrawFn, catalog: Any) -> Filter:
    name = draw(st.sampled_from(sorted(STRINGS)))
    known = sorted({value for s in catalog.structures for value in STRINGS[name](s) if value})
    whole = draw(st.sampled_from(known))
    if draw(st.booleans()):
        symbol = draw(st.sampled_from(["=", "!="]))
        if name not in STRICT:
            whole = draw(st.sampled_from([whole, whole.lower(), "%", "_", ""]))
        return f"{name} {symbol} {quote(whole)}", some(STRINGS[name], lambda value: OPERATORS[symbol](value, whole))
    keyword = draw(st.sampled_from(sorted(SUBSTRINGS)))
    start = draw(st.integers(0, len(whole)))
    part = draw(st.sampled_from([whole[start:], whole[:start], whole[start : start + 1], "%", "_", "\\", "r_", "FE"]))
    return f"{name} {keyword} {quote(part)}", some(STRINGS[name], lambda value: SUBSTRINGS[keyword](value, part))


@st.composite
def list_filters(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from(sorted(LISTS)))
    values, choices = LISTS[name]
    if draw(st.integers(0, 4)) == 0:
        symbol, length = draw(st.sampled_from(sorted(OPERATORS))), draw(st.integers(-1, 5))
        return f"{name} LENGTH {symbol} {length}", lambda s: OPERATORS[symbol](len(values(s)), length)
    items = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=8))
    texts = ", ".join(map(quote, items))
    conditions: dict[str, Condition] = {
        f"HAS {quote(items[0])}": lambda s: items[0] in values(s),
        f"HAS ALL {texts}": lambda s: values(s) >= set(items),
        f"HAS ANY {texts}": lambda s: bool(values(s) & set(items)),
        f"HAS ONLY {texts}": lambda s: values(s) <= set(items),
    }
    text = draw(st.sampled_from(list(conditions)))
    return f"{name} {text}", conditions[text]


@st.composite
def flag_filters(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from(sorted(FLAGS)))
    text, wanted = draw(
        st.sampled_from([("", True), ("=TRUE", True), (" = FALSE", False), (" != TRUE", False), ("!=FALSE", True)])
    )
    return name + text, lambda s: FLAGS[name](s) == wanted


@st.composite
def known_filters(draw: st.DrawFn) -> Filter:
    every = {**NUMBERS, **STRINGS}
    name, wanted = draw(st.sampled_from(sorted(every))), draw(st.booleans())
    text = f"{name} IS {'KNOWN' if wanted else 'UNKNOWN'}"
    return text, lambda s: any(value is not None for value in every[name](s)) == wanted


SHORTHANDS: list[Filter] = [
    ("Y", lambda s: "Y" in s.counts),
    ("all", lambda s: True),
    ("second_half", lambda s: "second_half" in s.subsets),
    ("Fe-Li-O", lambda s: set(s.counts) == {"Fe", "Li", "O"}),
    ("O-Y", lambda s: set(s.counts) == {"O", "Y"}),
    ("YO", lambda s: set(s.counts) == {"Y", "O"} and s.counts["Y"] == s.counts["O"]),
    ("O2Y4", lambda s: set(s.counts) == {"Y", "O"} and s.counts["Y"] == 2 * s.counts["O"]),
    ("Pm-3m", some(lambda s: [s.group], lambda value: value == 221)),
    ('"P 6_3/m m c"', some(lambda s: [s.group], lambda value: value == 194)),
]


def negated(item: Filter) -> Filter:
    text, condition = item

    def opposite(structure: Any) -> bool | None:
        value = condition(structure)
        return None if value is None else not value

    return f"NOT ({text})", opposite


def joined(items: list[Filter], *, word: str) -> Filter:
    """Kleene's AND and OR: False or True decides, else an unknown does."""
    decisive = word == "OR"

    def condition(structure: Any) -> bool | None:
        values = [each(structure) for _, each in items]
        if decisive in values:
            return decisive
        return None if None in values else not decisive

    return "(" + f" {word} ".join(text for text, _ in items) + ")", condition


def filters(catalog: Any) -> st.SearchStrategy[Filter]:
    leaves = st.one_of(
        number_filters(), string_filters(catalog), list_filters(), flag_filters(), known_filters(),
        st.sampled_from(SHORTHANDS),
    )  # fmt: skip
    return st.recursive(
        leaves,
        lambda children: st.one_of(
            children.map(negated),
            st.builds(joined, st.lists(children, min_size=2, max_size=3), word=st.sampled_from(["AND", "OR"])),
        ),
        max_leaves=6,
    )


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_random_filter_matches_what_a_loop_in_python_matches(catalog, data):
    text, condition = data.draw(filters(catalog))
    assert catalog.ids(text) == catalog.found(text) == catalog.matching(condition), text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_postgresql_gives_the_same_answers(postgresql_catalog, data):
    text, condition = data.draw(filters(postgresql_catalog))
    expected = postgresql_catalog.matching(condition)
    assert postgresql_catalog.ids(text) == postgresql_catalog.found(text) == expected, text


def test_the_random_catalog_has_every_kind_of_gap(catalog):
    """What the test above relies on: unknown, several and disagreeing values all occur."""
    gaps = [dft("gap")(structure) for structure in catalog.structures]
    assert any(not values for values in gaps)
    assert any(values and all(value is None for value in values) for values in gaps)
    assert any(len({value for value in values if value is not None}) > 1 for values in gaps)
    assert any(structure.group is None for structure in catalog.structures)
