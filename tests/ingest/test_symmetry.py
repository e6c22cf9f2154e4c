import moyopy
import numpy as np
import pytest

from mlipdb.ingest import symmetry
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.symmetry import SymmetryFinder, space_group_symbol
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


def test_groups_come_in_order_and_only_for_crystals():
    slab = cubic(14, pbc=(True, True, False))
    with SymmetryFinder(workers=0) as finder:
        found = finder.submit([cubic(84), slab, diamond()]).result()
    assert found == [SpaceGroup(221, "Pm-3m"), None, SpaceGroup(227, "Fd-3m")]
    assert finder.tool == SymmetryTool("moyopy", moyopy.__version__, 1e-2)


def test_the_tolerance_is_used():
    moved = make_structure([55, 17], [[0.0, 0.0, 0.0], [2.05, 2.0, 2.0]], cell=np.eye(3) * 4.0, pbc=CUBE)
    numbers = []
    for symprec in (0.2, 1e-3):
        with SymmetryFinder(symprec=symprec, workers=0) as finder:
            numbers += [group.number for group in finder.submit([moved]).result()]
    assert numbers[0] == 221
    assert numbers[1] == 99  # P4mm: the move along one axis leaves its fourfold axis


def test_a_crystal_on_which_the_search_fails_has_no_group():
    twice = make_structure([14, 14], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], cell=np.eye(3) * 4.0, pbc=CUBE)
    with SymmetryFinder(workers=0) as finder:
        assert finder.submit([twice, cubic(84)]).result() == [None, SpaceGroup(221, "Pm-3m")]


def test_a_small_number_starts_no_process():
    with SymmetryFinder(workers=2) as finder:
        finder.submit([cubic(84)]).result()
        assert finder._pool is None


def test_a_worker_that_dies_or_hangs_costs_only_the_crystal_that_did_it(monkeypatch):
    monkeypatch.setattr(symmetry, "SMALL", 0)
    elements = [84, KILLER, 84, SLEEPER, 84]
    with SymmetryFinder(workers=1, search=dangerous_search, patience=4.0) as finder:
        tasks = [finder.submit([cubic(number) for number in part]) for part in (elements[:3], elements[3:], [84])]
        found = [group and group.number for task in tasks for group in task.result()]
    assert found == [221, None, 221, None, 221, 221]


def test_space_groups_of_the_ideal_crystals_in_the_sample_that_ships(root):
    frames = list(MptrjReader().frames(root / "mlipdb" / "data" / "gpaw-pbe-sample.json.gz", {}))
    with SymmetryFinder(workers=0) as finder:
        groups = finder.submit([frame.structure for frame in frames]).result()
    last = {frame.material: group.symbol for frame, group in zip(frames, groups, strict=True)}
    # The runs end in ideal crystals; its description lists their groups.
    assert set(last.values()) <= {"Fm-3m", "Pm-3m", "F-43m", "Fd-3m", "P6_3/mmc", "P6_3mc", "P4_2/mnm", "Im-3m"}
