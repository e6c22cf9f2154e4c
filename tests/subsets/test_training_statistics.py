import json

import numpy as np
import pytest

import mlipdb
from mlipdb.database import Database
from mlipdb.errors import ConfigError, NotFoundError
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure
from mlipdb.structures import make_structure
from mlipdb.subsets import Request, freeze, given_reference, parse_reference, training_statistics
from mlipdb.subsets.neighbours import count_pairs
from mlipdb.subsets.training_statistics import MixedE0Warning, kept_statistics

E0 = {1: -13.5, 8: -432.25, 39: -9.125}


def box(numbers, number, *, mean=0.25):
    """A molecule in a cell whose energy is the sum of E0 and mean eV an atom."""
    rng = np.random.default_rng(number)
    structure = make_structure(numbers, rng.random((len(numbers), 3)) * 6, cell=6 * np.eye(3), pbc=(True, True, True))
    energy = sum(E0[each] + mean for each in numbers)
    return structure, Label(energy_uncorrected=energy, forces=np.full((len(numbers), 3), 2.0))


def atom(number):
    return make_structure([number], [[0.0, 0, 0]]), Label(energy_uncorrected=E0[number])


def add(db, name, pairs, *, method="PBE"):
    source = db.open_source(name, reader="none", uri="made in the test")
    records = [
        NewStructure(structure=structure, label=label, external_id=f"{name}-{method}-{i}", material=f"{name}-{i}")
        for i, (structure, label) in enumerate(pairs)
    ]
    db.append(records, source_id=source, method_id=db.method_id(Method(kind="dft", name=method)))


@pytest.fixture
def water(tmp_path):
    """Twenty boxes of water and hydrogen of one source, and the isolated atoms of another."""
    db = mlipdb.create(tmp_path / "db")
    add(db, "boxes", [box([8, 1, 1] * (1 + i % 2), i) if i % 4 else box([1, 1], i) for i in range(20)])
    add(db, "atoms", [atom(1), atom(8), (atom(1)[0], Label(energy_uncorrected=-13.0))], method="PBE atoms")
    yield db
    db.close()


@pytest.fixture
def boxes(water):
    return freeze(water, "boxes-only", filter="id<=20", fractions=(100, 0, 0))


@pytest.fixture
def nothing_is_read(monkeypatch):
    def call():
        def refuse(*arguments, **keywords):
            raise AssertionError("a structure was read")

        monkeypatch.setattr(Database, "read", refuse)

    return call


def test_a_fit_finds_the_energies_that_totals_are_made_of(water, boxes):
    found = training_statistics(water, boxes, Request(cutoff=3.0))
    assert (found.structures, found.energies, found.rank, found.elements) == (20, 20, 2, 2)
    assert found.e0 == pytest.approx({1: E0[1] + 0.25, 8: E0[8] + 0.25})
    assert found.mean == pytest.approx(0, abs=1e-9)
    assert found.residual_rms < 1e-9
    assert found.scale == pytest.approx(2.0)


def test_neighbours_are_the_mean_over_structures_of_pairs_per_atom(water, boxes):
    found = training_statistics(water, boxes, Request(cutoff=3.0))
    counts = []
    for structure in water.structures(boxes.ids):
        images = np.array(list(np.ndindex(3, 3, 3))) - 1
        vectors = structure.positions[:, None, None] - structure.positions[None, :, None] - 6.0 * images
        distances = np.linalg.norm(vectors, axis=-1)
        counts.append(((distances < 3) & (distances > 1e-9)).sum() / len(structure))
        assert count_pairs(structure, 3.0) == counts[-1] * len(structure)
    assert found.neighbours == pytest.approx(np.mean(counts))


def test_isolated_atoms_of_another_source_are_the_lowest_of_each_element(water, boxes):
    found = training_statistics(water, boxes, Request(cutoff=None, reference=parse_reference("isolated:atoms")))
    assert found.e0 == {1: E0[1], 8: E0[8]}
    assert found.mean == pytest.approx(0.25)
    assert found.neighbours is None
    assert found.e0_kind == "isolated:atoms"


def of_atoms(db, subset, kind="isolated:atoms"):
    return training_statistics(db, subset, Request(cutoff=None, reference=parse_reference(kind)))


def test_isolated_atoms_of_another_level_of_theory_are_noted(water, boxes):
    found = of_atoms(water, boxes)
    assert found.note == "E0s are single atoms of 'PBE atoms' from source 'atoms', the labels are of 'PBE'"
    request = Request(cutoff=None, reference=parse_reference("isolated:atoms"))
    with pytest.warns(MixedE0Warning, match="single atoms of 'PBE atoms'"):
        assert kept_statistics(water, boxes, request, method_id=1) == found


def test_isolated_atoms_of_the_labels_own_method_are_preferred_and_several_others_refused(water, boxes):
    lower = [(atom(number)[0], Label(energy_uncorrected=E0[number] - 10)) for number in (1, 8)]
    add(water, "two", lower, method="r2SCAN")
    add(water, "two", [(make_structure([n], [[0.0, 0, 1]]), atom(n)[1]) for n in (1, 8)])
    found = of_atoms(water, boxes, "isolated:two")
    assert (found.e0, found.note) == ({1: E0[1], 8: E0[8]}, None)
    add(water, "others", lower, method="r2SCAN")
    add(water, "others", lower[:1], method="PBEsol")
    with pytest.raises(ConfigError, match=r"'others' are of 2 methods \(3: r2SCAN, 4: PBEsol\), none .*\(1: PBE\)"):
        of_atoms(water, boxes, "isolated:others")


def test_isolated_atoms_that_are_missing_are_named(water, boxes):
    with pytest.raises(NotFoundError, match="no isolated-atom energy for H, O; ingest single atoms"):
        training_statistics(water, boxes, Request(reference=parse_reference("isolated")))
    with pytest.raises(NotFoundError, match=r"no source 'atom'\. Did you mean 'atoms'"):
        training_statistics(water, boxes, Request(reference=parse_reference("isolated:atom")))


def test_isolated_atoms_of_the_subset_itself_are_found(tmp_path):
    with_atoms = mlipdb.create(tmp_path / "db")
    add(with_atoms, "all", [*(box([8, 1, 1], i) for i in range(5)), atom(1), atom(8)])
    subset = freeze(with_atoms, "everything", filter="all", fractions=(100, 0, 0))
    found = training_statistics(with_atoms, subset, Request(cutoff=None, reference=parse_reference("isolated")))
    assert found.e0 == {1: E0[1], 8: E0[8]}
    with_atoms.close()


def test_given_energies_come_from_a_file_by_symbol_or_number(water, boxes, tmp_path):
    path = tmp_path / "e0.json"
    path.write_text(json.dumps({"H": -13.0, "8": -432}))
    found = training_statistics(water, boxes, Request(cutoff=None, reference=parse_reference(str(path))))
    assert found.e0 == {1: -13.0, 8: -432.0}
    assert found.e0_kind.startswith("given:")


def test_given_energies_must_cover_the_elements(water, boxes):
    with pytest.raises(NotFoundError, match="the file gives no isolated-atom energy for O"):
        training_statistics(water, boxes, Request(reference=given_reference({"H": -13.0})))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"Hy": 1}', "'Hy' is not an element"),
        ('{"H": "low"}', "must be a number in eV"),
        ("[1]", "E0s are an object"),
        ("{", "is not JSON"),
    ],
)
def test_a_file_of_energies_that_makes_no_sense_says_why(tmp_path, text, message):
    path = tmp_path / "e0.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        parse_reference(str(path))


def test_a_word_that_is_no_kind_of_energies_says_what_is():
    with pytest.raises(ConfigError, match="give fit, isolated, isolated:SOURCE, or a JSON file"):
        parse_reference("fitt")


def test_the_second_call_reads_no_structure(water, boxes, nothing_is_read):
    first = training_statistics(water, boxes, Request(cutoff=3.0))
    nothing_is_read()
    assert training_statistics(water, boxes, Request(cutoff=3.0)) == first


@pytest.mark.parametrize(
    "request_",
    [
        Request(cutoff=4.0),
        Request(cutoff=3.0, reference=given_reference({"H": -13.0, "O": -432.0})),
    ],
)
def test_another_request_is_worked_out_anew(water, boxes, nothing_is_read, request_):
    training_statistics(water, boxes, Request(cutoff=3.0))
    nothing_is_read()
    with pytest.raises(AssertionError, match="a structure was read"):
        training_statistics(water, boxes, request_)


def test_another_split_of_the_same_members_is_another_entry(water):
    one = freeze(water, "one", filter="id<=20", fractions=(50, 25, 25))
    other = freeze(water, "other", filter="id<=20", fractions=(60, 20, 20), seed=2)
    assert one.hash == other.hash
    found = [training_statistics(water, each, Request(cutoff=3.0)).structures for each in (one, other)]
    assert found == [len(one.splits["train"]), len(other.splits["train"])]
    assert found[0] != found[1]


def test_the_same_members_under_another_name_share_what_is_kept(water, boxes, nothing_is_read):
    first = training_statistics(water, boxes, Request(cutoff=3.0))
    again = freeze(water, "again", filter="id<21", fractions=(100, 0, 0))
    nothing_is_read()
    assert training_statistics(water, again, Request(cutoff=3.0)) == first


def test_labels_of_several_methods_are_refused(water):
    subset = freeze(water, "both", filter="all", fractions=(100, 0, 0))
    with pytest.raises(ConfigError, match=r"are of 2 methods \(1: PBE, 2: PBE atoms\)"):
        training_statistics(water, subset, Request())


def test_an_energy_that_no_label_has_is_said(water, boxes):
    with pytest.raises(ConfigError, match="has free_energy; choose another"):
        training_statistics(water, boxes, Request(energy="free_energy"))
    with pytest.raises(ConfigError, match="part 'training' is unknown"):
        training_statistics(water, boxes, Request(part="training"))
