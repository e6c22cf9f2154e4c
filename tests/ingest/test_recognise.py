import bz2
import gzip
import json
import lzma

import pytest

from mlipdb.errors import IngestError
from mlipdb.ingest.recognise import Recognised, recognise, recognise_all

XYZ = b'1\nLattice="3 0 0 0 3 0 0 0 3" energy=1\nH 0 0 0\n'
VASPRUN = b'<?xml version="1.0"?>\n<modeling>\n <generator>\n  <i name="program" type="string">vasp </i>\n'
OUTCAR = b" vasp.6.3.0 20Jan22 complex\n executed on LinuxIFC\n POTCAR:    PAW_PBE O 08Apr2002\n"
MPTRJ = json.dumps({"mp-1": {"mp-1-0-0": {"structure": {}}}}).encode()
# gzip notes the time; without it every process of a run makes the same bytes, and so the same names of tests.
FILES = [
    ("a.xyz", XYZ, "extxyz", "number of atoms"),
    ("a.xyz.gz", gzip.compress(XYZ, mtime=0), "extxyz", "number of atoms"),
    ("no-suffix", lzma.compress(XYZ), "extxyz", "Lattice"),
    ("plain.xyz", b"2\n\nH 0 0 0\nH 0 0 0.74\n", "extxyz", "an atom"),
    ("MPtrj.json", MPTRJ, "mptrj", "'mp-1-0-0' of material 'mp-1'"),
    (
        "x.json.bz2",
        bz2.compress(b'{"agm1": [{"functional": "PBE", "steps": [{"structure": {}}]}]}'),
        "alexandria",
        "agm1",
    ),
    ("m.json.gz", gzip.compress(b'[{"structure": {}, "matpes_id": "matpes-1"}]', mtime=0), "matpes", "matpes_id"),
    ("t.json", b'{"task_id": "mp-1", "calcs_reversed": []}', "mp-tasks", "calcs_reversed"),
    ("vasprun.xml", VASPRUN, "vasprun", "<modeling>"),
    ("OUTCAR.gz", gzip.compress(OUTCAR, mtime=0), "outcar", "vasp.6.3.0"),
]


def write(folder, **files):
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize(("name", "data", "reader", "word"), FILES, ids=[name for name, *_ in FILES])
def test_a_file_is_recognised_by_its_content_and_the_reason_is_given(tmp_path, name, data, reader, word):
    (tmp_path / name).write_bytes(data)
    found = recognise(tmp_path / name)
    assert found.reader == reader
    assert word in found.reason


UNKNOWN = [b"", b"Dear diary", b"\x00\x01\x02", b"{}", b"[]", b"7\n", gzip.compress(b"?", mtime=0)[:-4]]


@pytest.mark.parametrize("data", UNKNOWN)
def test_an_unknown_file_is_an_error_that_lists_what_was_tried(tmp_path, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(IngestError) as caught:
        recognise(tmp_path / "x")
    message = str(caught.value)
    assert "no format is recognised" in message
    for reader in ("vasprun: XML whose root is <modeling>", "mptrj: Two objects", "extxyz: A number of atoms"):
        assert reader in message


def test_two_formats_that_fit_are_an_error_that_names_both_commands(tmp_path, monkeypatch):
    from mlipdb.ingest.readers.mptrj import MptrjReader

    monkeypatch.setattr(MptrjReader, "claims", lambda self, path, head: "it pleases me")
    (tmp_path / "a.xyz").write_bytes(XYZ)
    with pytest.raises(IngestError, match=r"more than one format fits .*ingest extxyz .* or mlipdb ingest mptrj"):
        recognise(tmp_path / "a.xyz")


def test_a_folder_is_what_its_files_are_and_others_do_not_matter(tmp_path):
    write(tmp_path, README=b"hello", a__one=XYZ, b__two=XYZ)
    found = recognise(tmp_path)
    assert found == Recognised("extxyz", found.reason)
    assert "2 files of its tree" in found.reason
    assert "a/one" in found.reason


def test_a_folder_of_vasp_runs_is_read_by_vasprun_where_each_run_has_one(tmp_path):
    write(tmp_path, r1__vasprun_xml=VASPRUN, r1__OUTCAR=OUTCAR, r1__POTCAR=b"PAW", r2__vasprun_xml=VASPRUN)
    assert recognise(tmp_path).reader == "vasprun"
    write(tmp_path, r3__OUTCAR=OUTCAR)
    with pytest.raises(IngestError, match=r"1 folders have an OUTCAR only \(such as r3\)"):
        recognise(tmp_path)


def test_a_folder_of_several_formats_is_an_error_that_counts_them(tmp_path):
    write(tmp_path, a=XYZ, b=XYZ, c=MPTRJ)
    with pytest.raises(IngestError, match=r"several formats \(2 of extxyz, 1 of mptrj\)"):
        recognise(tmp_path)


def test_a_folder_without_anything_known_is_an_error(tmp_path):
    write(tmp_path, a=b"x")
    with pytest.raises(IngestError, match="no file of this folder is recognised"):
        recognise(tmp_path)


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(IngestError, match="cannot be read"):
        recognise(tmp_path / "nowhere")


def test_several_paths_must_be_of_one_format(tmp_path):
    write(tmp_path, a=XYZ, b=XYZ, c=MPTRJ)
    assert recognise_all([tmp_path / "a", tmp_path / "b"]).reader == "extxyz"
    with pytest.raises(IngestError, match="several formats"):
        recognise_all([tmp_path / "a", tmp_path / "c"])


REAL = [
    ("mattersim-benchmarks/mptrj-random-1k.xyz", "extxyz"),
    ("alexandria-ml-peg/P000.json.bz2", "alexandria"),
    ("derived-containers/MPtrj_2022.9_sample.json.gz", "mptrj"),
    ("derived-containers/matpes_layout_alexandria_300.json.gz", "matpes"),
    ("derived-containers/mixed_800.aselmdb", "aselmdb"),
    ("derived-containers/colabfit_schema_500.parquet", "colabfit"),
    ("derived-containers/lemat_bulk_schema_alexandria_1000.parquet", "lemat"),
    ("derived-containers/spice_layout_dipeptides.hdf5", "spice"),
    ("emmet-mp-tasks/raw", "mp-tasks"),
    ("fairchem/oxides.db", "asedb"),
    ("orb-fixtures/10_thin_mp_traj_systems.db", "asedb"),
    ("nequix/data/mp-149.extxyz", "extxyz"),
    ("sevennet/OUTCARs", "outcar"),
    ("chgnet-vasp/with-magmoms", "vasprun"),
    ("dpdata-vasp/outcar.longit", "outcar"),
    ("phonopy-examples/NaCl/vasprun.xml-001.gz", "vasprun"),
    ("phonondb-mdr/mdr-yaml-example/mp-1000.yaml.bz2", "mdr"),
]


@pytest.mark.parametrize(("name", "reader"), REAL)
def test_real_files_are_recognised(shared_data, name, reader):
    assert recognise(shared_data / name).reader == reader
