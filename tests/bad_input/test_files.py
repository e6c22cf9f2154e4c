"""Files of every format with something wrong in them: what is refused, what is kept, and what a person is told.

A record that makes no sense goes to quarantine with its reason; what came before a file's end is kept; nothing else is.
"""

import bz2
import gzip
import json
import shutil
import sqlite3

import pytest
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import Quarantine, StructureRow


def text(old, new, count=1):
    """Replace a part of a text file, in its first places."""

    def edit(path):
        data = path.read_bytes()
        assert old.encode() in data, f"{old!r} is not in the sample"
        path.write_bytes(data.replace(old.encode(), new.encode(), count))

    return edit


def cut(part):
    """Leave the first part of the file."""

    def edit(path):
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])

    return edit


def content(data):
    """Other bytes altogether."""
    return lambda path: path.write_bytes(data)


def record(change):
    """Change the JSON of a file."""

    def edit(path):
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return edit


def hdf5(change):
    def edit(path):
        import h5py

        with h5py.File(path, "r+") as file:
            change(file)

    return edit


def sql(statement):
    def edit(path):
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    return edit


def table(change):
    """Change a Parquet file's table."""

    def edit(path):
        import pyarrow.parquet as parquet

        parquet.write_table(change(parquet.read_table(path)), path)

    return edit


def packed(change):
    """Change the text inside a .bz2."""
    return lambda path: path.write_bytes(bz2.compress(change(bz2.decompress(path.read_bytes()).decode()).encode()))


def first_frame(values):
    return next(iter(next(iter(values.values())).values()))


def zipped_half(path):
    path.write_bytes(gzip.compress(path.read_bytes() * 50)[:300])


# (what is wrong, reader, the damage, parts of what is told, how many structures are taken, exit code)
STOPPED, QUARANTINED = 1, 0
CASES = [
    # MPtrj
    ("cut off", "mptrj", cut(0.6), ("sample.json", "byte"), 2, STOPPED),
    ("empty", "mptrj", content(b""), ("sample.json",), 0, STOPPED),
    ("not JSON", "mptrj", content(b"<html>404</html>"), ("sample.json",), 0, STOPPED),
    ("a cut .gz", "mptrj", zipped_half, ("sample.json",), 0, STOPPED),
    ("forces of another count", "mptrj", text('"force": [[0.125, -0.25, 0.5], ', '"force": ['),
     ("force has 1 rows for 2 sites", "mp-1-0-0"), 3, QUARANTINED),
    ("an element that is none", "mptrj", text('"Mg"', '"Qq"'), ("Qq",), 3, QUARANTINED),
    ("an energy that is text", "mptrj", text("-11.25", '"-11.25"'), ("uncorrected_total_energy",), 3, QUARANTINED),
    ("a position that is not a number", "mptrj", text("[2.0, 2.0, 2.0]", '[2.0, "x", 2.0]'), ("mp-1-0-0",), 3,
     QUARANTINED),
    ("a flat cell", "mptrj", text("[0.0, 0.0, 4.0]", "[0.0, 0.0, 0.0]"), ("lattice",), 3, QUARANTINED),
    ("a frame id of another shape", "mptrj", text('"mp-1-0-0"', '"frame"'), ("'frame' is not task_id-calc_id",), 3,
     QUARANTINED),
    ("no structure", "mptrj", record(lambda v: first_frame(v).pop("structure")), ("structure",), 3, QUARANTINED),
    # extended XYZ
    ("cut off", "extxyz", cut(0.7), ("sample.extxyz", "line"), 2, STOPPED),
    ("a count that is no number", "extxyz", text("2\n", "two\n"), ("sample.extxyz", "line 1"), 0, STOPPED),
    ("an element that is none", "extxyz", text("H 0.0", "Qq 0.0"), ("'Qq'", "not an element"), 2, QUARANTINED),
    ("a row with a column too few", "extxyz", text(" 0.1 0.2 0.3 0.25", " 0.1 0.2 0.3"), ("columns",), 2, QUARANTINED),
    ("an energy that is NaN", "extxyz", text("energy=-1 ", "energy=nan "), ("finite",), 2, QUARANTINED),
    ("a lattice of eight numbers", "extxyz", text("0.0 2.0\"", '0.0"'), ("Lattice",), 2, QUARANTINED),
    ("positions that overflow", "extxyz", text("O 0.5", "O 1e999"), ("finite",), 2, QUARANTINED),
    # ASE databases
    ("cut off", "asedb", cut(0.5), ("sample.db",), 0, STOPPED),
    ("not a database", "asedb", content(b"hello" * 100), ("sample.db",), 0, STOPPED),
    ("no table of systems", "asedb", sql("DROP TABLE systems"), ("sample.db",), 0, STOPPED),
    ("numbers that are no array", "asedb", sql("UPDATE systems SET numbers = x'00' WHERE id = 1"), ("row 1",), 2,
     QUARANTINED),
    ("cut off", "aselmdb", cut(0.5), ("sample.aselmdb", "again"), 0, STOPPED),
    ("not LMDB", "aselmdb", content(b"\0" * 20000), ("sample.aselmdb",), 0, STOPPED),
    # SPICE
    ("cut off", "spice", cut(0.5), ("sample.hdf5", "cut"), 0, STOPPED),
    ("not HDF5", "spice", content(b"PK\3\4" * 50), ("sample.hdf5",), 0, STOPPED),
    ("a unit that is none", "spice", hdf5(lambda f: f["hydroxide/conformations"].attrs.modify("units", "furlong")),
     ("'furlong'", "--unit positions"), 0, STOPPED),
    ("no unit", "spice", hdf5(lambda f: f["hydroxide/dft_total_gradient"].attrs.pop("units")),
     ("no attribute units", "--unit forces"), 0, STOPPED),
    ("no conformations", "spice", hdf5(lambda f: f.pop("hydroxide/conformations")), ("no conformations",), None,
     QUARANTINED),
    # Parquet
    ("cut off", "colabfit", cut(0.6), ("sample.parquet",), 0, STOPPED),
    ("a missing column", "colabfit", table(lambda t: t.drop(["positions"])), ("positions",), 0, STOPPED),
    ("not Parquet", "lemat", content(b"PAR1" + b"x" * 500 + b"PAR1"), ("sample.parquet",), 0, STOPPED),
    ("a missing column", "lemat", table(lambda t: t.drop(["species_at_sites"])), ("species_at_sites",), 0, STOPPED),
    # VASP
    ("cut off", "vasprun", cut(0.6), ("vasprun.xml", "line"), None, STOPPED),
    ("not VASP's", "vasprun", content(b"<?xml version='1.0'?><svg/>"), ("vasprun.xml",), 0, STOPPED),
    ("a number too large to print", "vasprun", text("0.125 -0.25 0.5 ", "****** -0.25 0.5 "), ("***",), 5, QUARANTINED),
    ("no <atominfo>", "vasprun", text("<atominfo>", "<atoms>"), ("vasprun.xml",), 0, None),
    ("cut off", "outcar", cut(0.6), ("OUTCAR", "line"), None, STOPPED),
    ("not VASP's", "outcar", content(b"Hello\n" * 30), ("OUTCAR",), 0, STOPPED),
    ("ions of another count", "outcar", text("NIONS =      3", "NIONS =      4"),
     ("3 ions", "4 ions", "read vasprun.xml"), 0, QUARANTINED),
    ("electrons that did not converge", "outcar", text("NELM   =      4", "NELM   =      2"), ("not converged",), None,
     QUARANTINED),
    # JSON of the large sets
    ("cut off", "matpes", cut(0.6), ("MatPES-R2SCAN-2025.2.json", "byte"), None, STOPPED),
    ("stress of five numbers", "matpes", text("[16.0, -8.0, 4.0, 1.0, 2.0, -3.0]", "[16.0, -8.0, 4.0, 1.0, 2.0]"),
     ("six numbers",), None, QUARANTINED),
    ("no id", "matpes", record(lambda v: v[0].pop("matpes_id")), ("matpes_id is missing",), None, QUARANTINED),
    ("cut off", "alexandria", cut(0.5), ("alex_go_aao_000.json", "byte"), None, STOPPED),
    ("forces of another count", "alexandria",
     text('"forces": [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]', '"forces": [[0.125, -0.25, 0.5]]'),
     ("agm1-0-0", "forces has shape (1, 3) for 2 atoms"), 4, QUARANTINED),
    ("cut off", "mp-tasks", cut(0.5), ("tasks.json", "byte"), None, STOPPED),
    ("no calculations", "mp-tasks", record(lambda v: v[0].pop("calcs_reversed")), ("calcs_reversed",), None,
     QUARANTINED),
    # Phonons
    ("no supercell matrix", "mdr", packed(lambda t: t.replace("supercell_matrix", "super_matrix")), ("mp-7.yaml.bz2",),
     0, None),
    ("a cut .bz2", "mdr", cut(0.5), ("mp-7.yaml.bz2",), 0, STOPPED),
    ("cut off", "phonopy", cut(0.6), ("phonopy_disp.yaml",), 0, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reader", "damage", "parts", "taken", "code"),
    [case[1:] for case in CASES],
    ids=[f"{case[1]}: {case[0]}" for case in CASES],
)
def test_a_bad_file_says_what_is_wrong_and_only_good_records_are_kept(
    empty, command, rows, sample_files, tmp_path, reader, damage, parts, taken, code
):
    sample = sample_files[reader]
    path = tmp_path / sample.path.name
    (shutil.copytree if sample.path.is_dir() else shutil.copy)(sample.path, path)
    damage(path / sample.file.relative_to(sample.path))
    units = [f"--unit={name}={unit}" for name, unit in sample.options.get("units", {}).items()]
    ended, shown, talk = command(
        "--db", empty, "ingest", reader, path, "--name", "bad", "--no-symmetry", "--workers", 0, *units
    )
    told = shown + talk
    if code is not None:
        assert ended == code, told
    if ended:
        assert sum(line.startswith("error: ") for line in talk.splitlines()) == 1, told
        assert path.name in talk, f"the error does not name the file: {talk}"
    else:
        assert "quarantined" in shown
    for part in parts:
        assert part in told, f"{part!r} is not in: {told}"
    rows(empty)  # every record decodes, every shard is known
    db = mlipdb.open(empty)
    with db.session() as session:
        stored = list(session.scalars(select(StructureRow.external_id)))
        refused = list(session.scalars(select(Quarantine.key)))
    db.close()
    assert ended or refused, told
    assert not set(stored) & set(refused)
    if taken is not None:
        assert len(stored) == taken, told
