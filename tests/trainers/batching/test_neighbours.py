import numpy as np
import pytest

from mlipdb.structures import Structure, StructureError, make_structure
from mlipdb.trainers.batching.neighbours import neighbours


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
