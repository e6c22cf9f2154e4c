"""The model of step 0 of a fine-tuning, made of the foundation."""

from collections.abc import Sequence
from dataclasses import replace

import jax

from mlipdb.errors import ConfigError
from mlipdb.trainers.foundation_weights import carried_heads, foundation_model
from mlipdb.trainers.models.base import AbstractModel, AbstractTrunked
from mlipdb.trainers.models.heads import AbstractHeaded, Head, with_heads
from mlipdb.trainers.models.lora import Adapted, adapt
from mlipdb.trainers.prepare import Prepared, Say
from mlipdb.trainers.recipe import Recipe

REPLAY_HEAD = "foundation"


def start_model(prepared: Prepared, recipe: Recipe, *, say: Say) -> AbstractModel | Adapted:
    """The foundation with the E0s that were prepared; with a head each for target and replay; with LoRA factors.

    At step 0 it predicts what the foundation does, but for those E0s. Heads that the foundation has beside the one that
    is started from come last, as they are.
    """
    tuned, facts = recipe.finetune, prepared.facts
    foundation, carried = foundation_model(recipe), carried_heads(tuned.foundation)
    model: AbstractModel = foundation.with_reference(e0=dict(zip(facts.atomic_numbers, facts.e0, strict=True)))
    if prepared.replay is not None or carried is not None:
        model = _headed(model, prepared, recipe, foundation=foundation, carried=carried)
    if not tuned.lora_rank:
        return model
    adapted = adapt(model, rank=tuned.lora_rank, alpha=tuned.lora_alpha, key=jax.random.key(recipe.seed))
    say(f"LoRA of rank {tuned.lora_rank}: {sum(leaf.size for leaf in jax.tree.leaves(adapted.factors))} numbers learn")
    return adapted


def heads_after(before: Sequence[str], *, head: str, replays: bool) -> tuple[str, ...]:
    """Names of the heads of a fine-tuning from a model with such heads (none: one readout), in their order.

    First the new one, which starts as the first of those before and takes its place where it has its name; then, with
    replay, that first one, which goes on learning what is replayed; then the others. Raises ConfigError for a name that
    would be there twice.
    """
    first = before[0] if before else head
    kept = (first if head != first else REPLAY_HEAD,) if replays else ()
    names = (head, *kept, *before[1 if replays or head == first else 0 :])
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"the foundation has the heads {', '.join(before)}, and with --head {head} two would be called {twice!r}; "
            "give the new one another name with --head, or leave the others behind with --from NAME@HEAD"
        )
    return names


def _headed(
    model: AbstractModel,
    prepared: Prepared,
    recipe: Recipe,
    *,
    foundation: AbstractTrunked,
    carried: AbstractHeaded | None,
) -> AbstractModel:
    """The model, with its new E0s, as the first of the heads that heads_after says."""
    replay, before = prepared.replay, () if carried is None else carried.heads
    names = heads_after([head.name for head in before], head=recipe.finetune.head, replays=replay is not None)
    heads = [Head(name=names[0], energy=recipe.data.energy, method=prepared.method, e0=prepared.facts.e0)]
    if replay is not None:
        e0 = tuple(foundation.e0.tolist())
        heads.append(Head(name=names[1], energy=replay.convention.energy, method=replay.method, e0=e0))
    if carried is None:
        return with_heads(model, heads)
    rest = len(names) - len(heads)
    places = [0] * len(heads) + list(range(len(before) - rest, len(before)))
    own = [replace(head, scale=before[0].scale, shift=before[0].shift) for head in heads]
    return type(carried)(
        shared=carried.shared,
        readouts=tuple(carried.readouts[place] for place in places),
        heads=(*own, *before[len(before) - rest :]),
    )
