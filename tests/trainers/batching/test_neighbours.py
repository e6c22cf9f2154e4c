from dataclasses import replace

import numpy as np
import pytest
import vesin
from hypothesis import given, settings
from hypothesis import strategies as st

from mlipdb.structures import Structure, StructureError, make_structure
from mlipdb.subsets.neighbours import completed_cell
from mlipdb.trainers.batching.neighbours import Neighbours, neighbours
from mlipdb.trainers.graph import GraphNeeds


def crystal(*, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Structure:
    rng = np.random.default_rng(3)
    cell = np.array([[3.1, 0.4, 0.0], [0.2, 2.6, -0.5], [0.7, 0.1, 4.4]])
    return make_structure([14, 8, 8], rng.uniform(-4, 8, (3, 3)), cell=cell, pbc=pbc)


def by_brute_force(structure: Structure, cutoff: float) -> set[tuple[int, ...]]:
    """Every pair in every cell up to nine away."""
    reach = [range(-9, 10) if periodic else range(1) for periodic in structure.pbc]
    shifts = np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, 3)
    found = set()
    for receiver, here in enumerate(structure.positions):
        for sender, there in enumerate(structure.positions):
            lengths = np.linalg.norm(there - here + shifts @ structure.cell, axis=1)
            close = shifts[(lengths < cutoff) & (lengths > 1e-9)]
            found |= {(receiver, sender, *shift) for shift in close.tolist()}
    return found


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, True), (False, False, False)])
def test_all_pairs_and_images_within_the_cutoff_are_found_once(pbc):
    structure = crystal(pbc=pbc)
    found = neighbours(structure, 5.0)
    listed = [tuple(row) for row in np.column_stack([found.receivers, found.senders, found.shifts]).tolist()]
    assert len(listed) == len(set(listed))
    assert set(listed) == by_brute_force(structure, 5.0)


def test_vectors_by_the_stated_convention_are_shorter_than_the_cutoff_and_receivers_ascend():
    structure = crystal()
    found = neighbours(structure, 4.0)
    positions = structure.positions
    vectors = positions[found.senders] - positions[found.receivers] + found.shifts @ structure.cell
    assert (np.linalg.norm(vectors, axis=1) < 4.0).all()
    assert (np.diff(found.receivers) >= 0).all()


@pytest.mark.parametrize("atoms", [255, 256, 257, 65536])
def test_receivers_ascend_whatever_the_number_of_atoms(atoms):
    chain = make_structure(
        [6] * atoms, np.outer(np.arange(atoms), [1.0, 0, 0]), cell=np.zeros((3, 3)), pbc=(False,) * 3
    )
    found = neighbours(chain, 1.5)
    inner = np.repeat(np.arange(atoms), 2)[1:-1]
    assert found.receivers.tolist() == inner.tolist()
    assert (np.abs(found.senders - found.receivers) == 1).all()


def test_an_atom_in_a_cell_smaller_than_the_cutoff_neighbours_its_images():
    # simple cubic, a = 2: 6 neighbours at 2, 12 at 2.83, 8 at 3.46
    cubic = make_structure([84], [[0.3, 0.2, 0.1]], cell=2 * np.eye(3), pbc=(True, True, True))
    assert len(neighbours(cubic, 3.5)) == 26


def test_an_isolated_atom_has_no_neighbours():
    found = neighbours(make_structure([2], [[5.0, 0.0, 0.0]]), 6.0)
    assert len(found) == 0
    assert found.shifts.shape == (0, 3)


def test_zero_cell_vectors_of_a_slab_are_completed_only_for_the_list():
    slab = make_structure([6, 6], [[0, 0, 0], [0, 0, 30.0]], cell=np.diag([2.5, 2.5, 0]), pbc=(True, True, False))
    found = neighbours(slab, 3.0)
    assert len(found) == 8
    assert not found.shifts[:, 2].any()


def test_parallel_lattice_vectors_are_refused():
    flat = make_structure([6], [[0, 0, 0]], cell=[[2, 0, 0], [4, 0, 0], [0, 0, 0]], pbc=(True, True, False))
    with pytest.raises(StructureError, match="parallel"):
        neighbours(flat, 3.0)


def described(found: Neighbours) -> list[tuple[int, ...]]:
    return [tuple(row) for row in np.column_stack([found.receivers, found.senders, found.shifts]).tolist()]


def lengths(structure: Structure, found: Neighbours) -> np.ndarray:
    positions = structure.positions
    vectors = positions[found.senders] - positions[found.receivers] + found.shifts @ structure.cell
    return np.linalg.norm(vectors, axis=1)


def cubic(atoms: int = 1) -> Structure:
    """Atoms on a line with 2 Å between them, and walls of images 2 Å away: every cell is the same simple cubic."""
    positions = np.array([[0.3, 0.2, 0.1]]) + 2.0 * np.arange(atoms)[:, None] * [1, 0, 0]
    return make_structure([84] * atoms, positions, cell=np.diag([2.0 * atoms, 2, 2]), pbc=(True, True, True))


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
@pytest.mark.parametrize("nearest", [None, 7])
def test_the_reverse_of_an_edge_runs_back_by_the_opposite_shift(pbc, nearest):
    structure = crystal(pbc=pbc)
    found = neighbours(structure, 6.0, needs=GraphNeeds(symmetric=True, max_neighbours=nearest))
    back = found.reverse
    np.testing.assert_array_equal(found.senders[back], found.receivers)
    np.testing.assert_array_equal(found.receivers[back], found.senders)
    np.testing.assert_array_equal(found.shifts[back], -found.shifts)
    np.testing.assert_array_equal(back[back], np.arange(len(found)))
    assert not (back == np.arange(len(found))).any()


def test_an_atom_alone_in_its_cell_has_its_images_paired_with_the_opposite_ones():
    found = neighbours(cubic(), 3.5, needs=GraphNeeds(symmetric=True))
    assert len(found) == 26
    np.testing.assert_array_equal(found.shifts[found.reverse], -found.shifts)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), nearest=st.integers(1, 40), pbc=st.tuples(*[st.booleans()] * 3))
def test_the_nearest_are_those_of_the_whole_list_and_what_is_as_near_as_the_last(seed, nearest, pbc):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(2, 9, 3) * np.eye(3) + rng.normal(0, 0.5, (3, 3))
    structure = make_structure([6] * 5, rng.uniform(0, 8, (5, 3)), cell=cell, pbc=pbc)
    whole = neighbours(structure, 6.0)
    found = neighbours(structure, 6.0, needs=GraphNeeds(max_neighbours=nearest))
    expected = set()
    for atom in range(5):
        far = lengths(structure, whole)[whole.receivers == atom]
        limit = np.sort(far)[nearest - 1] + 0.01 if len(far) > nearest else np.inf
        chosen = (whole.receivers == atom) & (lengths(structure, whole) <= limit)
        expected |= {edge for edge, taken in zip(described(whole), chosen, strict=True) if taken}
    assert set(described(found)) == expected
    both = neighbours(structure, 6.0, needs=GraphNeeds(max_neighbours=nearest, symmetric=True))
    assert set(described(both)) == expected | {
        (sender, receiver, *(-np.array(shift)).tolist()) for receiver, sender, *shift in expected
    }
    assert (np.diff(both.receivers) >= 0).all()


@pytest.mark.parametrize(("nearest", "each"), [(4, 6), (6, 6), (7, 18)])
def test_a_supercell_keeps_the_same_nearest_neighbours_and_ties_are_not_cut(nearest, each):
    # Simple cubic: 6 at 2 Å, then 12 at 2.83 Å, for any cell.
    needs = GraphNeeds(max_neighbours=nearest, symmetric=True)
    assert len(neighbours(cubic(), 12.0, needs=needs)) == each
    assert len(neighbours(cubic(3), 12.0, needs=needs)) == 3 * each


def test_the_order_of_atoms_does_not_choose_the_nearest():
    structure, order = crystal(), np.array([2, 0, 1])
    moved = replace(structure, atomic_numbers=structure.atomic_numbers[order], positions=structure.positions[order])
    needs = GraphNeeds(max_neighbours=5, symmetric=True)
    renamed = {
        (order[receiver], order[sender], *shift)
        for receiver, sender, *shift in described(neighbours(moved, 6.0, needs=needs))
    }
    assert renamed == set(described(neighbours(structure, 6.0, needs=needs)))


def test_triplets_are_counted_where_they_are_asked_for():
    # 6 neighbours of each atom, each paired with the 5 others.
    assert neighbours(cubic(2), 2.5, needs=GraphNeeds(triplets=True)).triplet_count == 2 * 6 * 5
    assert neighbours(cubic(2), 2.5).triplet_count is None
    lonely = make_structure([2], [[5.0, 0.0, 0.0]])
    found = neighbours(lonely, 6.0, needs=GraphNeeds(max_neighbours=3, symmetric=True, triplets=True))
    assert (len(found), len(found.reverse), found.triplet_count) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), atoms=st.integers(1, 12), pbc=st.tuples(*[st.booleans()] * 3))
def test_pairs_turned_round_are_the_whole_list_that_vesin_finds(seed, atoms, pbc):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(2, 9, 3) * np.eye(3) + rng.normal(0, 0.7, (3, 3))
    structure = make_structure([6] * atoms, rng.uniform(-15, 15, (atoms, 3)), cell=cell, pbc=pbc)
    calculator = vesin.NeighborList(cutoff=5.0, full_list=True, sorted=True)
    box = completed_cell(structure.cell, structure.pbc)
    parts = calculator.compute(points=structure.positions, box=box, periodic=np.array(pbc), quantities="ijS")
    expected = {tuple(map(int, row)) for row in np.column_stack(parts)}
    assert set(described(neighbours(structure, 5.0))) == expected
