import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

import mlipdb
from mlipdb.catalog import Material, Quarantine, Source, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError, IngestError, LockedError
from mlipdb.ingest import IngestSettings, describe, ingest, parse_method
from mlipdb.labels import Method

SAMPLE = "derived-containers/MPtrj_2022.9_sample.json.gz"


@pytest.fixture
def db(tmp_path):
    return mlipdb.create(tmp_path / "db")


def run(db, *paths, reader="mptrj", symprec=None, **settings):
    return ingest(db, list(paths), settings=IngestSettings(reader=reader, symprec=symprec, workers=0, **settings))


def counts(report):
    assert report.records == report.taken + report.duplicates + report.quarantined
    return (report.taken, report.duplicates, report.quarantined, report.already_taken)


def rows(db):
    """Everything that ingest wrote, without the ids that depend on how often it was interrupted."""
    with db.session() as session:
        names = {row.id: row.external_id for row in session.scalars(select(StructureRow))}
        source = session.scalars(select(Source)).one()
        stored = (source.taken, source.duplicates, source.quarantined, source.state, source.sha256)
        quarantine = {(row.key, row.location, row.reason) for row in session.scalars(select(Quarantine))}
    found = {}
    for identity, name in names.items():
        entry = db.entry(identity)
        (label,) = db.labels(identity)
        group = (entry.space_group_it_number, entry.space_group_symbol, entry.symmetry)
        found[name] = (entry.material, entry.content_hash, label.content_hash, label.method, group)
    return found, stored, quarantine


def test_every_record_is_taken_or_a_duplicate_or_quarantined(db, small_file, record):
    content = json.loads(small_file.read_text())
    content["mp-1"]["mp-1-1-3"] = record(force=None)
    content["mp-1"]["mp-1-1-4"] = record(force=[[0.0, 0.0], [1.0, 1.0]])
    small_file.write_text(json.dumps(content))
    report = run(db, small_file)
    assert counts(report) == (4, 1, 2, 0)
    assert (report.state, report.structures) == ("complete", 4)
    assert [item.key for item in report.rejected] == ["mp-1-1-3", "mp-1-1-4"]
    assert report.rejected[0].location.startswith("mptrj.json: byte ")
    assert "force" in report.rejected[1].reason
    assert db.source_facts("mptrj")["quarantined"] == 2


def test_what_was_stored_is_what_the_file_says(db, small_file):
    run(db, small_file, method=parse_method("PBE/VASP"))
    identity = db.find("mvc-7-0-1")
    structure, (label,) = db.structure(identity), db.labels(identity)
    assert structure.positions.tolist() == [[0.0, 0.0, 0.0], [2.75, 2.0, 2.0]]
    assert label.energy_uncorrected == -12.0
    assert label.forces.tolist() == [[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]
    assert label.properties["ef_per_atom"] == -3.0
    assert label.method == Method(kind="dft", name="PBE/VASP", functional="PBE", code="VASP")
    assert db.entry(identity).material == "mvc-2"


def test_the_method_is_the_readers_own_by_default(db, small_file):
    run(db, small_file)
    assert [method.name for method in db.methods().values()] == ["MPtrj PBE/VASP"]


@pytest.mark.parametrize("batch", [1, 2, 16384])
def test_a_second_run_changes_nothing(db, small_file, batch):
    run(db, small_file, symprec=1e-2, batch=batch)
    before = rows(db)
    again = run(db, small_file, symprec=1e-2)
    assert counts(again) == (0, 5, 0, 4)
    assert rows(db) == before
    assert before[1][:4] == (4, 1, 0, "complete")


def test_batches_become_shards(db, small_file):
    run(db, small_file, batch=2)
    assert len(list((db.path / "shards").iterdir())) == 3
    assert db.verify(deep=True).ok


def test_a_cut_file_keeps_what_came_before_and_the_whole_file_completes_it(db, small_file, tmp_path):
    data = small_file.read_bytes()
    small_file.write_bytes(data[: len(data) // 2])
    with pytest.raises(IngestError, match=r"byte \d+: the file ends inside a record.*\[taken 2, duplicates 0"):
        run(db, small_file, batch=1)
    assert db.source_facts("mptrj")["state"] == "stopped"
    assert len(db.query("all").ids) == 2
    small_file.write_bytes(data)
    assert counts(run(db, small_file)) == (2, 3, 0, 2)
    whole = mlipdb.create(tmp_path / "whole")
    run(whole, small_file)
    assert rows(db) == rows(whole)


def test_space_groups_are_stored_with_the_tool_and_its_tolerance(db, small_file):
    run(db, small_file, symprec=0.05)
    entry = db.entry(db.find("mp-1-1-0"))
    assert (entry.space_group_it_number, entry.space_group_symbol) == (221, "Pm-3m")
    assert (entry.symmetry.tool, entry.symmetry.symprec) == ("moyopy", 0.05)


def test_without_symmetry_nothing_is_said_of_it(db, small_file):
    run(db, small_file)
    entry = db.entry(db.find("mp-1-1-0"))
    assert (entry.space_group_it_number, entry.symmetry) == (None, None)


def test_the_same_content_in_another_source_is_a_duplicate(db, small_file):
    run(db, small_file)
    assert counts(run(db, small_file, name="copy")) == (0, 5, 0, 0)


def test_the_same_structure_with_another_method_or_label_is_taken(db, small_file, mptrj_file, record):
    run(db, small_file)
    assert counts(run(db, small_file, name="other", method=parse_method("r2SCAN/VASP"))) == (4, 1, 0, 0)
    changed = mptrj_file({"mp-1": {"mp-1-1-0": record(bandgap=0.5)}}, "changed.json")
    assert counts(run(db, changed, name="changed")) == (1, 0, 0, 0)


def test_an_id_that_two_materials_use_is_qualified_the_same_way_in_every_run(db, mptrj_file, record):
    path = mptrj_file(
        {"mp-1": {"mp-9-0-0": record()}, "mp-2": {"mp-9-0-0": record(shift=0.5, mp_id="mp-2")}},
    )
    assert counts(run(db, path)) == (2, 0, 0, 0)
    assert db.entry(db.find("mp-9-0-0")).material == "mp-1"
    assert db.entry(db.find("mp-2/mp-9-0-0")).material == "mp-2"
    assert counts(run(db, path)) == (0, 2, 0, 2)


def test_an_id_used_twice_within_a_material_is_quarantined_not_lost(db, mptrj_file, record):
    text = json.dumps({"mp-1": {"mp-9-0-0": record(), "mp-9-0-1": record(shift=0.5)}}).replace("mp-9-0-1", "mp-9-0-0")
    report = run(db, mptrj_file(text))
    assert counts(report) == (1, 0, 1, 0)
    assert "stands for another structure or label" in report.rejected[0].reason


def test_a_finished_file_that_has_changed_is_refused(db, small_file, record):
    run(db, small_file)
    small_file.write_text(json.dumps({"mp-1": {"mp-1-1-0": record(shift=0.9)}}))
    with pytest.raises(IngestError, match=r"is not the file that source 'mptrj' was made from.*--name"):
        run(db, small_file)
    assert counts(run(db, small_file, name="new")) == (1, 0, 0, 0)


def test_other_settings_under_the_same_name_are_refused(db, small_file):
    run(db, small_file)
    with pytest.raises(ConfigError, match=r"was ingested with method.*another --name"):
        run(db, small_file, method=parse_method("PBE/GPAW"))
    with pytest.raises(ConfigError, match=r"with reader 'mptrj'"):
        run(db, small_file, reader="extxyz", name="mptrj")


def test_a_source_that_got_no_structure_does_not_bind_the_next_try(db, small_file):
    broken = small_file.with_name("broken.json")
    broken.write_text('{"mp-1": {"no frame id": {}}}')
    assert counts(run(db, broken, name="mine")) == (0, 0, 1, 0)
    assert counts(run(db, small_file, name="mine", method=parse_method("PBE/GPAW")))[0] > 0
    assert db.source_facts("mine")["quarantined"] == 0


def test_the_file_hash_licence_and_counts_are_stored(db, small_file):
    report = run(db, small_file, licence="CC0", citation="nobody", version="3")
    facts = db.source_facts("mptrj")
    assert facts["sha256"] == report.sha256["mptrj.json"] == hashlib.sha256(small_file.read_bytes()).hexdigest()
    assert (facts["licence"], facts["citation"], facts["version"]) == ("CC0", "nobody", "3")
    assert (facts["taken"], facts["duplicates"], facts["quarantined"]) == (4, 1, 0)


def xyz(path, *energies):
    path.write_text("".join(f"1\nProperties=species:S:1:pos:R:3 energy={e}\nH 0 0 {e}\n" for e in energies))
    return path


def test_several_files_are_one_source_and_small_ones_share_a_shard(db, tmp_path):
    files = [xyz(tmp_path / f"{name}.xyz", *energies) for name, energies in (("a", (1, 2)), ("b", (3,)))]
    report = run(db, *files, reader="extxyz", name="both")
    assert counts(report) == (3, 0, 0, 0)
    assert len(list((db.path / "shards").iterdir())) == 1
    assert db.entry(db.find("b-0")).material == "both/b-0"
    assert counts(run(db, *files, reader="extxyz", name="both")) == (0, 3, 0, 3)


def test_two_files_of_one_name_are_told_apart_by_their_folders(db, tmp_path):
    (tmp_path / "sub").mkdir()
    files = [xyz(tmp_path / "a.xyz", 1), xyz(tmp_path / "sub" / "a.xyz", 2)]
    assert counts(run(db, *files, reader="extxyz")) == (2, 0, 0, 0)
    assert db.find("sub/a-0") != db.find("a-0")
    with pytest.raises(ConfigError, match="given twice"):
        run(db, files[0], files[0], reader="extxyz")


def test_structures_without_a_label_are_stored_once(db, tmp_path):
    path = tmp_path / "bare.xyz"
    path.write_text("1\n\nH 0 0 1\n1\n\nH 0 0 2\n1\n\nH 0 0 1\n")
    assert counts(run(db, path, reader="extxyz")) == (2, 1, 0, 0)
    assert db.labels(db.find("bare-0")) == []


def test_a_missing_file_is_an_error_before_anything_is_written(db, tmp_path):
    with pytest.raises(IngestError, match="cannot be read"):
        run(db, tmp_path / "nowhere.json")
    with db.session() as session:
        assert session.scalars(select(Source)).all() == []


def test_two_ingests_at_once_are_refused(db, small_file):
    def inside(report):
        with pytest.raises(LockedError):
            run(mlipdb.open(db.path), small_file)

    ingest(db, [small_file], settings=IngestSettings(reader="mptrj", symprec=None), progress=inside)


def test_a_run_that_dies_between_batches_ends_with_the_same_rows(db, small_file, tmp_path, monkeypatch):
    class Power(BaseException):
        pass

    def cut(*args, **kwargs):
        raise Power

    original = Database.append
    calls = []

    def append(self, *args, **kwargs):
        calls.append(1)
        return cut() if len(calls) == 3 else original(self, *args, **kwargs)

    monkeypatch.setattr(Database, "append", append)
    with pytest.raises(Power):
        run(db, small_file, batch=1)
    monkeypatch.undo()
    assert counts(run(db, small_file, batch=1)) == (2, 3, 0, 2)
    whole = mlipdb.create(tmp_path / "whole")
    run(whole, small_file)
    assert rows(db) == rows(whole)


def test_the_report_is_plain_data(db, small_file):
    values = json.loads(json.dumps(describe(run(db, small_file))))
    assert {key: values[key] for key in ("source", "taken", "duplicates", "quarantined", "already_taken")} == {
        "source": "mptrj",
        "taken": 4,
        "duplicates": 1,
        "quarantined": 0,
        "already_taken": 0,
    }


PROGRAM = """
import sys
from pathlib import Path
import mlipdb
from mlipdb.ingest import IngestSettings, ingest
from mlipdb.ingest import reading

class NoChecks:  # they hold samples, with bounds of their own that such a short file does not reach
    frames = 0
    def add(self, summaries): pass
    def findings(self): return []

reading.SourceChecks = NoChecks
db = mlipdb.create(sys.argv[2])
settings = IngestSettings(reader="mptrj", symprec=None, batch=256, workers=0)
report = ingest(db, [Path(sys.argv[1])], settings=settings)
# Not ru_maxrss: that counts what the parent held when it started this process.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(report.taken, peak.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_a_file_of_one_line(tmp_path, record):
    peaks = {}
    for count in (2000, 10000):
        path = tmp_path / f"{count}.json"
        frames = (json.dumps(record(shift=step / 32768, note="x" * 3000)) for step in range(count))
        path.write_text('{"mp-1":{' + ",".join(f'"mp-1-0-{n}":{text}' for n, text in enumerate(frames)) + "}}")
        program = [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / f"db{count}")]
        taken, peak = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
        assert int(taken) == count
        peaks[count] = int(peak) / 1024
    size = (tmp_path / "10000.json").stat().st_size / 2**20
    assert size > 35
    # What grows is SQLite's page cache, to its bound of 64 MB; the 30 MB that one file has more are not in memory.
    assert peaks[10000] - peaks[2000] < 20, f"peak memory in MB {peaks} for a file of {size:.0f} MB"


def test_the_sample_is_ingested_bit_for_bit(db, shared_data):
    """2,305 records of 1,074 materials, against json's own reading of the file."""
    report = run(db, shared_data / SAMPLE)
    assert report.records == 2305
    assert report.taken > 2200
    with gzip.open(shared_data / SAMPLE) as file:
        content = json.load(file)
    known = {key: fields for records in content.values() for key, fields in records.items()}
    with db.session() as session:
        columns = (StructureRow.id, StructureRow.external_id, Material.key)
        rows = session.execute(select(*columns).join(Material).order_by(StructureRow.id)).all()
    assert len(rows) == report.taken
    for (_, name, material), (structure, label) in zip(rows, db.read([row[0] for row in rows]), strict=True):
        fields = known[name]
        assert material == fields["mp_id"]
        assert label.energy_uncorrected == fields["uncorrected_total_energy"]
        assert np.array_equal(label.forces, fields["force"])
        assert np.array_equal(structure.positions, [site["xyz"] for site in fields["structure"]["sites"]])
        np.testing.assert_allclose(label.stress * -1602.1766340, fields["stress"], rtol=1e-14)
    assert len({material for _, _, material in rows}) <= 1074
