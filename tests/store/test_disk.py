"""Disks that are full, read-only or on a network; a clock that is set back; forks: nothing stored is harmed."""

import errno
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mlipdb
from mlipdb.errors import CorruptError, LockedError, StorageError
from mlipdb.export.target import deliver
from mlipdb.labels import Method
from mlipdb.store.disk import NETWORK, NetworkDiskWarning, file_system, storage_errors, warn_of_network
from mlipdb.testing.samples import sample_records

PBE = Method(kind="dft", name="PBE")
MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/local xfs rw 0 0
10.0.0.1@o2ib:/scratch /scratch lustre rw,flock 0 0
me@host:/data /mnt/my\\040data fuse.sshfs rw 0 0
beegfs_nodev /mnt/beegfs beegfs rw 0 0
"""


def fill(db, count=8, start=0):
    source = db.open_source("sample", reader="none", uri="nowhere")
    return db.append(sample_records(count, start=start), source_id=source, method_id=db.method_id(PBE))


@pytest.fixture
def folder(tmp_path):
    db = mlipdb.create(tmp_path / "db", catalog="catalog.sqlite")
    fill(db)
    db.close()
    return tmp_path / "db"


@contextmanager
def mounted(place: Path, *arguments: str):
    """A mount that needs root; the test is skipped where that is not permitted."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_database_on_a_read_only_disk_is_read_and_refuses_writers_in_words(folder, tmp_path):
    with mounted(tmp_path / "mounted", "--bind", str(folder)) as place:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
        db = mlipdb.open(place)
        assert len(db.structures(range(1, 9))) == 8
        assert db.query("Li").ids.tolist()
        assert db.verify(deep=True).ok
        with pytest.raises(StorageError, match="reading works"):
            fill(db)
        db.close()


def test_a_directory_of_somebody_else_is_read_and_refuses_writers_in_words(folder, tmp_path):
    program = (
        "import os, sys, mlipdb\n"
        "from mlipdb.errors import StorageError\n"
        # once as root, on a copy: it imports what somebody else may not be allowed to read
        "db = mlipdb.open(sys.argv[2]); db.structures(range(1, 9)); db.close_source(1, state='complete'); db.close()\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "db = mlipdb.open(sys.argv[1])\n"
        "assert len(db.structures(range(1, 9))) == 8\n"
        "try:\n    db.close_source(1, state='complete')\n"
        "except StorageError as error:\n    print(error)\n"
    )
    if os.getuid() != 0:
        pytest.skip("only root may become somebody else")
    for part in (folder, *folder.parents):
        if part.stat().st_uid == 0 and part != Path("/") and "pytest" in str(part):
            part.chmod(0o755)
    shutil.copytree(folder, tmp_path / "copy")
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout


def test_a_full_disk_stores_nothing_says_so_and_goes_on_when_there_is_space(folder, tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=3m", "tmpfs") as place:
        subprocess.run(["cp", "-r", str(folder), str(place)], check=True)
        db = mlipdb.open(place / "db")
        (place / "ballast").write_bytes(bytes(_free(place) - 40_000))
        with pytest.raises(StorageError, match="free space"):
            fill(db, 400, start=100)
        assert db.query("all").ids.tolist() == list(range(1, 9))
        (place / "ballast").unlink()
        assert db.verify(deep=True).ok
        fill(db, 400, start=100)
        assert db.verify(deep=True).ok
        assert len(db.query("all")) == 408
        db.close()


@pytest.mark.parametrize(("number", "kind", "words"), [
    (errno.EWOULDBLOCK, LockedError, "is writing"),
    (errno.EACCES, LockedError, "is writing"),
    (errno.ENOSYS, StorageError, "no lock .Function not implemented.*option `flock`.*or use a disk of this machine"),
    (errno.ENOLCK, StorageError, "No locks available"),
    (errno.EOPNOTSUPP, StorageError, "gives no lock"),
])  # fmt: skip
def test_a_disk_without_locks_is_not_taken_for_another_writer(folder, tmp_path, monkeypatch, number, kind, words):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    db = mlipdb.open(folder)
    with pytest.raises(kind, match=words):
        fill(db)
    with pytest.raises(kind, match=words), deliver(tmp_path / "out", ["a.xyz"], force=False):
        pass
    db.close()


def _free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_bsize


def test_a_disk_that_fills_while_rows_are_written_leaves_the_shard_as_a_leftover_only(folder, tmp_path):
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as place:
        alone = 0  # shards that came in without their rows
        for spare in range(60_000, 260_000, 10_000):
            shutil.copytree(folder, place / "db")
            db = mlipdb.open(place / "db")
            (place / "ballast").write_bytes(bytes(max(_free(place) - spare, 0)))
            try:
                fill(db, 200, start=1000)
            except StorageError:
                assert len(db.query("all")) == 8
                alone += len(list((place / "db").rglob("*.lmdb"))) - 1
            (place / "ballast").unlink()
            kept = db.gc()
            assert db.verify(deep=True).ok
            assert len(list((place / "db").rglob("*.lmdb"))) == kept.shards
            db.close()
            shutil.rmtree(place / "db")
        assert 0 < alone < 20


def test_a_limit_on_file_sizes_is_told_like_a_full_disk(folder):
    program = (
        "import resource, signal, sys, mlipdb\n"
        "from mlipdb.testing.samples import sample_records\n"
        "db = mlipdb.open(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "db.append(sample_records(400, start=50), source_id=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert "StorageError" in done.stderr
    db = mlipdb.open(folder)
    assert len(db.query("all")) == 8
    assert db.verify(deep=True).ok
    db.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/db", "ext4"), ("/home/me/db", "nfs4"), ("/home/local/db", "xfs"), ("/homes/db", "ext4"),
        ("/scratch/db", "lustre"), ("/mnt/my data/db", "fuse.sshfs"), ("/mnt/beegfs", "beegfs"),
    ],
)  # fmt: skip
def test_the_file_system_of_a_path_is_that_of_the_longest_mount(path, kind):
    assert file_system(Path(path), MOUNTS) == kind


def test_a_database_on_a_network_disk_is_warned_of_with_the_way_out(tmp_path):
    table = tmp_path / "mounts"
    table.write_text(f"server:/x {tmp_path} nfs4 rw 0 0\n")
    with pytest.warns(NetworkDiskWarning, match=r"nfs4.*PostgreSQL"):
        warn_of_network(tmp_path / "db", mounts=table)
    assert {"nfs", "lustre", "beegfs", "gpfs", "cifs"} <= NETWORK


def test_a_local_disk_and_an_unknown_system_warn_of_nothing(tmp_path):
    (tmp_path / "mounts").write_text("/dev/sda1 / ext4 rw 0 0\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_network(tmp_path, mounts=tmp_path / "mounts")
        warn_of_network(tmp_path, mounts=tmp_path / "absent")


def test_a_clock_that_is_set_back_changes_no_answer(folder, monkeypatch):
    db = mlipdb.open(folder)
    monkeypatch.setattr("mlipdb.catalog.rows.now", lambda: datetime(1999, 1, 1, tzinfo=UTC))
    monkeypatch.setattr("time.time_ns", lambda: 915_148_800_000_000_000)
    fill(db, 4, start=50)
    assert db.query("all").ids.tolist() == list(range(1, 13))
    assert [structure.id for structure in db.structures(range(1, 13))] == list(range(1, 13))
    assert db.verify(deep=True).ok
    db.close()


def test_a_reader_in_another_process_goes_on_while_one_writes_and_a_second_writer_is_told(folder):
    reader = (
        "import sys, mlipdb\n"
        "db = mlipdb.open(sys.argv[1])\n"
        "print(len(db.query('all')), len(db.structures(range(1, 9))))\n"
    )
    db = mlipdb.open(folder)
    with db.write() as session:
        session.execute(mlipdb.database.update(mlipdb.database.Source).values(state="half done"))
        done = subprocess.run([sys.executable, "-c", reader, str(folder)], capture_output=True, text=True, check=False)
        other = mlipdb.open(folder)
        with pytest.raises(LockedError, match=str(os.getpid())):
            fill(other)
        other.close()
    assert done.stdout.split() == ["8", "8"], done.stderr
    db.close()


def test_a_shard_is_compared_with_its_hash_once_and_again_after_any_change(folder, monkeypatch):
    [shard] = (folder / "shards").glob("*.lmdb")
    os.utime(shard, ns=(10**18, 10**18))
    compared = []
    real = mlipdb.store.checked.file_sha256
    monkeypatch.setattr("mlipdb.store.checked.file_sha256", lambda path: compared.append(path) or real(path))
    monkeypatch.setattr("mlipdb.store.checked.PAUSE", 0)
    for _ in range(3):
        db = mlipdb.open(folder)
        db.structure(1)
        db.close()
    assert len(compared) == 1
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(10**18, 10**18))  # as if its time had been put back: the inode's own time tells
    db = mlipdb.open(folder)
    with pytest.raises(CorruptError, match="damaged"):
        db.structure(1)
    db.close()


def test_notes_that_are_damaged_cost_a_comparison_and_nothing_else(folder):
    (folder / "shards.checked").write_bytes(b"\xff\x00 not a note\n")
    db = mlipdb.open(folder)
    assert len(db.structures(range(1, 9))) == 8
    db.close()


DAMAGE = """
import sys
from pathlib import Path
from mlipdb.testing.damage import outcomes
print(dict(outcomes(Path(sys.argv[1]), flips=40, cuts=10, seed=3, scratch=Path(sys.argv[2]))))
"""


def test_every_flipped_bit_and_every_cut_is_found_and_kills_no_reader(folder, tmp_path):
    # In a process of its own, since it forks.
    command = [sys.executable, "-c", DAMAGE, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "{'found': 50}", done.stdout + done.stderr


def test_an_error_that_is_not_the_disks_stays_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        (tmp_path / "absent").read_text()
