"""Fine-tuning from a database: everything that a strategy needs is made ready, then the one training loop runs."""

import json
from dataclasses import dataclass, replace

from mlipdb import registry
from mlipdb.database import Database
from mlipdb.errors import ConfigError
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.devices import from_first
from mlipdb.trainers.finetune.pseudo import pseudo_label
from mlipdb.trainers.finetune.replay_set import ReplayChoice, check_choice, replay_set
from mlipdb.trainers.finetune.strategy import Strategy, find_strategy
from mlipdb.trainers.foundation import REPLAY_HEAD
from mlipdb.trainers.foundation_place import foundation_name, foundation_place, run_of
from mlipdb.trainers.foundation_weights import fingerprint, read_foundation, require_known
from mlipdb.trainers.prepare import Say, subset_elements
from mlipdb.trainers.progress import Reporter
from mlipdb.trainers.recipe import FinetuneRecipe, Recipe
from mlipdb.trainers.runs import free_name
from mlipdb.trainers.settings import build, to_mapping
from mlipdb.trainers.train import TrainResult, train


@dataclass(frozen=True, kw_only=True)
class FinetuneWish:
    """What is fine-tuned: a model by name or path (NAME@HEAD for one head of several), on a subset or a filter.

    replay is what is learnt again beside it, for the strategies that do that. name is what to call the run.
    accept_labels learns a teacher's labels though they contradict the DFT labels.
    """

    foundation: str
    subset: str
    replay: ReplayChoice | None = None
    name: str | None = None
    accept_labels: bool = False


def finetune(db: Database, wish: FinetuneWish, *, recipe: Recipe, reporter: Reporter) -> TrainResult:
    """Fine-tune a model as the recipe of a strategy (strategy_recipe) says.

    Raises ConfigError where strategy and wish do not fit, TrainError for elements that the model does not know, and as
    train does. `resume` of mlipdb.trainers.train goes on with a run that was interrupted.
    """

    def make() -> bytes:
        found = _resolved(db, wish, recipe=recipe, say=reporter.say)
        return json.dumps(to_mapping(found)).encode()

    resolved = build(Recipe, json.loads(from_first(make)))
    frozen = subsets.resolve(db, wish.subset)
    return train(
        db,
        frozen.name,
        recipe=resolved,
        reporter=reporter,
        name=wish.name or _name(db, frozen, resolved),
        accept_labels=wish.accept_labels,
        parent=run_of(db, wish.foundation),
    )


def _name(db: Database, frozen: FrozenSubset, recipe: Recipe) -> str:
    stem = f"{frozen.name}-{recipe.finetune.strategy}"
    return from_first(lambda: free_name(db, stem).encode()).decode()


def _resolved(db: Database, wish: FinetuneWish, *, recipe: Recipe, say: Say) -> Recipe:
    """The recipe with the foundation found, and with its replay set frozen and labelled."""
    strategy = find_strategy(recipe.finetune.strategy)
    _check_wish(wish, strategy, recipe.finetune)
    name = foundation_name(db, wish.foundation)
    place = foundation_place(db, name)
    model = read_foundation(place)
    frozen = subsets.resolve(db, wish.subset)
    require_known(model, subset_elements(db, frozen), of=f"subset {frozen.name!r}")
    tuned = replace(recipe.finetune, foundation=name, sha256=fingerprint(place))
    if tuned.learns == FinetuneRecipe().learns:
        tuned = replace(tuned, learns=strategy.learns(model))
    if wish.replay is not None and tuned.replay_weight > 0:
        chosen = replay_set(db, wish.replay, target=frozen, model=model, foundation=tuned.sha256, say=say)
        tuned = replace(tuned, replay=chosen.name)
        if strategy.replay == "pseudo":
            method = pseudo_label(db, chosen, foundation=place, sha256=tuned.sha256, say=say)
            tuned = replace(tuned, replay_method=str(method), replay_energy="energy_uncorrected")
    return replace(recipe, model={"name": registry.name_of("mlipdb.models", type(model))}, finetune=tuned)


def _check_wish(wish: FinetuneWish, strategy: Strategy, recipe: FinetuneRecipe) -> None:
    if wish.replay is not None:
        check_choice(wish.replay)
    if recipe.head == REPLAY_HEAD:
        raise ConfigError(
            f"--head {REPLAY_HEAD} is what a replay calls the foundation's own readout; choose another name"
        )
    if strategy.replay == "none" and recipe.head != FinetuneRecipe().head:
        raise ConfigError(
            f"strategy {strategy.name} leaves one readout, which has no name; leave --head {recipe.head} out, or use a "
            "strategy with replay, which keeps the foundation's beside it"
        )
    if strategy.replay == "none" and wish.replay is not None:
        raise ConfigError(f"strategy {strategy.name} replays nothing; leave --replay out, or use --strategy replay")
    if strategy.replay != "none" and wish.replay is None and recipe.replay_weight > 0:
        raise ConfigError(
            f"strategy {strategy.name} needs what is replayed: --replay with a subset or filter of structures such as "
            "the foundation was trained on (--replay-weight 0 leaves it out)"
        )
    if recipe.replay_bound and (wish.replay is None or not recipe.replay_weight):
        raise ConfigError(
            "finetune.replay_bound is of the errors on what is replayed, and nothing is; take a strategy with --replay "
            "(its weight above 0), or set finetune.replay_bound=0"
        )
