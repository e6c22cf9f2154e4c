"""What an ingest does with findings, methods of single frames, tags and rows."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import select

import mlipdb
from mlipdb import registry
from mlipdb.catalog import Quarantine, Source, StructureRow
from mlipdb.catalog.finding import FindingRow
from mlipdb.catalog.tag import StructureTag, Tag
from mlipdb.errors import IngestError
from mlipdb.ingest import Frame, IngestSettings, Rejected, describe, ingest
from mlipdb.labels import Label, Method
from mlipdb.structures import make_structure

PBE, SCAN = (Method(kind="dft", name=name, functional=name, code="VASP") for name in ("PBE", "r2SCAN"))


@pytest.fixture
def db(tmp_path):
    return mlipdb.create(tmp_path / "db")


def run(db, path, *, warn=None, **settings):
    chosen = IngestSettings(reader="mptrj", symprec=None, workers=0, **settings)
    return ingest(db, [path], settings=chosen, warn=warn)


@pytest.fixture
def odd_file(mptrj_file, record):
    """Frames whose forces do not sum to zero."""
    force = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    return mptrj_file({"mp-1": {f"mp-1-0-{n}": record(shift=n / 64, force=force) for n in range(40)}})


def stored(db):
    with db.session() as session:
        return {row.check_name: row.message for row in session.scalars(select(FindingRow))}


def test_findings_are_told_before_anything_is_stored_and_kept_with_the_source(db, odd_file):
    told = []

    def warn(findings):
        told.append(([finding.check for finding in findings], len(db.query("all").ids)))

    report = run(db, odd_file, warn=warn)
    checks = [finding.check for finding in report.findings]
    assert checks
    assert told == [(checks, 0)]
    assert sorted(stored(db).values()) == sorted(finding.message for finding in report.findings)
    assert "net_force" in stored(db)
    assert [finding["check"] for finding in json.loads(json.dumps(describe(report)))["findings"]] == checks


def test_a_repeated_ingest_replaces_the_findings_by_the_same(db, odd_file):
    run(db, odd_file)
    before = stored(db)
    run(db, odd_file)
    assert stored(db) == before


def test_findings_of_files_that_are_not_read_again_stay_until_all_files_are_read(db, record, tmp_path):
    def write(name, start, force):
        frames = {f"mp-1-0-{start + n}": record(shift=(start + n) / 64, force=force) for n in range(40)}
        (tmp_path / name).write_text(json.dumps({"mp-1": frames}))
        return tmp_path / name

    def take(*paths):
        ingest(db, paths, settings=IngestSettings(reader="mptrj", symprec=None, workers=0))
        with db.session() as session:
            rows = session.scalars(select(FindingRow).where(FindingRow.check_name.startswith("net_force")))
            return {row.check_name: (row.details["files"]["first"], row.details["files"]["count"]) for row in rows}

    odd = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    first, second = write("a.json", 0, odd), write("b.json", 40, odd)
    even = write("c.json", 80, [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    assert take(first) == {"net_force": ("a.json", 1)}
    assert take(even) == {"net_force": ("a.json", 1)}
    assert take(second) == {"net_force": ("a.json", 1), "net_force 2": ("b.json", 1)}
    assert take(first) == {"net_force": ("a.json", 1), "net_force 2": ("b.json", 1)}
    assert take(first, second, even) == {"net_force": ("a.json", 3)}


def test_findings_of_an_ingest_that_stops_are_kept_until_the_mended_file_is_read(db, odd_file):
    whole = odd_file.read_bytes()
    for part in (0.6, 0.8):  # it stops twice, the second time later
        odd_file.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(IngestError, match="taken"):
            run(db, odd_file)
        kept = stored(db)
        assert [name for name in kept if "net_force" in name] == ["net_force"]
    odd_file.write_bytes(whole)
    report = run(db, odd_file)
    assert stored(db) == {finding.check: finding.message for finding in report.findings}
    assert stored(db)["net_force"] != kept["net_force"]


def test_strict_refuses_a_source_with_findings_and_stores_nothing(db, odd_file):
    with pytest.raises(IngestError, match=r"source 'mptrj' has \d+ finding.*nothing was stored") as caught:
        run(db, odd_file, strict=True)
    assert "net_force" in str(caught.value)
    with db.session() as session:
        assert session.scalars(select(Source)).all() == []
    assert not list(db.path.glob("shards/*"))


def test_strict_takes_a_source_without_findings(db, root):
    report = run(db, root / "mlipdb" / "data" / "gpaw-pbe-sample.json.gz", strict=True)
    assert report.taken > 200
    assert report.findings == []


class TwoMethods:
    """A line is a place, a method and an id."""

    name: ClassVar[str] = "two-methods"
    suffixes: ClassVar[tuple[str, ...]] = (".txt",)

    def claims(self, path: Path, head: bytes) -> str | None:
        return None

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame]:
        for number, line in enumerate(path.read_text().splitlines()):
            place, method, name = line.split()
            yield Frame(
                structure=make_structure([1], [[0.0, 0.0, float(place)]]),
                label=Label(energy_uncorrected=-1.0, method={"pbe": PBE, "scan": SCAN}.get(method)),
                external_id=name,
                material=f"material {place}",
                location=f"line {number}",
                tags={"split": "train" if number % 2 else "test"},
                row=number,
            )


@pytest.fixture
def two(db, tmp_path, monkeypatch):
    def run_lines(*lines):
        path = tmp_path / "two.txt"
        path.write_text("\n".join(lines))
        settings = IngestSettings(
            reader="two-methods", name="two", symprec=None, workers=0, method=Method(kind="dft", name="own")
        )
        return ingest(db, [path], settings=settings)

    monkeypatch.setattr(registry, "load", lambda group, name: TwoMethods)
    return run_lines


def test_a_frame_is_stored_under_the_method_that_its_label_names(db, two):
    assert two("1 pbe a", "2 scan b", "3 - c").taken == 3
    made = {name: [label.method.name for label in db.labels(db.find(name))] for name in "abc"}
    assert made == {"a": ["PBE"], "b": ["r2SCAN"], "c": ["own"]}


def test_a_label_of_another_method_is_no_duplicate_and_of_the_same_one_is(db, two):
    report = two("1 pbe a", "1 scan b", "1 pbe c", "1 scan d", "1 - e")
    assert (report.taken, report.duplicates) == (3, 2)
    again = two("1 pbe a", "1 scan b", "1 pbe c", "1 scan d", "1 - e")
    assert (again.taken, again.duplicates, again.already_taken) == (0, 5, 3)


class LongNames(TwoMethods):
    """A line is a length of the frame's names."""

    def frames(self, path: Path, options: Mapping[str, Any]) -> Iterator[Frame | Rejected]:
        for number, size in enumerate(map(int, path.read_text().split())):
            name = f"{number}{'[C:1]' * size}"[:size]
            structure = make_structure([1], [[0.0, 0.0, float(number)]])
            yield Frame(structure=structure, label=None, external_id=name, material=name, location=name,
                        tags={"smiles": name})  # fmt: skip
            yield Rejected(key=name, location=name, reason=name)


@pytest.mark.parametrize("catalog", ["sqlite", "postgresql"])
def test_names_of_900_letters_are_stored_and_those_no_index_holds_quarantined(tmp_path, monkeypatch, request, catalog):
    place = "catalog.sqlite" if catalog == "sqlite" else request.getfixturevalue("postgresql_url")
    monkeypatch.setattr(registry, "load", lambda group, name: LongNames)
    (tmp_path / "long.txt").write_text("900 1900 3000")
    db = mlipdb.create(tmp_path / "long", catalog=place)
    settings = IngestSettings(reader="long", symprec=None, workers=0)
    for _ in range(2):
        report = ingest(db, [tmp_path / "long.txt"], settings=settings)
    assert (report.structures, report.quarantined) == (2, 4)
    with db.session() as session:
        sizes = [len(value) for value in session.scalars(select(Tag.value).order_by(Tag.id))]
        kept = sorted((len(row.key), row.reason[:18]) for row in session.scalars(select(Quarantine)))
    assert sizes == [900, 1900]
    assert kept == [(900, "0[C:1][C:1][C:1][C"), (1000, "1[C:1][C:1][C:1][C"), (1000, "2[C:1][C:1][C:1][C")]
    assert len(db.query(f'tags HAS "smiles={"0" + "[C:1]" * 179 + "[C:1"}"')) == 1
    db.close()


def test_tags_and_rows_are_stored(db, two):
    two("1 pbe a", "2 scan b", "3 - c")
    with db.session() as session:
        columns = select(StructureRow.external_id, StructureRow.source_row, Tag.name, Tag.value)
        joined = columns.join(StructureTag, StructureTag.structure_id == StructureRow.id).join(Tag)
        found = session.execute(joined.order_by(StructureRow.id)).all()
    assert [tuple(row) for row in found] == [
        ("a", 0, "split", "test"),
        ("b", 1, "split", "train"),
        ("c", 2, "split", "test"),
    ]
