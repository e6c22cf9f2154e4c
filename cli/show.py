"""The command `show`: everything the database knows of one structure."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json

if TYPE_CHECKING:
    from mlipdb.labels import Label


def show(
    context: typer.Context,
    identity: Annotated[str, typer.Argument(metavar="ID", help="A structure's number, or its source's id for it.")],
    json: JsonOption = False,
) -> None:
    """Show a structure: what it is, where it came from, and who labelled it with what."""
    database = open_database(context)
    number = database.find(identity)
    entry, structure, labels = database.entry(number), database.structure(number), database.labels(number)
    facts = asdict(entry) | {"source_file": database.source_facts(entry.source)}
    if json:
        arrays = {"atomic_numbers": structure.atomic_numbers, "positions": structure.positions, "cell": structure.cell}
        show_json(facts | arrays | {"labels": [_label_values(label) for label in labels]})
        return
    for name, value in facts.items():
        print(f"{name:26s} {value}")
    for label in labels:
        _print_label(label)


def _label_values(label: "Label") -> dict[str, Any]:
    values = {item.name: getattr(label, item.name) for item in fields(label)}
    values["method"] = None if label.method is None else asdict(label.method)
    return {name: value for name, value in values.items() if value is not None}


def _print_label(label: "Label") -> None:
    """A block for one label; arrays as their shape."""
    method = label.method
    print(f"\nlabel by {method.name if method else 'unknown'} (method {label.method_id})")
    for name, value in _label_values(label).items():
        if name not in ("method", "method_id"):
            print(f"  {name:24s} {f'array {value.shape}' if hasattr(value, 'shape') else value}")
    if method:
        for name, value in asdict(method).items():
            if value:
                print(f"  method.{name:17s} {value}")
