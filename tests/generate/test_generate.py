import sys

import numpy as np
import pytest
import typer
import typer.core
from sqlalchemy import select
from typer.testing import CliRunner

from mlipdb.catalog import StructureTag, Tag
from mlipdb.catalog.lookup import find_external
from mlipdb.cli.app import app
from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.generate import Making, generate
from mlipdb.generate.shortest import radii_sum, shortest_fraction
from mlipdb.structures import make_structure
from mlipdb.subsets.subset import load
from mlipdb.testing.training import training_database


@pytest.fixture
def db(tmp_path):
    return training_database(tmp_path / "db")


@pytest.fixture(autouse=True)
def contexts_are_what_typer_says_they_are(monkeypatch):
    """As in tests/cli: typer declares typer.Context and hands over its base class."""
    for command in (typer.core.TyperCommand, typer.core.TyperGroup):
        monkeypatch.setattr(command, "context_class", typer.Context)


def made(db, name):
    ids = db.query(f'source="{name}"').ids
    return [(db.entry(int(number)), db.structure(int(number))) for number in ids]


def tags_of(db, structure_id):
    with db.session() as session:
        query = select(Tag.name, Tag.value).join(StructureTag, StructureTag.tag_id == Tag.id)
        return {row.name: row.value for row in session.execute(query.where(StructureTag.structure_id == structure_id))}


def parent_of(db, structure_id):
    source, _, external_id = tags_of(db, structure_id)["parent"].partition("/")
    assert source == "toy"
    with db.session() as session:
        return db.structure(find_external(session, external_id))  # Database.find would take it for a number


def test_rattled_structures_are_displaced_by_so_much_and_know_their_parent(db):
    generate(db, Making(kind="rattled", count=200, sigma=0.05), name="shaken", source="all")
    moves = [child.positions - parent_of(db, entry.id).positions for entry, child in made(db, "shaken")]
    spread = np.concatenate([move.ravel() for move in moves])
    assert len(moves) == 200
    assert spread.std() == pytest.approx(0.05, rel=0.1)
    assert abs(spread.mean()) < 0.01


def test_strained_structures_have_a_symmetric_strain_within_the_bound(db):
    generate(db, Making(kind="strained", count=30, strain=0.04), name="strained-ones", source="all")
    for entry, child in made(db, "strained-ones"):
        parent = parent_of(db, entry.id)
        strain = np.linalg.solve(parent.cell, child.cell) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        assert 0 < np.abs(strain).max() <= 0.04
        np.testing.assert_allclose(child.positions, parent.positions @ (np.eye(3) + strain), atol=1e-12)


def test_compressed_structures_have_the_shortest_distance_that_their_tag_says(db):
    generate(db, Making(kind="compressed", count=20, nearest=0.5, farthest=0.8), name="pressed", source="all")
    for entry, child in made(db, "pressed"):
        fraction = float(tags_of(db, entry.id)["fraction"])
        assert 0.5 <= fraction <= 0.8
        assert shortest_fraction(child) == pytest.approx(fraction, rel=1e-4)


def test_dimers_are_every_pair_of_the_elements_in_turn_in_a_box(db):
    generate(db, Making(kind="dimers", count=12, nearest=0.6, farthest=2.0, box=15.0), name="pairs", source="all")
    found = made(db, "pairs")
    assert [entry.chemical_system for entry, _ in found[:6]] == ["H", "C-H", "H-O", "C", "C-O", "O"]
    for entry, dimer in found:
        distance = np.linalg.norm(dimer.positions[1] - dimer.positions[0])
        expected = float(tags_of(db, entry.id)["fraction"]) * radii_sum(*map(int, dimer.atomic_numbers))
        assert distance == pytest.approx(expected, rel=1e-4)
        np.testing.assert_array_equal(dimer.cell, 15.0 * np.eye(3))


def test_dimers_need_no_stored_structure_where_elements_are_given_and_a_box_that_holds_them(db):
    found = generate(db, Making(kind="dimers", count=3, elements=(11, 17)), name="salt")
    assert found.structures == 3
    with pytest.raises(ConfigError, match="too small for a dimer"):
        generate(db, Making(kind="dimers", count=3, elements=(11,), box=2.0), name="tight")


def test_trimers_have_every_atom_between_every_pair_and_none_nearer_than_was_asked_for(db):
    making = Making(kind="trimers", count=36, nearest=0.6, farthest=1.5, box=15.0)
    generate(db, making, name="threes", source="all")
    found = made(db, "threes")
    assert len({entry.material for entry, _ in found}) == 18  # three in the middle, six pairs around
    for entry, trimer in found:
        numbers, places = trimer.atomic_numbers.tolist(), trimer.positions
        pairs = {
            (i, j): np.linalg.norm(places[i] - places[j]) / radii_sum(numbers[i], numbers[j])
            for i, j in ((0, 1), (0, 2), (1, 2))
        }
        assert min(pairs.values()) > 0.6 - 1e-4
        assert max(pairs[0, 1], pairs[0, 2]) < 1.5 + 1e-4
        assert min(pairs[0, 1], pairs[0, 2]) == pytest.approx(float(tags_of(db, entry.id)["fraction"]), rel=1e-4)
    with pytest.raises(ConfigError, match="too small for a trimer"):
        generate(db, Making(kind="trimers", count=3, elements=(11,), box=2.0), name="tight-threes")


def test_a_child_is_of_its_parents_material_so_that_no_split_divides_them(db):
    toy = load(db, "toy")
    generate(db, Making(kind="rattled", count=40), name="family", source="toy")
    learnt = {db.entry(int(number)).material for number in toy.splits["train"]}
    assert {entry.material for entry, _ in made(db, "family")} <= learnt


def test_repeating_it_adds_nothing_and_a_larger_number_only_what_is_missing(db):
    making = Making(kind="rattled", count=5)
    assert generate(db, making, name="again", source="all").fresh == 5
    before = [child.content_hash for _, child in made(db, "again")]
    assert generate(db, making, name="again", source="all").fresh == 0
    assert generate(db, Making(kind="rattled", count=30), name="again", source="all").fresh == 25
    assert [child.content_hash for _, child in made(db, "again")][:5] == before


def test_the_seed_decides_and_a_source_made_otherwise_is_not_added_to(db):
    generate(db, Making(kind="rattled", count=5), name="first", source="all")
    generate(db, Making(kind="rattled", count=5, seed=1), name="second", source="all")
    first, second = ({child.content_hash for _, child in made(db, name)} for name in ("first", "second"))
    assert not first & second
    with pytest.raises(ConfigError, match="made otherwise"):
        generate(db, Making(kind="rattled", count=5, seed=1), name="first", source="all")
    with pytest.raises(ConfigError, match="made otherwise"):
        generate(db, Making(kind="rattled", count=5), name="toy", source="all")


@pytest.mark.parametrize(
    ("settings", "source", "message"),
    [
        ({"kind": "ratled"}, "all", "Did you mean 'rattled'"),
        ({"kind": "rattled", "sigma": 0.0}, "all", "sigma is 0.0"),
        ({"kind": "compressed", "nearest": 2.0}, "all", "nearest 2.0 is above farthest"),
        ({"kind": "rattled"}, None, "--from"),
        ({"kind": "rattled"}, "Xe", "no structure to make rattled of"),
    ],
)
def test_what_cannot_be_made_is_an_error_that_says_why(db, settings, source, message):
    with pytest.raises(ConfigError, match=message):
        generate(db, Making(**{"count": 2, **settings}), name="wrong", source=source)


def test_the_shortest_distance_counts_images_and_radii():
    cubic = make_structure([6], [[0.0, 0.0, 0.0]], cell=3.04 * np.eye(3), pbc=(True,) * 3)
    assert shortest_fraction(cubic) == pytest.approx(2.0)  # carbon's radius is 0.76 Å
    assert shortest_fraction(cubic, reach=0.5) == pytest.approx(2.0)
    assert shortest_fraction(make_structure([6], [[0.0, 0.0, 0.0]])) is None
    molecule = make_structure([1, 8, 1], [[0.97, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.94, 0.0]])
    assert shortest_fraction(molecule) == pytest.approx(1.0)  # O-H 0.66 + 0.31 Å


def test_crystals_without_pyxtal_say_what_to_install(db, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyxtal", None)
    with pytest.raises(MissingExtraError, match=r"mlipdb\[crystals\]"):
        generate(db, Making(kind="crystals", count=1, elements=(11, 17)), name="salts")


def test_crystals_have_a_space_group_and_no_more_atoms_than_asked(db):
    pytest.importorskip("pyxtal")
    generate(db, Making(kind="crystals", count=4, elements=(11, 17), atoms=8), name="salts")
    found = made(db, "salts")
    assert len(found) == len({child.content_hash for _, child in found}) == 4
    for entry, crystal in found:
        assert len(crystal) <= 8
        assert entry.chemical_system in ("Na", "Cl", "Cl-Na")
        assert 2 <= int(tags_of(db, entry.id)["group"]) <= 230


def test_the_command_makes_a_source_that_a_teacher_can_label(db):
    words = ["generate", "rattled", "--from", "toy", "--count", "4", "--name", "by-command", "--sigma", "0.02"]
    done = CliRunner().invoke(app, ["--db", str(db.path), *words])
    assert (done.exit_code, done.stdout.strip()) == (0, "by-command")
    assert len(made(db, "by-command")) == 4
