import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipdb.labelling.batches import Batcher, BatchLimits, Task, pack
from mlipdb.structures import make_structure

LIMITS = BatchLimits(structures=8, atoms=20, edges=100)


def task(key, *, edges, atoms=2, rows=0, base=True):
    structure = make_structure(np.full(atoms, 6), np.arange(3.0 * atoms).reshape(atoms, 3))
    return Task(id=key, structure=structure, base=base, rows=np.arange(rows, dtype=np.int32), part=0, edges=edges)


sizes = st.lists(st.tuples(st.integers(0, 130), st.integers(1, 25), st.integers(0, 3)), max_size=60)


@given(sizes=sizes)
def test_every_task_is_in_exactly_one_batch_within_the_limits(sizes):
    tasks = [task(key, edges=edges, atoms=atoms, rows=rows) for key, (edges, atoms, rows) in enumerate(sizes)]
    batches = list(Batcher(limits=LIMITS).batches(tasks))
    assert sorted(item.id for batch in batches for item in batch) == list(range(len(tasks)))
    for batch in batches:
        if len(batch) > 1:
            assert len(batch) <= LIMITS.structures
            assert sum(len(item.structure) for item in batch) <= LIMITS.atoms
            assert sum(item.edges for item in batch) <= LIMITS.edges


def test_base_and_rows_only_tasks_are_not_mixed():
    tasks = [task(key, edges=10, rows=2, base=bool(key % 2)) for key in range(8)]
    assert all(len({item.base for item in batch}) == 1 for batch in pack(tasks, LIMITS))


def test_limits_are_scaled_to_a_number_of_edges_with_the_atoms():
    limits = BatchLimits(structures=64, atoms=1024, edges=16384)
    assert limits.scaled(None) == limits
    assert limits.scaled(4096) == BatchLimits(structures=64, atoms=256, edges=4096)
    assert limits.scaled(1).atoms == 1


def test_long_and_short_lists_of_rows_are_not_mixed():
    tasks = [task(key, edges=10, rows=rows) for key, rows in enumerate([30, 29, 4, 4])]
    assert [[len(item.rows) for item in batch] for batch in pack(tasks, LIMITS)] == [[30, 29], [4, 4]]


def test_batches_of_a_mixed_stream_are_nearly_full():
    random = np.random.default_rng(0)
    tasks = [task(key, edges=int(edges)) for key, edges in enumerate(random.integers(5, 40, 2000))]
    batches = list(Batcher(limits=BatchLimits(structures=64, atoms=1000, edges=400)).batches(tasks))
    fill = [sum(item.edges for item in batch) / 400 for batch in batches]
    assert np.mean(fill) > 0.97


def test_halving_never_reaches_zero():
    limits = BatchLimits(structures=1, atoms=1, edges=1)
    assert limits.halved() == limits


def test_tasks_are_taken_lazily():
    def stream():
        for key in range(5000):
            yielded.append(key)
            yield task(key, edges=50)

    yielded: list[int] = []
    next(Batcher(limits=LIMITS).batches(stream()))
    assert len(yielded) < 1000


@pytest.mark.parametrize("edges", [0, 1])
def test_structures_without_edges_are_batched_by_count(edges):
    batches = pack([task(key, edges=edges, atoms=1) for key in range(17)], LIMITS)
    assert [len(batch) for batch in batches] == [8, 8, 1]


def stream_of(count, edges=10):
    return (task(key, edges=edges) for key in range(count))


def run_with_room_for(structures, batcher, tasks):
    """Sizes of batches when memory has room for so many structures, and how many of them were refused."""
    sizes, refused = [], 0
    for batch in batcher.batches(tasks):
        if len(batch) > structures:
            refused += 1
            batcher.did_not_fit(batch)  # the caller splits it
        else:
            batcher.fitted()
        sizes.append(len(batch))
    return sizes, refused


WIDE = BatchLimits(structures=64, atoms=10_000, edges=100_000)


def test_one_batch_that_does_not_fit_makes_those_after_it_half_as_large():
    batcher = Batcher(limits=WIDE, patience=10_000)
    sizes, refused = run_with_room_for(40, batcher, stream_of(1000))
    assert refused == 1
    assert sizes[:3] == [64, 32, 32]
    assert sum(sizes) == 1000


def test_batches_that_were_packed_before_are_packed_again():
    batcher = Batcher(limits=WIDE, patience=10_000)
    sizes, refused = run_with_room_for(4, batcher, stream_of(600))
    assert (sizes[:4], refused) == ([64, 32, 16, 8], 4)
    assert max(sizes[4:]) <= 4


def test_after_some_that_fit_batches_grow_again_to_the_limits():
    batcher = Batcher(limits=WIDE)
    batcher.did_not_fit([task(key, edges=10) for key in range(64)])
    assert batcher.now.structures == 32
    sizes, refused = run_with_room_for(64, batcher, stream_of(2000))
    assert refused == 0
    assert sizes[:17] == [32] * 16 + [64]


def test_growth_that_was_wrong_is_tried_less_and_less():
    batcher = Batcher(limits=WIDE)
    sizes, refused = run_with_room_for(40, batcher, stream_of(20_000))
    assert refused <= 7  # of some 600 batches
    assert sizes.count(32) > 500


def test_a_batch_far_below_the_limits_that_does_not_fit_lowers_them_below_it():
    batcher = Batcher(limits=WIDE)
    batcher.did_not_fit([task(key, edges=10) for key in range(10)])
    assert batcher.now.structures <= 5
