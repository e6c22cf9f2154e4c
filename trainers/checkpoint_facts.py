"""What a checkpoint or weight file holds; and a Nequix student written as a .nqx file."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlipdb.errors import ConfigError, CorruptError, TrainError
from mlipdb.structures import SYMBOLS
from mlipdb.teachers.published import published_name
from mlipdb.trainers.archive import read_arrays, read_document, sync
from mlipdb.trainers.arrays import count_parameters, named_arrays
from mlipdb.trainers.checkpoint import described_head, load_checkpoint, load_model, split_head
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.derive import gives_stress
from mlipdb.trainers.models.heads import Head, heads_from_json
from mlipdb.trainers.models.nequix import Nequix
from mlipdb.trainers.models.nqx import load_nqx, save_nqx
from mlipdb.trainers.run_files import best_checkpoint, last_checkpoint
from mlipdb.version import __version__

LONG = ("atomic_numbers", "e0")  # of a model's settings: shown apart


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """A model as it is stored; everything was read, and its checksums compared.

    kind is ``nqx`` or ``checkpoint``; model the entry point of `mlipdb.models`; cutoff in Å; e0 in eV by symbol;
    settings the model's own. Of a model with several heads, all is told of head, but parameters count those of all.
    energy, epoch, best_epoch and best_loss are of the training, None where nothing was kept; published is the name
    under which a .nqx file is known; files holds the SHA-256 of each.
    """

    path: Path
    kind: str
    model: str
    parameters: int
    cutoff: float
    has_stress: bool
    e0: Mapping[str, float]
    settings: Mapping[str, Any]
    energy: str | None
    epoch: int | None
    best_epoch: int | None
    best_loss: float | None
    is_last: bool | None
    published: str | None
    files: Mapping[str, str]
    head: str | None = None
    heads: tuple[Head, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "path": str(self.path), "heads": [vars(head) for head in self.heads]}


def checkpoint_facts(path: Path) -> CheckpointFacts:
    """What a .nqx file, a checkpoint folder, or a run's folder (its best checkpoint) holds; PATH@HEAD for one head.

    Raises NotFoundError when it is none of these, CorruptError where a file was changed or damaged.
    """
    model = load_model(path)
    path, name = split_head(path)
    if path.is_file():
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return _facts(path, model, kind="nqx", name="nequix", files={path.name: sha256})
    place = best_checkpoint(path) or path
    document = read_document(place)
    for file in document["files"]:
        read_arrays(place, document, Path(file).stem)
    notes, head = document["notes"], described_head(document, name)
    last = last_checkpoint(place.parent.parent)
    facts = _facts(
        place,
        model,
        kind="checkpoint",
        name=document["model"]["name"],
        files=document["files"],
        notes={"energy": notes.get("energy"), **notes.get("position", {})},
        is_last=None if last is None else last.name == place.name,
    )
    return facts if head is None else _of_head(facts, head, load_checkpoint(place))


def _of_head(facts: CheckpointFacts, head: Head, whole: AbstractModel) -> CheckpointFacts:
    """The facts of one head of the whole model, whose inner model they name."""
    config = whole.to_config()
    return replace(
        facts,
        model=config["model"]["name"],
        parameters=count_parameters(whole),
        energy=head.energy,
        head=head.name,
        heads=heads_from_json(config["heads"]),
    )


def export_nqx(source: Path, target: Path, *, replace: bool = False) -> CheckpointFacts:
    """Write the Nequix of a checkpoint or run folder as a .nqx file, read it back, and compare every array.

    The file holds E0 in float32, as the format does. Raises TrainError for another model, which the format cannot
    hold, ConfigError for a file that exists unless it is to be replaced or whose folder does not.
    """
    model = load_model(source)
    if not isinstance(model, Nequix):
        raise TrainError(
            f"{source} holds a {type(model).__name__}; a .nqx file can only hold a Nequix. Use it from its folder: "
            f"mlipdb.trainers.Calculator({str(source)!r})"
        )
    if target.exists() and not replace:
        raise ConfigError(f"{target} exists; give another --to, or --force to replace it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: its folder does not exist; make it first")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        save_nqx(temporary, model, extra={"mlipdb_version": __version__})
        _require_same(model, load_nqx(temporary)[0], where=target)
        sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return checkpoint_facts(target)


def _require_same(model: Nequix, read: Nequix, *, where: Path) -> None:
    """Raise CorruptError unless what was read is what was written, bit for bit."""
    written, found = named_arrays(model), named_arrays(read)
    same = written.keys() == found.keys() and all(np.array_equal(written[name], found[name]) for name in written)
    same = same and np.array_equal(model.e0.astype(np.float32), read.e0.astype(np.float32))
    own, other = (dict(each.to_config(), e0=None) for each in (model, read))
    if not same or own != other:
        raise CorruptError(f"{where}: what was read back differs from what was written; nothing was kept")


def _facts(
    path: Path,
    model: AbstractModel,
    *,
    kind: str,
    name: str,
    files: Mapping[str, str],
    notes: Mapping[str, Any] | None = None,
    is_last: bool | None = None,
) -> CheckpointFacts:
    known = notes or {}
    symbols = [SYMBOLS[number] for number in model.atomic_numbers]
    return CheckpointFacts(
        path=path,
        kind=kind,
        model=name,
        parameters=count_parameters(model),
        cutoff=float(model.cutoff),
        has_stress=gives_stress(model),
        e0=dict(zip(symbols, model.e0.tolist(), strict=True)),
        settings={key: value for key, value in model.to_config().items() if key not in LONG},
        energy=known.get("energy"),
        epoch=known.get("epoch"),
        best_epoch=known.get("best_epoch"),
        best_loss=known.get("best_loss"),
        is_last=is_last,
        published=published_name(files[path.name]) if kind == "nqx" else None,
        files=dict(files),
    )
