import numpy as np

from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph, reuse_shape
from mlipdb.trainers.graph import GraphNeeds

NEEDS = GraphNeeds(max_neighbours=12, symmetric=True, triplets=True)
CRYSTAL = make_structure([14, 8], [[0, 0, 0], [1.4, 1.4, 1.4]], cell=2.8 * np.eye(3), pbc=(True, True, True))
LONELY = make_structure([2], [[0, 0, 0]])
DIMER = make_structure([8, 1], [[0, 0, 0], [0, 0, 1.0]])
WATER = make_structure([8, 1, 1], [[0, 0, 100.0], [0.97, 0, 100.0], [0, 0.97, 100.0]])
STRUCTURES = [DIMER, CRYSTAL, LONELY, WATER]
LISTS = [neighbours(structure, 3.0, needs=NEEDS) for structure in STRUCTURES]


def padded(*, edges=0, triplets=0):
    needed = needed_shape(STRUCTURES, LISTS)
    shape = GraphShape(needed.atoms, needed.edges + edges, needed.graphs, needed.triplets + triplets)
    return pad_graph(STRUCTURES, LISTS, shape=shape)


def test_every_two_edges_into_one_atom_are_paired_both_ways():
    graph = padded(edges=3, triplets=4)
    real = np.flatnonzero(graph.edge_mask)
    expected = [
        (out, into)
        for out in real.tolist()
        for into in real.tolist()
        if out != into and graph.receivers[out] == graph.receivers[into]
    ]
    found = graph.triplets
    listed = np.column_stack([found.edge_out, found.edge_in])[found.mask]
    assert [tuple(pair) for pair in listed.tolist()] == expected


def test_the_two_hydrogens_of_water_make_one_angle_at_the_oxygen_and_none_between_two_atoms():
    # O has 2 neighbours, each H has O and the other H: 2 pairs at each of three atoms.
    assert LISTS[3].triplet_count == 6
    assert LISTS[0].triplet_count == 0


def test_padding_triplets_keep_the_order_and_padding_edges_are_their_own_reverse():
    graph = padded(edges=3, triplets=4)
    assert graph.triplets.mask.sum() == sum(found.triplet_count for found in LISTS)
    assert (np.diff(graph.triplets.edge_out) >= 0).all()
    last = len(graph.edge_mask) - 1
    assert set(graph.triplets.edge_in[-4:]) == set(graph.triplets.edge_out[-4:]) == {last}
    assert graph.reverse[-3:].tolist() == [last - 2, last - 1, last]


def test_reversed_edges_are_numbered_over_the_batch():
    graph = padded(edges=2)
    np.testing.assert_array_equal(graph.senders[graph.reverse], graph.receivers)
    np.testing.assert_array_equal(graph.shifts[graph.reverse], -graph.shifts)
    np.testing.assert_array_equal(graph.reverse[graph.reverse], np.arange(len(graph.edge_mask)))


def test_a_batch_of_isolated_atoms_has_no_triplets_but_says_so():
    lists = [neighbours(LONELY, 3.0, needs=NEEDS)]
    graph = pad_graph([LONELY], lists, shape=GraphShape(2, 4, 2, 5))
    assert not graph.triplets.mask.any()
    assert len(graph.triplets.edge_in) == 5


def test_models_that_need_neither_get_neither():
    graph = pad_graph([CRYSTAL], [neighbours(CRYSTAL, 3.0)], shape=GraphShape(3, 200, 2))
    assert graph.reverse is None
    assert graph.triplets is None


def test_a_shape_is_changed_when_triplets_no_longer_fit():
    first = reuse_shape(GraphShape(9, 1000, 2, 9000), None)
    assert reuse_shape(GraphShape(9, 1000, 2, 9500), first) == first
    assert reuse_shape(GraphShape(9, 1000, 2, 40_000), first).triplets >= 40_000
