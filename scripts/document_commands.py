"""Write docs/commands.md from the command line itself; a test compares the two."""

import sys
from pathlib import Path
from typing import Any

import typer

from mlipdb.cli.app import app

TARGET = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
HEAD = """# Commands

Made by `python scripts/document_commands.py`. `--db DIR` before the command names the database; else `$MLIPDB_DB`, else
`./mlipdb-data`. Data goes to stdout, talk to stderr; exit 0 is success, 1 a failure, 2 wrong usage.
"""


def describe(command: Any, path: str) -> list[str]:
    """The lines of a command, or of a group and everything in it. Any: typer carries its own copy of click."""
    if hasattr(command, "commands"):
        return [
            line for name in sorted(command.commands) for line in describe(command.commands[name], f"{path} {name}")
        ]
    arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    lines = [f"## {' '.join((path, *arguments))}", "", " ".join((command.help or "").split()), ""]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    if options:
        rows = [f"| `{', '.join(o.opts + o.secondary_opts)}` | {' '.join((o.help or '').split())} |" for o in options]
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    return lines


def document() -> str:
    """The text of docs/commands.md."""
    return "\n".join([HEAD, *describe(typer.main.get_command(app), "mlipdb")]).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(document())
    print(f"wrote {TARGET}", file=sys.stderr)
