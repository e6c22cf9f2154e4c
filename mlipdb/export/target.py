"""Files that appear whole or not at all: written in a private folder beside their place, synced, then renamed."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlipdb.errors import ConfigError
from mlipdb.store.lock import take_lock
from mlipdb.store.shard import sync_directory

MOVING = "moving"  # in the private folder: everything is written, only renames were left


@contextmanager
def deliver(folder: Path, names: Sequence[str], *, force: bool) -> Iterator[Path]:
    """A private folder for files that go to folder under names; whatever is in it at the end is moved there.

    Nothing is at its place before the end, also after a kill; a later run clears what a killed one left. Of a file
    that is there already nothing changes, unless force says so. Raises ConfigError for one that is there, LockedError
    while another process writes the same, StorageError on a disk without locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{names[0]}.writing"
    moving = (scratch / MOVING).exists()  # killed between two renames: those done may be done again
    for name in names:
        if (folder / name).exists() and not (force or moving):
            raise ConfigError(f"{folder / name} exists; --force replaces it, or choose another name")
    scratch.mkdir(exist_ok=True)
    with _locked(scratch):
        _clear(scratch)
        try:
            yield scratch
            _move(scratch, folder, names)
        finally:
            if not (scratch / MOVING).exists():
                shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    descriptor = os.open(scratch, os.O_RDONLY)
    try:
        take_lock(descriptor, scratch)
        yield
    finally:
        os.close(descriptor)


def _clear(scratch: Path) -> None:
    for item in scratch.iterdir():
        _remove(item)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _move(scratch: Path, folder: Path, names: Sequence[str]) -> None:
    """Rename what is beside the named files first: where one of those is, everything that belongs to it is."""
    _sync(scratch)
    items = sorted(scratch.iterdir(), key=lambda item: (item.name in names, item.name))
    (scratch / MOVING).touch()
    sync_directory(scratch)
    for item in items:
        target = folder / item.name
        if target.is_dir():  # a rename replaces a file, not a full folder
            target.rename(scratch / f"{MOVING}-{item.name}")
        item.rename(target)
    sync_directory(folder)
    (scratch / MOVING).unlink()


def _sync(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(Path(root))
