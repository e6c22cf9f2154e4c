import moyopy
import numpy as np
import pytest

from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.symmetry import find_groups, find_groups_carefully, space_group_symbol, symmetry_tool
from mlipdb.ingest.symmetry_worker import space_group_numbers
from mlipdb.records import SpaceGroup, SymmetryTool
from mlipdb.structures import make_structure
from mlipdb.testing.crashes import KILLER, SLEEPER, dangerous_search

CUBE = (True, True, True)


def cubic(number, *, a=4.0, pbc=CUBE):
    return make_structure([number], [[0.0, 0.0, 0.0]], cell=np.eye(3) * a, pbc=pbc)


def diamond():
    """The conventional cell of silicon, turned away from the axes."""
    places = np.array([(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]) / 4
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    cell = 5.43 * turn
    return make_structure([14] * 8, places @ cell, cell=cell, pbc=CUBE)


@pytest.mark.parametrize(
    ("number", "symbol"), [(1, "P1"), (2, "P-1"), (14, "P2_1/c"), (194, "P6_3/mmc"), (221, "Pm-3m"), (225, "Fm-3m")]
)
def test_symbols_are_short_hermann_mauguin_without_spaces(number, symbol):
    assert space_group_symbol(number) == symbol


def test_there_are_two_hundred_and_thirty_different_symbols():
    assert len({space_group_symbol(number) for number in range(1, 231)}) == 230


def groups(structures, symprec=1e-2):
    return find_groups(structures, lambda crystals: space_group_numbers(crystals, symprec))


def test_groups_come_in_order_and_only_for_crystals():
    slab = cubic(14, pbc=(True, True, False))
    assert groups([cubic(84), slab, diamond()]) == [SpaceGroup(221, "Pm-3m"), None, SpaceGroup(227, "Fd-3m")]
    assert groups([slab]) == [None]
    assert symmetry_tool(1e-2) == SymmetryTool("moyopy", moyopy.__version__, 1e-2)


def test_the_tolerance_is_used():
    moved = make_structure([55, 17], [[0.0, 0.0, 0.0], [2.05, 2.0, 2.0]], cell=np.eye(3) * 4.0, pbc=CUBE)
    assert groups([moved], symprec=0.2)[0].number == 221
    assert groups([moved], symprec=1e-3)[0].number == 99  # P4mm: the move along one axis leaves its fourfold axis


def test_a_crystal_on_which_the_search_fails_has_no_group():
    twice = make_structure([14, 14], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], cell=np.eye(3) * 4.0, pbc=CUBE)
    assert groups([twice, cubic(84)]) == [None, SpaceGroup(221, "Pm-3m")]


def test_a_search_that_crashes_or_hangs_costs_only_the_crystal_that_did_it():
    crystals = [cubic(number) for number in (84, KILLER, 84, SLEEPER, 84)]
    found = find_groups_carefully(crystals, 1e-2, search=dangerous_search, patience=4.0)
    assert [group and group.number for group in found] == [221, None, 221, None, 221]


def test_space_groups_of_the_ideal_crystals_in_the_sample_that_ships(root):
    frames = list(MptrjReader().frames(root / "mlipdb" / "data" / "gpaw-pbe-sample.json.gz", {}))
    found = groups([frame.structure for frame in frames])
    last = {frame.material: group.symbol for frame, group in zip(frames, found, strict=True)}
    # The runs end in ideal crystals; its description lists their groups.
    assert set(last.values()) <= {"Fm-3m", "Pm-3m", "F-43m", "Fd-3m", "P6_3/mmc", "P6_3mc", "P4_2/mnm", "Im-3m"}
