import numpy as np
import pytest

import mlipdb
from mlipdb.labels import Label, Method
from mlipdb.records import NewLabel, NewStructure, SpaceGroup, SymmetryTool
from mlipdb.structures import make_structure
from mlipdb.subsets import freeze
from mlipdb.testing.samples import harmonic_label, rock_salt, sample_records, water

PBE = Method(kind="dft", name="PBE/VASP", code="VASP", functional="PBE")
TEACHER = Method(kind="teacher", name="nequix-mp-1", weights_sha256="ab" * 32, dtype="float64")
SYMMETRY = SymmetryTool("moyo", "0.7", 0.01)


def full_label(structure, *, seed=0, hessian=False, **more):
    """A label with every quantity; each number is a random double, so that a lost bit shows."""
    rng = np.random.default_rng(seed)
    natoms = len(structure)
    stress = rng.normal(size=(3, 3)) * 0.01
    values = {
        "energy_uncorrected": -3.0 * natoms + float(rng.normal()),
        "energy_corrected": -3.5 * natoms + float(rng.normal()),
        "free_energy": -3.1 * natoms + float(rng.normal()),
        "energy_zero": -3.2 * natoms + float(rng.normal()),
        "band_gap": float(rng.uniform(0, 8)),
        "forces": rng.normal(size=(natoms, 3)),
        "stress": (stress + stress.T) / 2 if all(structure.pbc) else None,
        "magmoms": rng.normal(size=natoms),
        "properties": {"energy_per_atom": float(rng.normal()), "Ångström's": 1e-300},
    }
    if hessian:
        values["hessian_row_numbers"] = np.arange(3 * natoms, dtype=np.int32)
        values["hessian_rows"] = rng.normal(size=(3 * natoms, natoms, 3))
    return Label(**{**values, **more})


def awkward_records():
    """Structures that formats tend to spoil: charged, without a cell, periodic in two directions, tiny numbers."""
    slab = make_structure(
        [26, 8], [[0, 0, 0], [1.9, 0, 1 / 3]], cell=np.diag([3.0, 3.1, 20.0]), pbc=(True, True, False)
    )
    ion = make_structure([8, 1], [[0.1, 0.2, 0.3], [-1e-17, 1e22, 0.9572]], charge=-1.0, spin_multiplicity=1)
    structures = [rock_salt(39, 9, a=5.1), slab, water(), ion, rock_salt(3, 9, a=4.026, shift=1e-9)]
    for number, structure in enumerate(structures):
        yield NewStructure(
            structure=structure,
            label=full_label(structure, seed=number),
            external_id=f"awkward {number}" if number % 2 else f"mp-{number}",
            material=f"mp-{number}",
            space_group=SpaceGroup(225, "Fm-3m") if all(structure.pbc) else None,
            tags={"subset": 'It\'s "quoted"', "level": "3"} if number else {},
            row=number if number > 1 else None,
        )


@pytest.fixture
def db(tmp_path):
    """Thirty rock salts of one source and five awkward structures of another; half have labels of a teacher, too."""
    database = mlipdb.create(tmp_path / "db")
    pbe = database.method_id(PBE)
    plain = database.open_source("plain", reader="none", uri="plain.json", licence="CC0", citation="Doe (2024)")
    ids = database.append(sample_records(30), source_id=plain, method_id=pbe, symmetry=SYMMETRY)
    database.close_source(plain, state="complete")
    awkward = database.open_source("awkward", reader="none", uri="awkward.json", licence="CC-BY-4.0")
    ids += database.append(list(awkward_records()), source_id=awkward, method_id=pbe)
    database.close_source(awkward, state="complete")
    teacher = database.method_id(TEACHER)
    some = [
        NewLabel(structure_id=i, part=0, label=harmonic_label(database.structure(i), seed=900 + i)) for i in ids[::2]
    ]
    database.append_labels(some, method_id=teacher)
    freeze(database, "everything", filter="all", fractions=(60, 20, 20))
    yield database
    database.close()


@pytest.fixture
def same_structure():
    """Asserts that two structures are equal to the last bit."""

    def check(one, other):
        assert one.atomic_numbers.tolist() == other.atomic_numbers.tolist()
        for name in ("positions", "cell"):
            assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
        for name in ("pbc", "charge", "spin_multiplicity"):
            assert getattr(one, name) == getattr(other, name), name

    return check


@pytest.fixture
def same_label():
    """Asserts that two labels are equal to the last bit, but for the quantities named."""

    def check(one, other, *, but=()):
        for name in Label.__dataclass_fields__:
            if name in ("method", "method_id", *but):
                continue
            mine, theirs = getattr(one, name), getattr(other, name)
            if isinstance(mine, np.ndarray):
                assert theirs is not None, name
                assert mine.dtype == theirs.dtype, name
                assert mine.shape == theirs.shape, name
                assert mine.tobytes() == theirs.tobytes(), name
            else:
                assert mine == theirs, name

    return check


@pytest.fixture
def make_label():
    """Makes a label with every quantity."""
    return full_label
