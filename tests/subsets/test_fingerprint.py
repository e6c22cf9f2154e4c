import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import FingerprintTool, StructureFingerprint
from mlipdb.labels import Method
from mlipdb.records import NewStructure
from mlipdb.structures import Structure, make_structure
from mlipdb.subsets import fingerprint as module
from mlipdb.subsets.fingerprint import fingerprint, stored_fingerprints
from mlipdb.subsets.fingerprint_worker import fingerprints

PERIODIC = (True, True, True)
ROCK_SALT = [[0.0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5] * 3]
ZINC_BLENDE = [*ROCK_SALT[:4], [0.25, 0.25, 0.25], [0.25, 0.75, 0.75], [0.75, 0.25, 0.75], [0.75, 0.75, 0.25]]


def crystal(numbers, fractional, cell):
    cell = np.asarray(cell, dtype=np.float64)
    return make_structure(numbers, np.asarray(fractional) @ cell, cell=cell, pbc=PERIODIC)


def of(*structures: Structure) -> list[str | None]:
    return fingerprints(
        [(s.cell, s.positions, s.atomic_numbers, s.pbc) for s in structures],
        symprec=module.SYMPREC,
        bond=module.BOND,
        lowest_group=module.LOWEST_GROUP,
    )


def cubic(places, *, numbers=(12, 8), a=4.2):
    return crystal([numbers[0]] * 4 + [numbers[1]] * 4, places, a * np.eye(3))


def rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_origin_orientation_order_and_supercell_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    base = cubic(ROCK_SALT)
    turned = rotation(rng)
    shift = rng.random(3) * 4
    repeats = rng.integers(1, 3, 3)
    images = np.array(list(np.ndindex(*repeats)))
    positions = (base.positions[None] + (images @ base.cell)[:, None]).reshape(-1, 3) + shift
    numbers = np.tile(base.atomic_numbers, len(images))
    order = rng.permutation(len(numbers))
    cell = base.cell * repeats[:, None]
    other = make_structure(numbers[order], positions[order] @ turned, cell=cell @ turned, pbc=PERIODIC)
    assert of(base) == of(other)


def test_the_primitive_cell_and_a_compressed_one_have_the_fingerprint_of_the_cube():
    primitive = crystal([12, 8], [[0, 0, 0], [0.5, 0.5, 0.5]], 2.1 * (np.ones((3, 3)) - np.eye(3)))
    assert len(set(of(cubic(ROCK_SALT), primitive, cubic(ROCK_SALT, a=3.8)))) == 1


def test_small_displacements_do_not_matter_but_another_structure_type_does():
    rng = np.random.default_rng(1)
    base = cubic(ROCK_SALT)
    moved = make_structure(
        base.atomic_numbers, base.positions + 0.01 * rng.normal(size=(8, 3)), cell=base.cell, pbc=PERIODIC
    )
    assert of(base) == of(moved)
    assert of(base) != of(cubic(ZINC_BLENDE))
    assert of(base) != of(cubic(ROCK_SALT, numbers=(20, 8)))


def ethanol_like(order):
    """C-C-O-H chain or C-O-C-H, in zigzag; bonds decide which."""
    numbers = {"alcohol": [6, 6, 8, 1], "ether": [6, 8, 6, 1]}[order]
    return make_structure(numbers, [[0, 0, 0], [1.3, 0.5, 0], [2.6, 0, 0], [3.4, 0.6, 0]])


def test_molecules_are_told_apart_by_their_bonds_not_by_their_shape():
    alcohol, ether = ethanol_like("alcohol"), ethanol_like("ether")
    rng = np.random.default_rng(0)
    bent = make_structure(alcohol.atomic_numbers, alcohol.positions + 0.03 * rng.normal(size=(4, 3)))
    mirrored = make_structure(alcohol.atomic_numbers[::-1], alcohol.positions[::-1] * [-1, 1, 1])
    assert len(set(of(alcohol, bent, mirrored))) == 1
    assert of(alcohol) != of(ether)


def test_disordered_frames_of_one_composition_are_not_all_the_same():
    rng = np.random.default_rng(2)
    frames = [crystal([14] * 4 + [8] * 8, rng.random((12, 3)), 6.0 * np.eye(3)) for _ in range(6)]
    assert len(set(of(*frames))) > 4


def test_a_supercell_without_symmetry_has_the_bonds_of_its_cell():
    rng = np.random.default_rng(3)
    base = crystal([14, 8, 8, 1], rng.random((4, 3)), 4.0 * np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
    doubled = make_structure(
        np.tile(base.atomic_numbers, 2),
        np.concatenate([base.positions, base.positions + base.cell[0]]),
        cell=base.cell * [[2], [1], [1]],
        pbc=PERIODIC,
    )
    assert "bonds" in of(base)[0]
    assert of(base) == of(doubled)


def test_slabs_and_wires_have_fingerprints():
    slab = make_structure(
        [6, 6], [[0, 0, 0], [1.42, 0, 0]], cell=[[2.46, 0, 0], [0, 4.2, 0], [0, 0, 0]], pbc=(True, True, False)
    )
    assert "bonds" in of(slab)[0]


@pytest.fixture
def crystals(tmp_path):
    db = mlipdb.create(tmp_path / "db")
    source = db.open_source("made", reader="none", uri="made in the test")
    structures = [cubic(ROCK_SALT), cubic(ROCK_SALT, a=3.9), cubic(ZINC_BLENDE), ethanol_like("ether")]
    records = [
        NewStructure(structure=s, label=None, external_id=f"f{i}", material=f"m{i}") for i, s in enumerate(structures)
    ]
    db.append(records, source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    yield db
    db.close()


def test_fingerprints_are_stored_once_with_their_tool(crystals):
    ids = crystals.query("all").ids
    first = fingerprint(crystals, ids[:2])
    assert (first.structures, first.computed, first.without) == (2, 2, 0)
    assert fingerprint(crystals, ids).computed == 2
    assert fingerprint(crystals, ids).computed == 0
    found = stored_fingerprints(crystals, ids)
    assert found[1] == found[2] != found[3]
    with crystals.session() as session:
        tool = session.scalars(select(FingerprintTool)).one()
    assert "moyopy" in tool.version
    assert "symprec 0.1" in tool.version


def test_another_version_of_a_tool_is_another_tool(crystals, monkeypatch):
    ids = crystals.query("all").ids
    fingerprint(crystals, ids)
    monkeypatch.setattr(module, "SYMPREC", 0.05)
    assert stored_fingerprints(crystals, ids) == {}
    assert fingerprint(crystals, ids).computed == len(ids)
    with crystals.session() as session:
        assert len(session.scalars(select(StructureFingerprint)).all()) == 2 * len(ids)


def test_worker_processes_give_the_same_fingerprints(crystals, monkeypatch):
    ids = crystals.query("all").ids
    fingerprint(crystals, ids, workers=0)
    here = stored_fingerprints(crystals, ids)
    monkeypatch.setattr(module, "TOOL", "the same in processes")
    monkeypatch.setattr(module, "SMALL", 1)
    monkeypatch.setattr(module, "BATCH", 2)
    fingerprint(crystals, ids, workers=1)
    assert stored_fingerprints(crystals, ids) == here
