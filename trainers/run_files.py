"""The checkpoints of one run: the last, to go on from, and the best, to use."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipdb.trainers.archive import Arrays, replace_text, write_archive

FOLDER = "checkpoints"
POINTERS = "checkpoints.json"


def add_checkpoint(
    run: Path, name: str, document: Mapping[str, Any], groups: Mapping[str, Arrays], *, best: bool
) -> None:
    """Write a checkpoint, then make it the last (and the best), then remove those that are neither.

    A crash in between leaves the pointers on whole checkpoints.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / name).exists():  # left by a crash before the pointers moved to it
        shutil.rmtree(folder / name)
    write_archive(folder / name, document, groups)
    pointers = {**_pointers(run), "last": name, **({"best": name} if best else {})}
    replace_text(run / POINTERS, json.dumps(pointers) + "\n")
    _remove_others(run)


def tidy(run: Path) -> None:
    """Remove what a kill left in a run's folder: checkpoints that are neither last nor best, and temporary files."""
    for item in run.glob(".*.tmp"):
        item.unlink()
    if (run / FOLDER).is_dir():
        _remove_others(run)


def last_checkpoint(run: Path) -> Path | None:
    """The folder of the newest checkpoint; None before the first."""
    name = _pointers(run).get("last")
    return None if name is None else run / FOLDER / name


def best_checkpoint(run: Path) -> Path | None:
    """The folder of the checkpoint with the lowest validation loss; None when this is no run's folder."""
    name = _pointers(run).get("best") or _pointers(run).get("last")
    return None if name is None else run / FOLDER / name


def _remove_others(run: Path) -> None:
    kept = _pointers(run).values()
    for item in (run / FOLDER).iterdir():
        if item.name not in kept:
            shutil.rmtree(item)


def _pointers(run: Path) -> dict[str, str]:
    file = run / POINTERS
    return dict(json.loads(file.read_text())) if file.is_file() else {}
