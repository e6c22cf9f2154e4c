"""`mlipdb train`: a student from a subset."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.trainers.train import TrainResult


def train(
    context: typer.Context,
    subset: Annotated[str | None, typer.Option(help="A frozen subset or a filter, which is frozen first.")] = None,
    model: Annotated[str | None, typer.Option(help="The student's architecture; else the recipe's.")] = None,
    recipe: Annotated[str | None, typer.Option(help="From `mlipdb recipe list`, or a .toml file; else nano.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe; repeatable.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Method to distil from: its name or number.")] = None,
    align: Annotated[
        str | None, typer.Option(help="Teacher's energies to the labels': least-squares, structure or none.")
    ] = None,
    kernel: Annotated[str | None, typer.Option(help="For nequix on GPUs: auto, plain or cuequivariance.")] = None,
    accept_labels: Annotated[
        bool, typer.Option("--accept-labels", help="Learn a teacher's labels though they contradict the DFT labels.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call the run.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run; it keeps its subset and recipe.")] = None,
    processes: Annotated[
        str | None, typer.Option(help="Train with other processes: auto (SLURM, MPI) or NUMBER/COUNT@HOST:PORT.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a student, with --teacher also on the teacher's atomic energies and Hessian rows."""
    from mlipdb.trainers.cookbook import load_recipe
    from mlipdb.trainers.devices import is_first, join
    from mlipdb.trainers.live import make_reporter
    from mlipdb.trainers.train import resume as go_on
    from mlipdb.trainers.train import train as start

    if processes is not None:
        join(processes)
    settings = _settings(setting, model=model, align=align, kernel=kernel)
    reporter = make_reporter(sys.stderr)
    if subset is not None and resume is None:
        chosen = load_recipe(recipe or "nano", settings=settings)
        db, taught = open_database(context), {"teacher": teacher, "name": name}
        result = start(db, subset, recipe=chosen, reporter=reporter, accept_labels=accept_labels, **taught)
    elif resume is not None and not (subset or settings or teacher or name or recipe or accept_labels):
        result = go_on(open_database(context), resume, reporter=reporter)
    else:
        raise typer.BadParameter(
            "give --subset to start a run; or --resume RUN alone, since a run keeps its subset, recipe and teacher"
        )
    if is_first():
        show_result(result, json=json)


def _settings(
    settings: list[str] | None, *, model: str | None, align: str | None, kernel: str | None
) -> tuple[str, ...]:
    """--model, --align and --kernel are settings with options of their own."""
    found = list(settings or ())
    found += [f'model.name="{model}"'] if model else []
    found += [f'distillation.alignment="{align}"'] if align else []
    found += [f'kernel="{kernel}"'] if kernel else []
    return tuple(found)


def show_result(result: "TrainResult", *, json: bool) -> None:
    """The run's name on stdout, or everything as JSON; what to do next on stderr."""
    if json:
        places = {"path": str(result.folder), "best_checkpoint": str(result.best)}
        show_json({"run": result.name, "subset": result.subset, **places, **result.metrics})
        return
    talk(f"best checkpoint: {result.best}\nnext: mlipdb evaluate {result.name} --subset '{result.subset}'")
    print(result.name)
