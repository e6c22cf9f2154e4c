"""A trained toy, shared by the tests of training."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlipdb.database import Database
from mlipdb.testing.training import TINY, training_database
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.progress import PlainReporter
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.run_files import last_checkpoint
from mlipdb.trainers.train import TrainResult, train


def tiny_recipe(*settings: str) -> Recipe:
    return load_recipe("nano", settings=[*TINY, *settings])


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """A recipe that compiles in seconds, with settings over it."""
    return tiny_recipe


@pytest.fixture
def listener() -> PlainReporter:
    """A reporter that writes a line for every step; its text is listener.stream."""
    return PlainReporter(io.StringIO(), every=0.0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, TrainResult, str]:
    """A database with the finished run ``whole``, two epochs with a teacher; its result and what it said."""
    db = training_database(tmp_path_factory.mktemp("training") / "db")
    text = io.StringIO()
    reporter = PlainReporter(text, every=0.0)
    result = train(db, "toy", recipe=tiny_recipe(), reporter=reporter, teacher="pair-potential", name="whole")
    return db, result, text.getvalue()


def last_state(folder: Path) -> tuple[Any, ...]:
    """Every array of a run's last checkpoint, and where the training was."""
    place = last_checkpoint(folder)
    document = read_document(place)
    return read_arrays(place, document, "state"), read_arrays(place, document, "model"), document["notes"]


@pytest.fixture(scope="session")
def assert_same_bits() -> Callable[[Path, Path], None]:
    """Holds the last checkpoints of two runs, by their folders, against one another."""

    def compare(first: Path, second: Path) -> None:
        *ones, notes = last_state(first)
        *others, other_notes = last_state(second)
        for one, other in zip(ones, others, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                assert one[name].tobytes() == other[name].tobytes(), name
        assert notes == other_notes

    return compare
