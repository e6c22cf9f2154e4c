"""The command `show`: where a structure came from, who labelled it with what, and what speaks against it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json

if TYPE_CHECKING:
    from mlipdb.database import Database
    from mlipdb.labels import Label
    from mlipdb.stats.history import History, Others

SHOWN = 5  # of a list that can be long


def show(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="A structure's number, or its source's id for it.")],
    json: JsonOption = False,
) -> None:
    """Show where a structure came from, who labelled it with what, and whether anything speaks against it."""
    from mlipdb.stats import history

    database = open_database(context)
    number = database.find(identity)
    found = history(database, number)
    arrays, labels, fault = _read(database, number)
    if json:
        show_json(_plain(found) | arrays | {"labels": [_label_values(label) for label in labels], "fault": fault})
    else:
        _print(found, labels, fault=fault)
    if fault:
        raise typer.Exit(1)


def _read(database: "Database", number: int) -> tuple[dict[str, Any], list["Label"], str | None]:
    """The arrays and labels from the shards; what is wrong with these, where something is."""
    from mlipdb.errors import CorruptError

    try:
        structure, labels = database.structure(number), database.labels(number)
    except CorruptError as error:
        return {}, [], str(error)
    names = ("atomic_numbers", "positions", "cell")
    return {name: getattr(structure, name) for name in names}, labels, None


def _plain(found: "History") -> dict[str, Any]:
    values = found.describe()
    entry: dict[str, Any] = values.pop("entry")
    parts = {"label_parts": values.pop("labels"), "source_file": values.pop("source")}
    return entry | values | parts


def _label_values(label: "Label") -> dict[str, Any]:
    values = {item.name: getattr(label, item.name) for item in fields(label)}
    values["method"] = None if label.method is None else asdict(label.method)
    return {name: value for name, value in values.items() if value is not None}


def _print(found: "History", labels: list["Label"], *, fault: str | None) -> None:
    entry = found.entry
    _print_facts(None, asdict(entry) | {"symmetry": _words(asdict(entry.symmetry)) if entry.symmetry else None})
    if found.tags:
        _print_facts("tags", found.tags)
    _print_source(found)
    _print_company(found)
    for label in labels:
        _print_label(label)
    _print_parts(found)
    for shard in found.shards:
        sealed = (
            f"sealed {shard.sealed_at}, {shard.records} records, {shard.bytes} bytes, format {shard.format_version}"
        )
        _print_facts(f"shard {shard.path}", {"sha256": shard.sha256, shard.kind: sealed, "fault": shard.fault})
    doubts = [*found.doubts, *([fault] if fault else [])]
    print("\nwhat speaks against it")
    for doubt in doubts or ["nothing that is known here"]:
        print(f"  {doubt}")


def _print_source(found: "History") -> None:
    """The source, its files with their hashes, and what the checks found in it."""
    source = found.source
    names = ("version", "reader", "uri", "sha256", "licence", "citation", "state", "created_at")
    counts = {name: source[name] for name in ("taken", "duplicates", "quarantined")}
    facts = {name: source[name] for name in names} | {"row in it": found.row, "records": _words(counts)}
    _print_facts(f"source {source['name']}", facts)
    files = source["options"].get("files", {})
    for name in sorted(files)[:SHOWN]:
        print(f"  {'file':24s} {name} sha256 {files[name].get('sha256')}")
    if len(files) > SHOWN:
        print(f"  {'file':24s} … and {len(files) - SHOWN} more; --json has all")
    for finding in found.findings:
        print(f"  {finding['severity']:24s} {finding['message']} [{finding['check']}]")


def _print_company(found: "History") -> None:
    """Other frames, copies, and the subsets that hold it."""
    print("\nrelated")
    print(f"  {'frames of the material':24s} {_others(found.frames)}")
    print(f"  {'same coordinates':24s} {_others(found.same_content)}")
    for mark in found.fingerprints:
        print(f"  {'fingerprint':24s} {mark.value} by {mark.tool} {mark.version}; same: {_others(mark.others)}")
    for member in found.memberships:
        runs = f", used by {', '.join(member.runs)}" if member.runs else ""
        print(f"  {'subset':24s} {member.subset} ({member.split}), hash {member.hash[:16]}{runs}")


def _others(others: "Others") -> str:
    some = [f"{other.id} ({other.external_id} of {other.source})" for other in others.first[:SHOWN]]
    more = ["…"] if others.count > SHOWN else []
    return f"{others.count} other{'' if others.count == 1 else 's'}" + (": " if some else "") + ", ".join(some + more)


def _print_label(label: "Label") -> None:
    """A block for one label; arrays as their shape."""
    method = label.method
    print(f"\nlabel by {method.name if method else 'unknown'} (method {label.method_id})")
    values = {name: value for name, value in _label_values(label).items() if name not in ("method", "method_id")}
    _print_values((name, f"array {v.shape}" if hasattr(v, "shape") else v) for name, v in values.items())
    if method:
        _print_values((f"method.{name}", value) for name, value in asdict(method).items() if value)


def _print_parts(found: "History") -> None:
    """Where each label lies, and what failed."""
    print("\nlabels in the catalog")
    for part in found.labels:
        rows = f", {part.hessian_rows} Hessian rows" if part.hessian_rows else ""
        has = f"{' '.join(part.quantities)}{rows} in {part.shard}" if part.status == "done" else part.reason
        print(f"  {f'{part.method} (method {part.method_id})':24s} part {part.part}: {part.status}: {has}")


def _print_facts(heading: str | None, facts: Mapping[str, Any]) -> None:
    if heading:
        print(f"\n{heading}")
    _print_values((name, value) for name, value in facts.items() if value is not None)


def _print_values(values: Iterable[tuple[str, Any]]) -> None:
    for name, value in values:
        print(f"  {name:24s} {value}")


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
