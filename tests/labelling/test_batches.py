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
