"""The commands `runs list`, `runs show` and `runs compare`: trainings and evaluations of a database."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk
from mlipdb.cli.tables import table_lines

if TYPE_CHECKING:
    from mlipdb.trainers.run_summary import RunComparison
    from mlipdb.trainers.runs import RunFacts

app = typer.Typer(help="Trainings and evaluations that the database remembers.", no_args_is_help=True)

LISTED = {
    "name": "run", "kind": "kind", "state": "state", "model": "model", "subset": "subset", "epochs": "epochs",
    "energy_mae": "E meV/atom", "forces_mae": "F meV/Å", "stress_mae": "S meV/Å³", "started_at": "started",
}  # fmt: skip
NUMERIC = ("epochs", "E meV/atom", "F meV/Å", "S meV/Å³")
EPOCHS = 10  # that `runs show` prints, the latest


@app.command("list")
def list_all(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="Only this kind: train or evaluate.")] = None,
    json: JsonOption = False,
) -> None:
    """List trainings and evaluations, oldest first; errors are MAEs of validation at the best epoch."""
    from mlipdb.trainers.run_summary import summarise
    from mlipdb.trainers.runs import list_runs

    found = [summarise(run) for run in list_runs(open_database(context), kind=kind)]
    if json:
        show_json({"runs": found})
        return
    rows = [[_cell(row, name) for name in LISTED] for row in found]
    print("\n".join(table_lines(list(LISTED.values()), rows, right=NUMERIC)) if rows else "no runs")


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run that `mlipdb runs list` names.")],
    json: JsonOption = False,
) -> None:
    """Tell what went into a run and what came out: subset, labels, errors, alignment, versions, files."""
    from mlipdb.trainers.run_summary import evaluations, summarise
    from mlipdb.trainers.runs import find_run

    database = open_database(context)
    run = find_run(database, name)
    found = evaluations(database, run) if run.kind == "train" else {}
    if json:
        show_json(run.describe() | {"evaluations": found})
        return
    print("\n".join([*_facts(run, summarise(run)), *_epochs(run), *_evaluated(run, found)]))


@app.command()
def compare(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="RUN…", help="Two trainings or more.")],
    json: JsonOption = False,
) -> None:
    """Put trainings side by side: the settings that differ, and their errors."""
    from mlipdb.trainers.run_summary import compare_runs

    found = compare_runs(open_database(context), names)
    if json:
        show_json(found.describe())
        return
    if not any(part == "test" for part in found.errors):
        talk(f"no errors of the test part yet: mlipdb evaluate {names[0]} --subset …")
    print("\n".join(_comparison(found)))


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name == "epochs":
        return "-" if row["epochs"] is None else f"{row['epochs']}/{row['of']}"
    return _text(row[name], digits=1)


def _text(value: Any, *, digits: int) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    return "-" if value is None else str(value)


def _facts(run: "RunFacts", short: Mapping[str, Any]) -> Iterable[str]:
    """Everything but the errors, one fact a line."""
    yield f"run {run.name}: {run.kind}, {run.state}"
    taken = "" if short["seconds"] is None else f", {short['seconds']:,.0f} s until its end"
    yield f"  {'started':18s} {short['started_at']}{taken}"
    if "error" in run.metrics and run.state == "failed":
        yield f"  {'failed with':18s} {run.metrics['error']}"
    yield f"  {'subset':18s} {run.subset or 'forgotten'}, hash {run.subset_hash[:12]}"
    if short["model"]:
        yield f"  {'model':18s} {short['model']}, {short['epochs']} of {short['of']} epochs, best {short['best_epoch']}"
    facts = {**run.methods, **_tuning(run), "of run": run.parent, "files": run.path}
    yield from (f"  {name:18s} {value}" for name, value in facts.items() if value is not None)
    if alignment := run.metrics.get("data", {}).get("alignment"):
        before, after = (1e3 * alignment[f"rms_{when}"] for when in ("before", "after"))
        yield f"  {'teacher fits':18s} {before:.1f} meV/atom rms from the labels, {after:.1f} after alignment"
    yield f"  {'versions':18s} {', '.join(f'{name} {version}' for name, version in run.versions.items())}"


def _tuning(run: "RunFacts") -> dict[str, str]:
    """Of a fine-tuning: its strategy, what it started from, what was replayed and why it stopped."""
    recipe = run.config.get("recipe", {}).get("finetune", {})
    if not recipe.get("foundation"):
        return {}
    found = {
        "fine-tuning": recipe["strategy"],
        "foundation": f"{recipe['foundation']}, weights {recipe['sha256'][:12]}",
    }
    fitted = run.metrics.get("data", {}).get("e0")
    found["E0"] = recipe["e0"]
    found["E0"] += f", {len(fitted['offsets'])} offsets of rank {fitted['rank']}" if fitted else ""
    found |= {"replay": f"{recipe['replay']}, weight {recipe['replay_weight']:g}"} if recipe["replay"] else {}
    return found | ({"stopped": run.metrics["stopped"]} if "stopped" in run.metrics else {})


def _epochs(run: "RunFacts") -> list[str]:
    """The latest epochs as a table."""
    entries = run.metrics.get("epochs", [])[-EPOCHS:]
    if not entries:
        return []
    headings = ["epoch", "train loss", "validation loss", "E meV/atom", "F meV/Å", "S meV/Å³"]
    rows = []
    for entry in entries:
        errors = entry["validation"] or entry["train"]
        cells = [entry["train"]["loss"], (entry["validation"] or {}).get("loss")]
        numbers = [errors.get(f"{name}_mae") for name in ("energy", "forces", "stress")]
        rows.append([str(entry["epoch"]), *(_text(v, digits=4) for v in cells), *(_text(v, digits=1) for v in numbers)])
    return ["", *table_lines(headings, rows, right=headings)]


def _evaluated(run: "RunFacts", found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Errors of parts: of an evaluation itself, or of the latest evaluations of a training on its own subset."""
    own = [{**row, "split": f"{row['split']}, {row['predicted_by']}"} for row in run.metrics.get("rows", ())]
    lines = own or [{**row, "split": part} for part, row in found.items()]
    if not lines:
        return []
    quantities = [f"{name}_{kind}" for name in ("energy", "forces", "stress") for kind in ("mae", "rmse")]
    rows = [[row["split"], str(row["structures"]), *(_text(row[q], digits=1) for q in quantities)] for row in lines]
    headings = ["evaluated on", "structures", *(quantity.replace("_", " ") for quantity in quantities)]
    return ["", *table_lines(headings, rows, right=headings[1:])]


def _comparison(found: "RunComparison") -> list[str]:
    rows = [[key, *(_setting(value) for value in values)] for key, values in found.settings.items()]
    for part, errors in found.errors.items():
        rows += [[f"{part}: {q.replace('_', ' ')}", *(_text(v, digits=2) for v in row)] for q, row in errors.items()]
    return table_lines(["", *found.names], rows, right=found.names)


def _setting(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else _text(value, digits=0)
