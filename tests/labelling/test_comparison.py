"""What is wrong with labels is found, named, and found nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

import mlipdb
from mlipdb.errors import NotFoundError
from mlipdb.labelling.comparison import compare_labels
from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure
from mlipdb.structures import make_structure
from mlipdb.testing.potential import PairPotential

OFFSETS = {1: 0.7, 6: 3.0, 8: -1.0}  # eV per atom by which the source's zero differs from the teacher's
STRUCTURES, ROWS = 40, 6


def crystal(number):
    """Four atoms of H, C and O near the points of a face-centred cube, fixed by the number."""
    random = np.random.default_rng(number)
    edge = 4.0 + 0.03 * (number % 10)
    corners = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]) * edge
    positions = corners + random.normal(scale=0.15, size=(4, 3))
    return make_structure(random.choice([1, 6, 8], 4), positions, cell=edge * np.eye(3), pbc=(True, True, True))


def exact(structures):
    """Labels of a potential known exactly, with rows of its Hessian."""
    rows = [np.random.default_rng(n).permutation(12)[:ROWS].astype(np.int32) for n in range(len(structures))]
    return PairPotential().label(structures, LabelRequest(base=True, hessian_row_numbers=rows))


@pytest.fixture
def compare(tmp_path):
    """Compares the source (the potential with other zeros, no rows) with a teacher that a function makes of it."""

    def made(change=lambda label, structure: label, **options):
        db = mlipdb.create(tmp_path / "db")
        structures = [crystal(number) for number in range(STRUCTURES)]
        labels, records = exact(structures), []
        for key, (structure, label) in enumerate(zip(structures, labels, strict=True)):
            shift = sum(OFFSETS[number] for number in structure.atomic_numbers.tolist())
            source = Label(
                energy_uncorrected=label.energy_uncorrected + shift, forces=label.forces, stress=label.stress
            )
            records.append(NewStructure(structure=structure, label=source, external_id=str(key), material=str(key)))
        dft = db.method_id(Method(kind="dft", name="PBE"))
        ids = db.append(records, source_id=db.open_source("made", reader="none", uri="here"), method_id=dft)
        taught = [change(label, structure) for label, structure in zip(labels, structures, strict=True)]
        teacher = db.method_id(Method(kind="teacher", name="toy"))
        new = [
            NewLabel(structure_id=identity, part=0, label=label) for identity, label in zip(ids, taught, strict=True)
        ]
        db.append_labels(new, method_id=teacher)
        return compare_labels(db, "source", "toy", **options)

    return made


def line_of(found, quantity):
    [line] = [line for line in found.lines if line.quantity == quantity]
    return line


def scaled(name, factor):
    return lambda label, structure: replace(label, **{name: getattr(label, name) * factor})


def test_good_labels_pass_and_only_the_zero_of_energy_is_remarked(compare):
    found = compare()
    assert found.ok
    assert (found.first, found.second, found.structures, found.sampled) == ("source", "toy (2)", STRUCTURES, STRUCTURES)
    verdicts = {line.quantity: line.verdict for line in found.lines}
    assert verdicts.pop("energy as stored") == "poor"
    assert "composition explains" in line_of(found, "energy as stored").words
    assert set(verdicts.values()) == {"good"}
    assert set(verdicts) == {
        "energy, aligned by element", "forces", "stress", "sum of atomic energies", "Hessian symmetry", "acoustic sum",
        "curvature at minima",
    }  # fmt: skip


def test_the_constants_of_the_alignment_are_those_between_the_zeros(compare):
    constants = compare().constants
    assert constants == pytest.approx({number: -offset for number, offset in OFFSETS.items()})


def test_numbers_are_those_that_were_put_in(compare):
    found = compare(lambda label, _: replace(label, forces=label.forces + 0.02))
    forces = line_of(found, "forces")
    assert (forces.structures, forces.values) == (STRUCTURES, STRUCTURES * 12)
    assert (forces.mae, forces.rmse) == (pytest.approx(0.02), pytest.approx(0.02))
    assert forces.verdict == "good"


@pytest.mark.parametrize(
    ("change", "quantity", "words"),
    [
        (scaled("forces", -1.0), "forces", "the sign is turned"),
        (scaled("forces", 51.4), "forces", "hartree/bohr"),
        (scaled("forces", 1 / 51.4), "forces", "hartree/bohr"),
        (scaled("forces", 23.06), "forces", "kcal/mol"),
        (scaled("forces", 0.0), "forces", "hardly related"),
        (scaled("stress", -1.0), "stress", "the sign is turned"),
        (scaled("stress", 160.2), "stress", "GPa"),
        (scaled("stress", -1602.2), "stress", "the sign is turned, and a factor of 1602, as between eV/Å³ and kbar"),
        (scaled("hessian_rows", -1.0), "curvature at minima", "the sign is turned"),
    ],
)
def test_a_wrong_unit_or_sign_is_named_and_nothing_else_fails(compare, change, quantity, words):
    found = compare(change)
    assert [line.quantity for line in found.failures] == [quantity]
    assert words in found.failures[0].words


def test_a_stress_times_the_volume_is_recognised(compare):
    found = compare(lambda label, structure: replace(label, stress=label.stress * structure.volume))
    assert [line.words for line in found.failures] == ["the second seems to be multiplied by the volume"]


def test_energies_in_hartree_fail_although_constants_per_element_hide_most_of_it(compare):
    def change(label, structure):
        return replace(label, energy_uncorrected=label.energy_uncorrected / 27.2114, atomic_energies=None,
                       atomic_energies_include_e0=None)  # fmt: skip

    [line] = compare(change).failures
    assert line.quantity == "energy, aligned by element"
    assert "hartree" in line.words


def test_labels_of_other_structures_are_hardly_related(compare):
    other = iter(np.random.default_rng(5).normal(size=(STRUCTURES, 4, 3)))
    found = compare(lambda label, _: replace(label, forces=next(other)))
    assert [line.quantity for line in found.failures] == ["forces"]
    assert "hardly related" in found.failures[0].words


def test_rows_under_wrong_numbers_are_not_symmetric(compare):
    found = compare(lambda label, _: replace(label, hessian_row_numbers=np.roll(label.hessian_row_numbers, 1)))
    assert "Hessian symmetry" in [line.quantity for line in found.failures]


def test_rows_that_do_not_sum_to_zero_fail(compare):
    def change(label, structure):
        rows = label.hessian_rows.copy()
        rows[np.arange(ROWS), label.hessian_row_numbers // 3, label.hessian_row_numbers % 3] += 2.0
        return replace(label, hessian_rows=rows)

    assert [line.quantity for line in compare(change).failures] == ["acoustic sum"]


def test_atomic_energies_of_another_convention_than_they_say_fail(compare):
    def change(label, structure):
        return replace(label, atomic_energies=label.atomic_energies + structure.atomic_numbers)

    assert [line.quantity for line in compare(change).failures] == ["sum of atomic energies"]


def test_atomic_energies_without_e0_may_differ_by_a_constant_per_element(compare):
    def change(label, structure):
        atomic = label.atomic_energies + structure.atomic_numbers
        return replace(label, atomic_energies=atomic, atomic_energies_include_e0=False)

    found = compare(change)
    assert found.ok
    assert line_of(found, "sum of atomic energies").verdict == "good"


def test_a_softer_potential_is_poor_and_not_wrong(compare):
    found = compare(scaled("forces", 0.65))
    assert (line_of(found, "forces").verdict, line_of(found, "forces").words) == ("poor", "softer than the first")
    assert found.ok


def test_one_huge_structure_does_not_decide_the_slope(compare):
    def change(label, structure):
        return label if structure.content_hash != crystal(3).content_hash else replace(label, forces=-label.forces)

    assert compare(change).ok


def test_a_handful_of_structures_decides_nothing(compare):
    found = compare(scaled("forces", -1.0), sample=3)
    assert found.sampled == 3
    assert line_of(found, "forces").verdict == "unknown"
    assert found.ok


def test_rows_that_both_gave_are_compared(tmp_path, compare):
    compare()
    db = mlipdb.open(tmp_path / "db")
    other = db.method_id(Method(kind="teacher", name="other"))
    labels = [replace(found, hessian_rows=1.1 * found.hessian_rows) for _, found in db.read(range(1, 41), method_id=2)]
    new = [NewLabel(structure_id=n, part=0, label=label) for n, label in enumerate(labels, start=1)]
    db.append_labels(new, method_id=other)
    line = line_of(compare_labels(db, "toy", "other"), "Hessian rows")
    assert (line.slope, line.values, line.verdict) == (pytest.approx(1.1), STRUCTURES * ROWS * 12, "good")


def test_sources_of_several_methods_are_remarked(tmp_path, compare):
    compare()
    db = mlipdb.open(tmp_path / "db")
    [label] = exact([crystal(99)])
    record = NewStructure(structure=crystal(99), label=label, external_id="x", material="x")
    [fresh] = db.append([record], source_id=1, method_id=db.method_id(Method(kind="dft", name="SCAN")))
    db.append_labels([NewLabel(structure_id=fresh, part=0, label=label)], method_id=2)
    [note] = compare_labels(db, "source", "toy").notes
    assert "2 methods (PBE (1), SCAN (3))" in note


def test_methods_without_common_structures_are_an_error(tmp_path, compare):
    compare()
    db = mlipdb.open(tmp_path / "db")
    db.method_id(Method(kind="teacher", name="idle"))
    with pytest.raises(NotFoundError, match=r"none of 40 structures has labels of both source and idle"):
        compare_labels(db, "source", "idle")
