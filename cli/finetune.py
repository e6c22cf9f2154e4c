"""`mlipdb finetune`: a trained model goes on learning on a subset."""

import sys
from typing import Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database
from mlipdb.cli.train import show_result

_OPTIONS = {"how": "pick"}


def finetune(
    context: typer.Context,
    foundation: Annotated[
        str | None, typer.Option("--from", help="A run, checkpoint folder, .nqx file or published name; NAME@HEAD.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="A frozen subset or a filter, which is frozen first.")] = None,
    strategy: Annotated[
        str,
        typer.Option(help="naive, freeze-conv, freeze-backbone, lora, replay, pseudo-replay or replay-lora."),
    ] = "naive",
    replay: Annotated[str | None, typer.Option(help="A frozen subset or a filter to learn again beside it.")] = None,
    replay_size: Annotated[int | None, typer.Option(help="Pick so many of --replay; else all of it.")] = None,
    replay_weight: Annotated[float | None, typer.Option(help="Of the mean loss on the replay; 0 for none.")] = None,
    replay_pick: Annotated[
        str | None, typer.Option(help="random (if not given), farthest or disagreement; of --replay-size.")
    ] = None,
    replay_elements: Annotated[
        str | None, typer.Option(help="any (if not given), within, exactly or containing the elements of --subset.")
    ] = None,
    e0: Annotated[
        str | None, typer.Option(help="reestimate, foundation, fit, isolated, isolated:SOURCE or a JSON file in eV.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="With replay: what to call the new readout, beside the foundation's.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="A name that `mlipdb recipe list` shows, or a .toml file.")] = "finetune",
    setting: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe; repeatable.")] = None,
    accept_labels: Annotated[
        bool, typer.Option("--accept-labels", help="Learn a teacher's labels though they contradict the DFT labels.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call the run.")] = None,
    resume: Annotated[str | None, typer.Option(help="Go on with this run; it keeps everything else.")] = None,
    json: JsonOption = False,
) -> None:
    """Fine-tune a trained model: it starts from its weights and energies, and need not forget what it knew."""
    from mlipdb.trainers.finetune import FinetuneWish, strategy_recipe
    from mlipdb.trainers.finetune import finetune as start
    from mlipdb.trainers.live import make_reporter
    from mlipdb.trainers.train import resume as go_on

    settings = _settings(setting, e0=e0, head=head, replay_weight=replay_weight)
    options = {"size": replay_size, "how": replay_pick, "elements": replay_elements}
    reporter = make_reporter(sys.stderr)
    if foundation is not None and subset is not None and resume is None:
        chosen = strategy_recipe(strategy, base=recipe, settings=settings)
        choice = _choice(replay, weight=replay_weight, seed=chosen.seed, **options)
        wish = FinetuneWish(foundation=foundation, subset=subset, replay=choice, name=name, accept_labels=accept_labels)
        result = start(open_database(context), wish, recipe=chosen, reporter=reporter)
    elif resume is not None and not any((foundation, subset, settings, replay, name, *options.values())):
        result = go_on(open_database(context), resume, reporter=reporter)
    else:
        raise typer.BadParameter("give --from and --subset to start a run; or --resume RUN alone")
    show_result(result, json=json)


def _settings(
    settings: list[str] | None, *, e0: str | None, head: str | None, replay_weight: float | None
) -> tuple[str, ...]:
    """--e0, --head and --replay-weight are settings with options of their own."""
    words = {"e0": e0, "head": head}
    found = [f'finetune.{key}="{value}"' for key, value in words.items() if value is not None]
    found += [] if replay_weight is None else [f"finetune.replay_weight={replay_weight}"]
    return (*found, *(settings or ()))


def _choice(source: str | None, *, weight: float | None, seed: int, **options: Any) -> Any:
    """What is replayed, None for nothing, and then no option may speak of it."""
    from mlipdb.trainers.finetune import ReplayChoice

    given = {name: value for name, value in options.items() if value is not None}
    if source is None:
        idle = [f"--replay-{_OPTIONS.get(name, name)}" for name in given] + ["--replay-weight"] * bool(weight)
        if idle:
            raise typer.BadParameter(
                f"{', '.join(idle)}: nothing is replayed; name it with --replay, or leave them out"
            )
        return None
    return ReplayChoice(source=source, seed=seed, **given)
