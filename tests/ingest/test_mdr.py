import bz2
import io
import itertools
import json
import tarfile

import numpy as np
import pytest

from mlipdb.errors import ConfigError, IngestError
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.mdr import MdrReader
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

K = 2.0  # eV/Å² between the two atoms of the supercell, in each direction
FORCE_CONSTANTS = [[[[K, 0, 0], [0, K, 0], [0, 0, K]], [[-K, 0, 0], [0, -K, 0], [0, 0, -K]]]]
FORCE_CONSTANTS += [FORCE_CONSTANTS[0][::-1]]
POSCAR = "Si\n1.0\n3 0 0\n0 3 0\n0 0 3\nSi\n1\nDirect\n0 0 0\n"
FORCE_SETS = "2\n1\n\n1\n0.0 0.0 0.0625\n0.0 0.0 -0.125\n0.0 0.0 0.125\n"


def cell(*lengths):
    return [[lengths[axis] if axis == other else 0.0 for other in range(3)] for axis in range(3)]


def record(**changes):
    displaced = {"atom": 1, "displacement": [0.0, 0.0, 0.0625], "forces": [[0.0, 0.0, -0.125], [0.0, 0.0, 0.125]]}
    other = {"atom": 1, "displacement": [0.0, 0.0, -0.0625], "forces": [[0.0, 0.0, 0.125], [0.0, 0.0, -0.125]]}
    point = {"symbol": "Si", "mass": 28.0855, "coordinates": [0.0, 0.0, 0.0]}
    unit = {"lattice": cell(3.0, 3.0, 3.0), "points": [point]}
    values = {
        "displacements": [displaced, other],
        "energy": -5.25,  # of the unit cell
        "force_constants": {
            "elements": [FORCE_CONSTANTS[i][j] for i in range(2) for j in range(2)],
            "format": "full",
            "shape": [2, 2],
        },
        "free_e": [1.0, 2.0],
        "phonopy": {"version": "2.29.1"},
        "primitive_matrix": cell(1.0, 1.0, 1.0),
        "supercell": {
            "lattice": cell(6.0, 3.0, 3.0),
            "points": [
                {**point, "reduced_to": 1},
                {**point, "coordinates": [0.5, 0.0, 0.0], "reduced_to": 1},
            ],
        },
        "supercell_matrix": [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
        "unit_cell": unit,
        "volume": 27.0,
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


def text(value, indent=""):
    """YAML in blocks, as the published files have it: every number on a line of its own."""
    if isinstance(value, dict):
        return "".join(f"{indent}{key}:{_after(inner, indent)}" for key, inner in value.items())
    if isinstance(value, list):
        return "".join(f"{indent}-{_nested(inner, indent)}" for inner in value)
    raise TypeError(value)


def _after(value, indent):
    return "\n" + text(value, indent + "  ") if isinstance(value, dict | list) else f" {_plain(value)}\n"


def _nested(value, indent):
    return " " + text(value, indent + "  ").lstrip() if isinstance(value, dict | list) else f" {_plain(value)}\n"


def _plain(value):
    return ".nan" if isinstance(value, float) and np.isnan(value) else value


def write(folder, name="mp-7.yaml.bz2", **changes):
    path = folder / name
    plain = text(record(**changes)).encode()
    path.write_bytes(bz2.compress(plain) if name.endswith("bz2") else plain)
    return path


def tarball(files, mode="w:xz", folder="mp-8-20180417"):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data if isinstance(data, bytes) else data.encode()))
    return packed.getvalue()


def material(**changes):
    return {"POSCAR-unitcell": POSCAR, "phonopy.conf": "DIM = 2 1 1\n", "FORCE_SETS": FORCE_SETS, **changes}


def collection(path, **tarballs):
    path.write_bytes(tarball({f"{name}.tar.lzma": data for name, data in tarballs.items()}, mode="w", folder="."))
    return path


def read(path, **options):
    return list(MdrReader().frames(path, options))


class TestMdr(ReaderConformance):
    reader = MdrReader()
    text = False

    def sample(self, folder):
        return write(folder)

    def first_frame(self):
        rows = np.zeros((6, 2, 3))
        for axis in range(3):
            rows[axis, 0, axis] = rows[3 + axis, 1, axis] = K
            rows[axis, 1, axis] = rows[3 + axis, 0, axis] = -K
        return Frame(
            structure=make_structure([14, 14], [[0, 0, 0], [3, 0, 0]], cell=np.diag([6.0, 3.0, 3.0]), pbc=(True,) * 3),
            # The file's energy is of the unit cell, of which the supercell holds two.
            label=Label(energy_uncorrected=-10.5, hessian_rows=rows, hessian_row_numbers=np.arange(6, dtype=np.int32)),
            external_id="mp-7-supercell",
            material="mp-7",
            location="the file, supercell",
        )


def test_displaced_supercells_have_forces_and_no_energy(tmp_path):
    _, up, down = read(write(tmp_path))
    assert up.label.forces.tolist() == [[0.0, 0.0, -0.125], [0.0, 0.0, 0.125]]
    assert up.structure.positions[0, 2] == 0.0625
    assert (up.label.energy_uncorrected, down.label.energy_uncorrected) == (None, None)
    assert {up.material, down.material} == {"mp-7"}


def test_an_energy_that_is_not_a_number_is_missing(tmp_path):
    assert read(write(tmp_path, energy=float("nan")))[0].label.energy_uncorrected is None


def test_the_official_split_becomes_a_tag(tmp_path):
    splits = tmp_path / "split.json"
    splits.write_text(json.dumps({"train": ["mp-1"], "val": ["mp-7"]}))
    assert {frame.tags["split"] for frame in read(write(tmp_path), keys={"split": str(splits)})} == {"val"}
    assert read(write(tmp_path, "mp-9.yaml"), keys={"split": str(splits)})[0].tags == {}
    with pytest.raises(ConfigError, match="cannot be read as"):
        read(write(tmp_path), keys={"split": str(tmp_path / "missing.json")})
    with pytest.raises(ConfigError, match="--key split=PATH"):
        read(write(tmp_path), keys={"splits": "x"})


def test_compact_force_constants_are_expanded(tmp_path):
    compact = {"elements": FORCE_CONSTANTS[0], "format": "compact", "shape": [1, 2]}
    rows = read(write(tmp_path, force_constants=compact))[0].label.hessian_rows
    assert rows.shape == (6, 2, 3)
    assert rows[5, 1, 2] == K


def test_a_record_without_force_constants_keeps_its_forces_and_energy(tmp_path):
    supercell, *displaced = read(write(tmp_path, force_constants=...))
    assert supercell.label.hessian_rows is None
    assert supercell.label.energy_uncorrected == -10.5
    assert len(displaced) == 2


def test_force_constants_in_one_line_each_are_read_too(tmp_path):
    plain = text(record()).split("force_constants:")[0] + (
        'force_constants:\n  format: "full"\n  shape: [ 2, 2 ]\n  elements:\n'
        "  - # (1, 1)\n    - [ 2.0, 0, 0 ]\n    - [ 0, 2.0, 0 ]\n    - [ 0, 0, 2.0 ]\n"
        "  - # (1, 2)\n    - [ -2.0, 0, 0 ]\n    - [ 0, -2.0, 0 ]\n    - [ 0, 0, -2.0 ]\n"
        "  - # (2, 1)\n    - [ -2.0, 0, 0 ]\n    - [ 0, -2.0, 0 ]\n    - [ 0, 0, -2.0 ]\n"
        "  - # (2, 2)\n    - [ 2.0, 0, 0 ]\n    - [ 0, 2.0, 0 ]\n    - [ 0, 0, 2.0 ]\n"
        "phonopy:" + text(record()).split("phonopy:")[1]
    )
    path = tmp_path / "mp-7.yaml"
    path.write_text(plain)
    assert read(path)[0].label.content_hash == read(write(tmp_path))[0].label.content_hash


def test_a_supercell_that_does_not_fit_is_rejected(tmp_path):
    (bad,) = read(write(tmp_path, supercell_matrix=[[3, 0, 0], [0, 1, 0], [0, 0, 1]]))
    assert isinstance(bad, Rejected)
    assert "which has 3 atoms" in bad.reason


def test_tarballs_of_phonondb_give_hessians_under_pbesol(tmp_path):
    good, broken = tarball(material()), tarball(material(FORCE_SETS="2\n1\n"))
    path = collection(
        tmp_path / "all.tar", **{"materials-id-8": good, "materials-id-9": broken, "materials-id-1": b"x"}
    )
    supercell, displaced, cut, junk = read(path)
    assert (supercell.material, supercell.external_id) == ("mp-8", "mp-8-supercell")
    assert supercell.label.method == Method(kind="dft", name="phonondb PBEsol/VASP", code="VASP", functional="PBEsol")
    assert supercell.label.hessian_rows[2, 0, 2] == pytest.approx(K, abs=1e-9)
    assert displaced.label.forces[1, 2] == 0.125
    assert "was cut" in cut.reason
    assert "damaged" in junk.reason
    assert len(read(path, keys={"hessian": "no"})) == 3
    assert MdrReader().claims(path, path.read_bytes()) is not None


def test_one_tarball_is_a_source_too_and_a_cut_one_an_error(tmp_path):
    path = tmp_path / "materials-id-8-si.tar.lzma"
    path.write_bytes(tarball(material()))
    assert [frame.external_id for frame in read(path)] == ["mp-8-supercell", "mp-8-d0001"]
    assert MdrReader().claims(path, b"") is not None
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(IngestError, match=r"materials-id-8-si\.tar\.lzma: the tar cannot be read on"):
        read(path)


def test_another_tar_is_not_claimed_and_what_it_lacks_is_said(tmp_path):
    path = tmp_path / "other.tar"
    path.write_bytes(tarball({"FORCE_SETS": FORCE_SETS}, mode="w", folder="stuff"))
    assert MdrReader().claims(path, path.read_bytes()) is None
    (bad,) = read(path)
    assert "POSCAR-unitcell, phonopy.conf are not in the tarball" in bad.reason


def test_a_real_record_gives_its_forces_back_from_its_hessian(shared_data):
    splits = shared_data / "nequix" / "data" / "pbe_mdr_split.json"
    path = shared_data / "phonondb-mdr" / "mdr-yaml-example" / "mp-1000.yaml.bz2"
    supercell, *displaced = read(path, keys={"split": str(splits)})
    assert supercell.tags == {"split": "train"}
    assert supercell.label.energy_uncorrected is None  # nan in the file
    hessian = supercell.label.hessian_rows.reshape(192, 192)
    for frame in displaced:
        moved = (frame.structure.positions - supercell.structure.positions).ravel()
        assert np.linalg.norm(hessian @ moved + frame.label.forces.ravel()) < 0.05 * np.linalg.norm(frame.label.forces)


def test_the_first_tarballs_of_the_real_collection_are_read(shared_data):
    path = shared_data / "phonondb-mdr" / "phonondb_20180417_subset.tar"
    items = list(itertools.islice(MdrReader().frames(path, {}), 12))
    assert items[0].material == "mp-25"
    assert len(items[0].structure) == 64
    assert sum(isinstance(item, Frame) for item in items) >= 11
