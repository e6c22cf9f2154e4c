"""Graphs share programs while that is cheaper than compiling another."""

from mlipdb.trainers.batching.pad import GraphShape, bucket_shape
from mlipdb.trainers.batching.shapes import KnownShapes

LARGE = GraphShape(atoms=101, edges=1000, graphs=11)
SMALL = GraphShape(atoms=11, edges=100, graphs=3)


def test_a_smaller_graph_takes_the_smallest_known_shape_that_holds_it():
    shapes = KnownShapes()
    larger = GraphShape(atoms=201, edges=2000, graphs=11)
    assert [shapes.fitting(needed) for needed in (larger, LARGE, LARGE, SMALL)] == [larger, larger, larger, larger]
    fresh = KnownShapes()
    assert [fresh.fitting(needed) for needed in (LARGE, larger, SMALL)] == [LARGE, larger, LARGE]


def test_a_graph_that_no_known_shape_holds_has_its_own():
    shapes = KnownShapes()
    shapes.fitting(LARGE)
    for needed in (
        GraphShape(atoms=102, edges=100, graphs=3),
        GraphShape(atoms=11, edges=1001, graphs=3),
        GraphShape(atoms=11, edges=100, graphs=12),
        GraphShape(atoms=11, edges=100, graphs=3, triplets=1),
    ):
        assert shapes.fitting(needed) == needed


def test_many_small_graphs_are_worth_a_shape_of_their_own_once_padding_has_cost_as_much():
    shapes = KnownShapes(worth=2700)
    shapes.fitting(LARGE)
    assert [shapes.fitting(SMALL) for _ in range(5)] == [LARGE, LARGE, LARGE, SMALL, SMALL]


def test_graphs_as_large_with_fewer_atoms_do_not_wait_for_ever():
    shapes = KnownShapes(worth=2)
    shapes.fitting(LARGE)
    fewer = GraphShape(atoms=51, edges=1000, graphs=11)
    assert [shapes.fitting(fewer) for _ in range(3)] == [LARGE, LARGE, fewer]


def test_a_shape_of_its_own_is_rounded():
    shapes = KnownShapes(bucket_shape)
    assert shapes.fitting(LARGE) == bucket_shape(LARGE)
    assert shapes.fitting(SMALL) == bucket_shape(LARGE)


def test_what_did_not_fit_into_memory_is_taken_no_more():
    shapes = KnownShapes()
    larger = GraphShape(atoms=201, edges=2000, graphs=11)
    for needed in (LARGE, larger):
        assert shapes.fitting(needed) == needed
    shapes.drop(larger)
    assert shapes.fitting(SMALL) == LARGE
    shapes.drop(LARGE)
    assert shapes.fitting(SMALL) == SMALL
