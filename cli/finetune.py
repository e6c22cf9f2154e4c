"""`mlipdb finetune`: a trained model goes on learning on a subset."""

import sys
from typing import Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database
from mlipdb.cli.train import show_result


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
    replay_pick: Annotated[str, typer.Option(help="random, farthest or disagreement.")] = "random",
    replay_elements: Annotated[
        str, typer.Option(help="any, within, exactly or containing: against the elements of --subset.")
    ] = "any",
    e0: Annotated[
        str | None, typer.Option(help="reestimate, foundation, fit, isolated, isolated:SOURCE or a JSON file in eV.")
    ] = None,
    head: Annotated[str | None, typer.Option(help="What to call the new readout, beside a replay's.")] = None,
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
    reporter = make_reporter(sys.stderr)
    if foundation is not None and subset is not None and resume is None:
        chosen = strategy_recipe(strategy, base=recipe, settings=settings)
        choice = _choice(replay, size=replay_size, how=replay_pick, elements=replay_elements, seed=chosen.seed)
        wish = FinetuneWish(foundation=foundation, subset=subset, replay=choice, name=name, accept_labels=accept_labels)
        result = start(open_database(context), wish, recipe=chosen, reporter=reporter)
    elif resume is not None and not (foundation or subset or settings or replay or name):
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


def _choice(source: str | None, **options: Any) -> Any:
    from mlipdb.trainers.finetune import ReplayChoice

    return None if source is None else ReplayChoice(source=source, **options)
