"""A private PostgreSQL server for tests: started in a scratch folder, reached through a Unix socket."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    with tempfile.TemporaryDirectory(prefix="mlipdb-pg-", dir="/tmp") as scratch:
        folder = Path(scratch)
        user = "postgres" if os.getuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"
        _run(user, programs / "initdb", "-D", data, "-U", "mlipdb", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=400"
        _run(user, programs / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
        try:
            yield str(folder)
        finally:
            _run(user, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _run(user: str | None, *command: object) -> None:
    """Run a program of PostgreSQL quietly; its output stands in the error when it fails."""
    subprocess.run([str(part) for part in command], user=user, cwd="/", check=True, capture_output=True)
