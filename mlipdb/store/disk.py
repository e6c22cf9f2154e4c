"""Disks that are full, read-only or on a network: told in words, before harm is done where that can be known."""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from mlipdb.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# File systems of other machines, on which the locks and the shared memory of SQLite and LMDB do not hold.
NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.s3fs",
        "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3",
        "smbfs",
    }
)  # fmt: skip


class NetworkDiskWarning(UserWarning):
    """A database whose catalog is SQLite lies on a network disk."""


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn errors of a disk that takes nothing into StorageError that says what to do."""
    try:
        yield
    except (OSError, lmdb.Error) as error:
        number = getattr(error, "errno", None)
        text = str(error)
        # LMDB calls a write that was cut short an input/output error.
        if number in FULL or any(word in text for word in ("No space left", "File too large", "Input/output error")):
            raise StorageError(
                f"{place}: the disk is full or fails ({text}); nothing of this step was stored, what was stored before "
                f"is whole: free space there and run the command again"
            ) from error
        if number in CLOSED or "Read-only" in text or "Permission denied" in text:
            raise StorageError(
                f"{place}: cannot be written ({text}); copy the database to a disk that you may write, or get the "
                f"right to write there; reading works as it is"
            ) from error
        raise


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that a path is on, by the table of mounts in the layout of /proc/mounts."""
    best, kind = "", ""
    place = str(path.resolve())
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of mounts on one point, the last one holds
            best, kind = point, fields[2]
    return kind


def warn_of_network(path: Path, *, mounts: Path = Path("/proc/mounts")) -> None:
    """Warn where a directory is on a network disk; nothing where that cannot be known."""
    try:
        kind = file_system(path, mounts.read_text())
    except OSError:
        return
    if kind in NETWORK:
        warnings.warn(
            f"{path} is on a network disk ({kind}), where SQLite's locks do not hold: two writers could damage the "
            f"catalog. Keep the database on a disk of this machine, or put the catalog into PostgreSQL with "
            f"`mlipdb db copy`",
            NetworkDiskWarning,
            stacklevel=3,
        )
