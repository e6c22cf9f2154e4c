"""Fine-tuning from a database: everything that a strategy needs is made ready, then the one training loop runs."""

import json
from collections.abc import Sequence
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
from mlipdb.trainers.foundation import REPLAY_HEAD, heads_after
from mlipdb.trainers.foundation_place import foundation_name, foundation_place, run_of
from mlipdb.trainers.foundation_weights import carried_heads, fingerprint, read_foundation, require_known
from mlipdb.trainers.models.base import AbstractDirectModel, AbstractModel, AbstractTrunked
from mlipdb.trainers.models.heads import AbstractHeaded, head_names
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
    carried = carried_heads(place)
    replays = wish.replay is not None and recipe.finetune.replay_weight > 0
    _check_head(strategy, recipe.finetune, before=() if carried is None else head_names(carried), replays=replays)
    frozen = subsets.resolve(db, wish.subset)
    require_known(model, subset_elements(db, frozen), of=f"subset {frozen.name!r}")
    tuned = replace(recipe.finetune, foundation=name, sha256=fingerprint(place))
    if tuned.learns == FinetuneRecipe().learns:
        tuned = replace(tuned, learns=_learns(strategy, model, carried, replays=replays))
    if wish.replay is not None and replays:
        chosen = replay_set(db, wish.replay, target=frozen, model=model, foundation=tuned.sha256, say=say)
        tuned = replace(tuned, replay=chosen.name)
        if strategy.replay == "pseudo":
            stress = not isinstance(model, AbstractDirectModel)
            method = pseudo_label(db, chosen, foundation=place, sha256=tuned.sha256, stress=stress, say=say)
            tuned = replace(tuned, replay_method=str(method), replay_energy="energy_uncorrected")
    named = {"name": registry.name_of("mlipdb.models", type(model))}
    return replace(recipe, model=named, finetune=tuned, loss=_losses(recipe, model, say=say))


def _check_head(strategy: Strategy, recipe: FinetuneRecipe, *, before: Sequence[str], replays: bool) -> None:
    if not (before or strategy.replay != "none" or recipe.head == FinetuneRecipe().head):
        raise ConfigError(
            f"strategy {strategy.name} leaves one readout, which has no name; leave --head {recipe.head} out, or use a "
            "strategy with replay, which keeps the foundation's beside it"
        )
    heads_after(before, head=recipe.head, replays=replays)


def _learns(
    strategy: Strategy, model: AbstractTrunked, carried: AbstractHeaded | None, *, replays: bool
) -> tuple[str, ...]:
    """What learns of the model; of one that carries other heads along, nothing of these heads' own."""
    if carried is None or strategy.lora_rank:
        return strategy.learns(model)
    own = tuple(f"readouts[{place}]*" for place in range(2 if replays else 1))
    known = {"*": ("shared*", *own), **dict.fromkeys(carried.readout_arrays, own)}
    return tuple(name for pattern in strategy.learns(carried) for name in known.get(pattern, (pattern,)))


def _losses(recipe: Recipe, model: AbstractModel, *, say: Say) -> dict[str, float]:
    """The weights of the recipe, without those that need a stress where the model has none."""
    if not isinstance(model, AbstractDirectModel):
        return recipe.loss
    idle = [name for name, weight in recipe.loss.items() if weight and "stress" in _needs(name)]
    if idle:
        say(f"{type(model).__name__} gives forces of its own and no stress: without {', '.join(idle)}")
    return {name: 0.0 if name in idle else weight for name, weight in recipe.loss.items()}


def _needs(loss: str) -> frozenset[str]:
    needs: frozenset[str] = registry.load("mlipdb.losses", loss).needs
    return needs


def _check_wish(wish: FinetuneWish, strategy: Strategy, recipe: FinetuneRecipe) -> None:
    if wish.replay is not None:
        check_choice(wish.replay)
    if recipe.head == REPLAY_HEAD:
        raise ConfigError(
            f"--head {REPLAY_HEAD} is what a replay calls the foundation's own readout; choose another name"
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
