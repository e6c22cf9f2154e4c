"""A small database of mixed structures, and a cheap exact teacher that counts what it is asked."""

import numpy as np
import pytest

import mlipdb
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure
from mlipdb.structures import make_structure
from mlipdb.testing.potential import PairPotential


def random_structure(random):
    """A crystal, slab or molecule of one to six atoms of a few light elements."""
    size = int(random.integers(1, 7))
    kind = int(random.integers(3))
    pbc = [(True, True, True), (True, True, False), (False, False, False)][kind]
    cell = np.diag([4.0, 4.2, 4.4]) + random.normal(scale=0.1, size=(3, 3))
    return make_structure(
        random.choice([1, 6, 8, 14], size),
        random.uniform(0, 4, (size, 3)),
        cell=cell if kind < 2 else None,
        pbc=pbc,
    )


def fill(path, *, count, seed=0, batch=100):
    """A database with that many random structures, each with an energy from its source."""
    random = np.random.default_rng(seed)
    db = mlipdb.create(path)
    source = db.open_source("random", reader="none", uri="made in the test")
    method = db.method_id(Method(kind="dft", name="PBE"))
    records = [
        NewStructure(
            structure=random_structure(random),
            label=Label(energy_uncorrected=float(key)),
            external_id=str(key),
            material=str(key),
        )
        for key in range(count)
    ]
    for start in range(0, count, batch):
        db.append(records[start : start + batch], source_id=source, method_id=method)
    db.close_source(source, state="complete")
    return db


class Counting(PairPotential):
    """The pair potential, remembering every request."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.asked: list[tuple[int, bool, int]] = []  # structures, base, rows

    def label(self, structures, request):
        rows = sum(len(numbers) for numbers in request.hessian_row_numbers)
        self.asked.append((len(structures), request.base, rows))
        return super().label(structures, request)

    @property
    def structures_asked(self):
        return sum(count for count, _, _ in self.asked)

    @property
    def rows_asked(self):
        return sum(rows for _, _, rows in self.asked)


@pytest.fixture
def db(tmp_path):
    return fill(tmp_path / "db", count=40)


@pytest.fixture
def other_db(tmp_path):
    """The same structures in another database."""
    return fill(tmp_path / "other", count=40)


@pytest.fixture
def ids():
    return np.arange(1, 41)


@pytest.fixture
def teacher():
    return Counting()
