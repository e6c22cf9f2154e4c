"""The commands `checkpoint show` and `checkpoint export`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.trainers.checkpoint_facts import CheckpointFacts

app = typer.Typer(help="Trained models: what they are, and the same for other programs.", no_args_is_help=True)

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|PATH", help="A run, its folder, a checkpoint folder, a .nqx file or a known name; @HEAD after it."
    ),
]


@app.command()
def show(context: typer.Context, name: ModelArgument, json: JsonOption = False) -> None:
    """Tell what a model is, where its training was, and that its files are what was written."""
    from mlipdb.trainers.checkpoint_facts import checkpoint_facts

    found = checkpoint_facts(_path(context, name))
    if json:
        show_json(found.describe())
        return
    print("\n".join(_lines(found)))


@app.command()
def export(
    context: typer.Context,
    name: ModelArgument,
    to: Annotated[Path, typer.Option(metavar="FILE", help="The file to write, such as model.nqx.")],
    head: Annotated[str | None, typer.Option(metavar="NAME", help="Which head, where there are several.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a Nequix student as a .nqx file, which the Nequix package opens; it is read back and compared."""
    from mlipdb.trainers.checkpoint_facts import export_nqx

    found = export_nqx(_path(context, name if head is None else f"{name}@{head}"), to, replace=force)
    if json:
        show_json(found.describe())
        return
    talk(f"wrote {to} ({to.stat().st_size / 1e6:.1f} MB), read back equal")
    print(to)


def _path(context: typer.Context, name: str) -> Path:
    """A path needs no database; a name may be that of a run."""
    from mlipdb.trainers.checkpoint import split_head
    from mlipdb.trainers.found_model import NAMES, find_model

    plain = split_head(name)[0]
    free = plain.exists() or str(plain) in NAMES
    return find_model(name, db=None if free else open_database(context))


def _lines(found: "CheckpointFacts") -> Iterable[str]:
    named = "" if found.published is None else f", published as {found.published}"
    yield f"{found.path}: {found.kind} of {found.model}, {found.parameters:,} parameters{named}"
    yield f"  {'cutoff':20s} {found.cutoff:g} Å"
    yield f"  {'stress':20s} {'yes' if found.has_stress else 'none: its forces are an output of their own'}"
    yield f"  {'elements':20s} {len(found.e0)}: {' '.join(found.e0)}"
    for head in found.heads:
        told = ", told of here" if head.name == found.head else ""
        method = head.method or "the structures' own methods"
        yield f"  {'head':20s} {head.name}: {head.energy} by {method}; E0 {min(head.e0):g} to {max(head.e0):g} eV{told}"
    if found.energy is not None:
        yield f"  {'learnt energy':20s} {found.energy}"
    if found.epoch is not None:
        best = "" if found.best_loss is None else f"; best epoch {found.best_epoch}, loss {found.best_loss:.4g}"
        last = {None: "", True: ", the last checkpoint", False: ", not the last checkpoint"}[found.is_last]
        yield f"  {'after':20s} {found.epoch} whole epochs{last}{best}"
    yield from (f"  {name:20s} {value}" for name, value in found.settings.items())
    yield from (f"  {name:20s} sha256 {sha256[:16]}… as written" for name, sha256 in found.files.items())
