"""A private PostgreSQL server for tests: started in a scratch folder, reached through a Unix socket."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 4 << 30  # bytes
_WAITS = ("fsync", "full_page_writes", "synchronous_commit", "autovacuum")  # what a server of minutes does not need


def postgresql_programs() -> Path | None:
    """The folder of initdb and pg_ctl, or None when PostgreSQL is not installed."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def private_server(programs: Path) -> Iterator[str]:
    """Start a server for the length of the block; the value is its folder, to be used as host in a URL.

    The server refuses to run as root, so root runs it as the user that the package made.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mlipdb-pg-", dir="/tmp") as scratch,  # a socket's path is short
        tempfile.TemporaryDirectory(prefix="mlipdb-pg-", dir=_roomy()) as store,
    ):
        folder = Path(scratch)
        user = "postgres" if os.getuid() == 0 else None
        if user:
            shutil.chown(folder, user)
            shutil.chown(store, user)
        data, log = Path(store) / "data", folder / "log"
        _run(user, programs / "initdb", "-D", data, "-U", "mlipdb", "-A", "trust", "-E", "UTF8", "--no-sync")
        waits = " ".join(f"-c {setting}=off" for setting in _WAITS)
        options = f"-k {folder} -c listen_addresses='' -c max_connections=400 {waits}"
        _run(user, programs / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield str(folder)
        finally:
            _run(user, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _roomy() -> Path:
    """A folder in memory where there is room for the databases of two test processes; every test makes one or more."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM else Path("/tmp")


def _run(user: str | None, *command: object) -> None:
    """Run a program of PostgreSQL quietly; its output stands in the error when it fails."""
    subprocess.run([str(part) for part in command], user=user, cwd="/", check=True, capture_output=True)
