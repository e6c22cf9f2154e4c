import jax
import numpy as np
import pytest

from mlipdb.database import create_database
from mlipdb.errors import ConfigError
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.structures import make_structure
from mlipdb.trainers.batching.feed import Feed, Replay
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.packing import Sizes, choose_shapes, group_by_devices, plan_epoch
from mlipdb.trainers.batching.rank import Rank
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.batching.targets import Convention
from mlipdb.trainers.graph import REPLAY, TARGET

CUTOFF = 4.0


def molecule(number):
    """1 to 7 atoms, and one of 40."""
    atoms = 40 if number == 23 else 1 + number % 7
    structure = make_structure([6] * atoms, np.random.default_rng(number).uniform(0, 6, (atoms, 3)))
    label = Label(energy_uncorrected=-float(atoms), forces=np.ones((atoms, 3)))
    return NewStructure(structure=structure, label=label, external_id=str(number), material=str(number))


MOLECULES = [molecule(number) for number in range(24)]
LISTS = [neighbours(one.structure, CUTOFF) for one in MOLECULES]
SIZES = Sizes(
    atoms=np.array([len(one.structure) for one in MOLECULES]), edges=np.array([len(found) for found in LISTS])
)
CONVENTION = Convention(energy="energy_uncorrected", e0={6: 0.0})
SHAPES = choose_shapes(SIZES, graphs=4)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A database of the molecules, and their ids."""
    db = create_database(tmp_path_factory.mktemp("feed") / "db")
    source = db.open_source("molecules", reader="none", uri="made by this test")
    ids = db.append(MOLECULES, source_id=source, method_id=db.method_id(Method(kind="dft", name="toy")))
    return db, np.array(ids)


@pytest.fixture
def feed(stored):
    db, ids = stored

    def make(**options):
        source = RecordSource(db, cutoff=CUTOFF, budget=0)
        return Feed(source=source, ids=ids, convention=CONVENTION, **options)

    return make


def plan():
    return plan_epoch(SIZES, SHAPES, seed=0, epoch=0)


def same(first, second):
    assert first.ids.tolist() == second.ids.tolist()
    jax.tree.map(np.testing.assert_array_equal, first.batch, second.batch)


def test_batches_come_in_order_and_are_the_same_for_any_number_of_threads(feed):
    for one, other in zip(feed(threads=1).batches(plan()), feed(threads=3).batches(plan()), strict=True):
        same(one, other)


def test_going_on_in_the_middle_of_an_epoch_gives_the_batches_that_were_left(feed):
    whole = list(feed().batches(plan()))
    for before, after in zip(whole[2:], feed().batches(plan()[2:]), strict=True):
        same(before, after)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_get_equally_many_stacks_of_one_shape_and_every_structure_once(feed, stored, ranks):
    groups = group_by_devices(plan(), 4)
    parts = [list(feed().stacks(groups, devices=4, epoch=0, rank=Rank(number, ranks))) for number in range(ranks)]
    assert {len(part) for part in parts} == {len(groups)}
    for together in zip(*parts, strict=True):
        assert {fed.batch.graph.senders.shape for fed in together} == {
            (4 // ranks, together[0].batch.graph.senders.shape[1])
        }
        for fed in together:
            assert int(fed.batch.graph.graph_mask.sum()) == len(fed.ids)
            assert int(fed.batch.targets.has_energy.sum()) == len(fed.ids)
    assert sorted(number for part in parts for fed in part for number in fed.ids.tolist()) == stored[1].tolist()


def test_devices_that_do_not_share_out_evenly_are_refused(feed):
    with pytest.raises(ConfigError, match="evenly over 3 processes"):
        list(feed().stacks(group_by_devices(plan(), 4), devices=4, epoch=0, rank=Rank(0, 3)))
    with pytest.raises(ConfigError, match="count from 0 to 1"):
        Rank(2, 2)


def test_replayed_structures_come_with_their_own_labels_convention_and_head(stored, feed):
    db, ids = stored
    other = Method(kind="teacher", name="other", e0_convention="e0 included")
    labels = [
        NewLabel(structure_id=int(i), part=0, label=Label(energy_uncorrected=10.0 * len(one.structure)))
        for i, one in zip(ids, MOLECULES, strict=True)
    ]
    db.append_labels(labels, method_id=db.method_id(other))
    replay = Replay(
        source=RecordSource(db, cutoff=CUTOFF, method_id=db.method_id(other), budget=0),
        convention=Convention(energy="energy_uncorrected", e0={6: 3.0}),
        start=5,
    )
    batches = list(feed(replay=replay).batches(plan()))
    learnt = {}
    for planned, fed in zip(plan(), batches, strict=True):
        graph, targets = fed.batch.graph, fed.batch.targets
        for graph_number, place in enumerate(planned.members.tolist()):
            replayed = place >= 5
            atoms = len(MOLECULES[place].structure)
            assert graph.head[graph_number] == (REPLAY if replayed else TARGET)
            assert targets.energy[graph_number] == (7.0 * atoms if replayed else -1.0 * atoms)
            assert targets.has_forces[graph_number] == (not replayed)
            learnt[place] = replayed
        assert set(graph.head[len(planned.members) :].tolist()) <= {TARGET}
    assert sum(learnt.values()) == len(MOLECULES) - 5
    assert next(feed().batches(plan())).batch.graph.head is None
