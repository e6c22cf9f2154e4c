import numpy as np
import pytest

from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import (
    GraphShape,
    PaddingError,
    bucket_shape,
    needed_shape,
    pad_graph,
    reuse_shape,
    round_up,
)

CRYSTAL = make_structure([14, 8], [[0, 0, 0], [1.4, 1.4, 1.4]], cell=2.8 * np.eye(3), pbc=(True, True, True))
MOLECULE = make_structure([8, 1, 1], [[0, 0, 100.0], [0.97, 0, 100.0], [0, 0.97, 100.0]])
LONELY = make_structure([2], [[0, 0, 0]])
STRUCTURES = [CRYSTAL, LONELY, MOLECULE]
LISTS = [neighbours(structure, 3.0) for structure in STRUCTURES]


def test_padding_is_at_the_end_and_joins_the_last_atom_to_itself():
    needed = needed_shape(STRUCTURES, LISTS)
    graph = pad_graph(STRUCTURES, LISTS, shape=GraphShape(needed.atoms + 2, needed.edges + 3, needed.graphs + 1))
    assert graph.atomic_numbers.tolist() == [14, 8, 2, 8, 1, 1, 0, 0, 0]
    assert graph.atom_graph.tolist() == [0, 0, 1, 2, 2, 2, 4, 4, 4]
    assert graph.atom_count.tolist() == [2, 1, 3, 0, 0]
    assert graph.graph_mask.tolist() == [True, True, True, False, False]
    assert graph.periodic.tolist() == [True, False, False, False, False]
    assert graph.edge_mask.sum() == needed.edges
    assert set(graph.senders[~graph.edge_mask]) == set(graph.receivers[~graph.edge_mask]) == {8}
    assert not graph.shifts[~graph.edge_mask].any()
    assert (np.diff(graph.receivers) >= 0).all()


def test_edges_keep_their_vectors_in_the_batch():
    graph = pad_graph(STRUCTURES, LISTS, shape=needed_shape(STRUCTURES, LISTS))
    cells = graph.cell[graph.atom_graph[graph.receivers]]
    vectors = graph.positions[graph.senders] - graph.positions[graph.receivers]
    vectors = vectors + np.einsum("ei,eij->ej", graph.shifts, cells)
    expected = [
        s.positions[n.senders] - s.positions[n.receivers] + n.shifts @ s.cell
        for s, n in zip(STRUCTURES, LISTS, strict=True)
    ]
    np.testing.assert_allclose(vectors, np.concatenate(expected), atol=1e-6)
    assert (graph.atom_graph[graph.senders] == graph.atom_graph[graph.receivers]).all()


def test_arrays_are_float32_and_int32():
    graph = pad_graph(STRUCTURES, LISTS, shape=bucket_shape(needed_shape(STRUCTURES, LISTS)))
    assert {graph.positions.dtype, graph.cell.dtype, graph.shifts.dtype} == {np.dtype(np.float32)}
    assert {graph.senders.dtype, graph.receivers.dtype, graph.atom_graph.dtype} == {np.dtype(np.int32)}


def test_a_graph_that_does_not_fit_is_refused():
    needed = needed_shape(STRUCTURES, LISTS)
    with pytest.raises(PaddingError, match="larger shape"):
        pad_graph(STRUCTURES, LISTS, shape=GraphShape(needed.atoms, needed.edges - 1, needed.graphs))


@pytest.mark.parametrize("count", [1, 16, 17, 21, 255, 256, 257, 1000, 33001])
def test_rounding_up_holds_the_count_and_wastes_at_most_a_fifth(count):
    rounded = round_up(count, smallest=16)
    assert rounded >= max(count, 16)
    assert rounded == 16 or count > 0.79 * rounded


def test_few_sizes_cover_a_wide_range():
    assert len({round_up(count, smallest=256) for count in range(1, 30000)}) < 32


def test_a_shape_is_kept_while_it_fits_and_is_half_used():
    first = reuse_shape(GraphShape(9, 1000, 2), None)
    assert reuse_shape(GraphShape(9, 1090, 2), first) == first
    assert reuse_shape(GraphShape(9, 900, 2), first) == first
    assert reuse_shape(GraphShape(9, 5000, 2), first).holds(GraphShape(9, 5000, 2))
    assert reuse_shape(GraphShape(9, 300, 2), first).edges < first.edges
