"""The model of step 0 of a fine-tuning, made of the foundation."""

import jax

from mlipdb.trainers.foundation_weights import foundation_model
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.heads import Head, with_heads
from mlipdb.trainers.models.lora import Adapted, adapt
from mlipdb.trainers.prepare import Prepared, Say
from mlipdb.trainers.recipe import Recipe

REPLAY_HEAD = "foundation"


def start_model(prepared: Prepared, recipe: Recipe, *, say: Say) -> AbstractModel | Adapted:
    """The foundation with the E0s that were prepared; with a head each for target and replay; with LoRA factors.

    At step 0 it predicts what the foundation does, but for those E0s.
    """
    tuned, facts = recipe.finetune, prepared.facts
    foundation = foundation_model(recipe)
    model: AbstractModel = foundation.with_reference(e0=dict(zip(facts.atomic_numbers, facts.e0, strict=True)))
    if prepared.replay is not None:
        energy = prepared.replay.convention.energy
        target = Head(name=tuned.head, energy=recipe.data.energy, method=prepared.method, e0=facts.e0)
        kept = Head(name=REPLAY_HEAD, energy=energy, method=prepared.replay.method, e0=tuple(foundation.e0.tolist()))
        model = with_heads(model, [target, kept])
    if not tuned.lora_rank:
        return model
    adapted = adapt(model, rank=tuned.lora_rank, alpha=tuned.lora_alpha, key=jax.random.key(recipe.seed))
    say(f"LoRA of rank {tuned.lora_rank}: {sum(leaf.size for leaf in jax.tree.leaves(adapted.factors))} numbers learn")
    return adapted
