"""Export structures of a database, with their labels, to a file of another format."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jaxtyping import Int64

from mlipdb import registry
from mlipdb.database import Database
from mlipdb.errors import ConfigError, QueryError
from mlipdb.export.about import describe_export, with_methods
from mlipdb.export.exporter import GROUP, Exporter, ExportMethod, ExportOptions, ExportReport
from mlipdb.export.items import stream_items
from mlipdb.export.methods import choose_methods
from mlipdb.export.target import deliver
from mlipdb.subsets import FrozenSubset, load, names


@dataclass(frozen=True, eq=False)
class _File:
    """One file to write: its name and the structures in it."""

    name: str
    part: str | None
    ids: Int64[np.ndarray, " structures"]


def export(
    db: Database,
    selection: str,
    *,
    format: str,
    path: Path,
    methods: Sequence[str] = (),
    energy: str | None = None,
    split: bool = False,
    force: bool = False,
) -> tuple[ExportReport, ...]:
    """Write what a filter or a frozen subset selects; a report for each file.

    methods are names or numbers; without any, the labels that came with the structures. energy is the kind under the
    format's one name for it (uncorrected, corrected, free, zero). With split, a frozen subset becomes one file for each
    part of its split that has structures. Files appear whole under their names, or not at all.
    """
    exporter = make_exporter(format)
    subset = load(db, selection) if selection in names(db) else None
    ids = subset.ids if subset is not None else db.query(selection).ids
    if not len(ids):
        raise QueryError(f"filter {selection!r} matches no structure; nothing to export")
    folder, files = _files(exporter, path, ids=ids, subset=subset, split=split)
    chosen = choose_methods(db, ids, names=methods, energy=energy)
    about = with_methods(describe_export(db, ids, filter=subset.filter if subset else selection, subset=subset), chosen)
    parts = _parts(subset)
    with deliver(folder, [file.name for file in files], force=force) as scratch:
        reports = [_write(db, exporter, scratch, file, chosen, about=about, parts=parts) for file in files]
    return tuple(replace(report, path=str(folder / report.path)) for report in reports)


def make_exporter(format: str) -> Exporter:
    """The exporter of a name. Raises ConfigError for an unknown one."""
    exporter: Exporter = registry.load(GROUP, format)()
    return exporter


def _files(
    exporter: Exporter, path: Path, *, ids: Int64[np.ndarray, " structures"], subset: FrozenSubset | None, split: bool
) -> tuple[Path, list[_File]]:
    """The folder and the files in it; with a split one for each part that has structures."""
    suffix = _suffix(exporter, path)
    if not split:
        return path.parent, [_File(path.name, None, ids)]
    if subset is None:
        raise ConfigError(
            "--split writes the parts of a frozen subset; make one first: mlipdb subset freeze NAME FILTER"
        )
    found = {part: members for part, members in subset.splits.items() if len(members)}
    stem = path.name.removesuffix(suffix)
    if suffix:
        return path.parent, [_File(f"{stem}-{part}{suffix}", part, members) for part, members in found.items()]
    return path, [_File(part, part, members) for part, members in found.items()]


def _suffix(exporter: Exporter, path: Path) -> str:
    """The suffix of the format that the path has. Raises ConfigError for another one."""
    for suffix in sorted(exporter.suffixes, key=len, reverse=True):
        if suffix and path.name.endswith(suffix) and path.name != suffix:
            return suffix
    if "" in exporter.suffixes and not path.suffix:
        return ""
    known = " or ".join(suffix or "a folder (no suffix)" for suffix in exporter.suffixes)
    raise ConfigError(f"{path}: a file of format {exporter.name} ends in {known}")


def _parts(subset: FrozenSubset | None) -> dict[int, str]:
    if subset is None:
        return {}
    return {identity: part for part, members in subset.splits.items() for identity in members.tolist()}


def _write(
    db: Database,
    exporter: Exporter,
    scratch: Path,
    file: _File,
    methods: tuple[ExportMethod, ...],
    *,
    about: dict[str, Any],
    parts: dict[int, str],
) -> ExportReport:
    about = {**about, "part": file.part, "structures": len(file.ids)}
    path = scratch / file.name
    items = stream_items(db, file.ids, methods, parts=parts)
    report = exporter.write(path, items, ExportOptions(methods=methods, about=about))
    if not report.written:
        reasons = "; ".join(f"{skipped.structures}: {skipped.reason}" for skipped in report.skipped)
        raise ConfigError(f"nothing to write to {file.name}: {reasons}")
    if not exporter.in_file:
        about = {**about, "written": report.written, "lost": report.lost, "skipped": report.skipped}
        side = path / "about.json" if path.is_dir() else path.with_name(f"{path.name}.about.json")
        side.write_bytes(orjson.dumps(about, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    beside = sorted(item.name for item in scratch.iterdir() if item.name.startswith(f"{file.name}."))
    return replace(
        report,
        path=file.name,
        part=file.part,
        energy=methods[0].energy,
        methods=tuple(chosen.method.name if chosen.method else "unnamed" for chosen in methods),
        bytes=_size(path),
        beside=tuple(beside),
    )


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
