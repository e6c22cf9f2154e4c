"""Databases that are not there, damaged, swapped, of another version or without their shards."""

import shutil
import sqlite3
import subprocess
import sys

import pytest

import mlipdb
from mlipdb.store.lock import WriterLock


def shard(path):
    return next((path / "shards").glob("structures-*"))


def run_sql(path, *statements):
    connection = sqlite3.connect(path / "catalog.sqlite")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def no_manifest(path):
    (path / "mlipdb.toml").unlink()


def damaged_manifest(path):
    (path / "mlipdb.toml").write_text("uuid = \n")


def manifest_without_uuid(path):
    (path / "mlipdb.toml").write_text('format = 1\ncatalog = "catalog.sqlite"\n')


def newer_manifest(path):
    text = (path / "mlipdb.toml").read_text()
    (path / "mlipdb.toml").write_text(text.replace("format = 1", "format = 99"))


def other_uuid(path):
    run_sql(path, "UPDATE catalog_info SET uuid = '11111111-2222-3333-4444-555555555555'")


def newer_schema(path):
    run_sql(path, "UPDATE alembic_version SET version_num = '9999'")


def older_schema(path):
    run_sql(path, "UPDATE alembic_version SET version_num = '0001'")


def no_catalog(path):
    (path / "catalog.sqlite").unlink()


def cut_shard(path):
    shard(path).write_bytes(shard(path).read_bytes()[:8192])


def no_shard(path):
    shard(path).unlink()


def flipped_shard(path):
    data = bytearray(shard(path).read_bytes())
    data[data.rfind(b"Ml") + 20] ^= 1
    shard(path).write_bytes(data)


CASES = [
    ("no manifest", no_manifest, ("query",), ("is not an mlipdb database (no mlipdb.toml)", "mlipdb --db", "ingest")),
    ("a damaged manifest", damaged_manifest, ("query",), ("mlipdb.toml is damaged", "backup")),
    ("a manifest without its uuid", manifest_without_uuid, ("query",), ("mlipdb.toml is damaged", "uuid")),
    ("a manifest of a later release", newer_manifest, ("query",), ("format 99", "upgrade mlipdb")),
    ("a catalog of another database", other_uuid, ("query",), ("11111111-2222-3333-4444-555555555555", "was swapped")),
    ("a catalog of a later release", newer_schema, ("query",), ("schema 9999, newer than", "upgrade mlipdb")),
    ("a catalog of an earlier release", older_schema, ("query",), ("schema 0001", "db upgrade`")),
    ("a catalog that is gone", no_catalog, ("query",), ("catalog",)),
]


@pytest.mark.parametrize(("damage", "words", "parts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_database_that_cannot_be_used_says_why(filled, refused, damage, words, parts):
    damage(filled)
    shown = refused("--db", filled, *words, parts=(*parts, str(filled)))
    assert shown == ""


def test_a_folder_that_is_not_there_says_how_to_make_one(tmp_path, refused):
    refused("--db", tmp_path / "nowhere", "query", parts=("nowhere", "is not an mlipdb database", "--db"))
    assert not (tmp_path / "nowhere").exists()


SHARDS = [
    ("cut off", cut_shard, ("bytes",)),
    ("gone", no_shard, ("structures-",)),
    ("with a flipped bit", flipped_shard, ("record",)),
]


@pytest.mark.parametrize(("damage", "parts"), [case[1:] for case in SHARDS], ids=[case[0] for case in SHARDS])
def test_a_damaged_shard_is_found_by_verify_and_by_whoever_reads_it(filled, command, damage, parts):
    damage(filled)
    code, shown, _ = command("--db", filled, "verify", "--deep")
    assert code == 1
    assert "problem: " in shown
    found = [command("--db", filled, "show", str(number)) for number in range(1, 7)]
    told = next(shown for code, shown, _ in found if code == 1)
    assert "what speaks against it" in told
    assert any(part in told for part in parts), told


@pytest.mark.sqlite
def test_two_databases_with_one_name_cannot_be_mixed(filled, tmp_path, refused):
    """A catalog copied over another database's."""
    mlipdb.create(tmp_path / "other").close()
    shutil.copy(filled / "catalog.sqlite", tmp_path / "other" / "catalog.sqlite")
    refused("--db", tmp_path / "other", "stats", parts=("mlipdb.toml is of database", "was swapped"))


def test_a_second_writer_is_told_who_is_in_the_way(filled, rows):
    before = rows(filled)
    lock = WriterLock(filled / "lock")
    with lock:
        code = (
            f"import sys; from mlipdb.cli.app import main; sys.argv = ['mlipdb', '--db', {str(filled)!r}, 'gc']; main()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is writing to this database; wait for it or stop it" in done.stderr
    assert "Traceback" not in done.stderr
    assert rows(filled) == before
