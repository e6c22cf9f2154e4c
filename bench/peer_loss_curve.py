"""The PyPI nequix side of bench/loss_curve.py; runs in the environment where that package is installed."""

import json
import sys

import equinox as eqx
import jax
import jraph
import nequix_cases as cases
import numpy as np
import optax
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import load_model, weight_decay_mask
from nequix.train import loss


def make_optimizer(model, settings, *, batches):
    rate = optax.warmup_cosine_decay_schedule(
        init_value=settings["learning_rate"] * settings["warmup_start"],
        peak_value=settings["learning_rate"],
        end_value=settings["final"],
        warmup_steps=settings["warmup_steps"],
        decay_steps=settings["epochs"] * batches,
    )
    muon = optax.contrib.muon(rate, weight_decay=settings["weight_decay"], weight_decay_mask=weight_decay_mask(model))
    return optax.chain(optax.clip_by_global_norm(settings["clip_norm"]), muon)


def batches_of(crystals, plan, config):
    index = atomic_numbers_to_indices(config["atomic_numbers"])
    graphs = [dict_to_graphstuple(preprocess_graph(atoms, index, config["cutoff"], True)) for atoms in crystals]
    joined = [jraph.batch_np([graphs[place] for place in row]) for row in plan]
    atoms, edges = (max(int(getattr(one, name).sum()) for one in joined) for name in ("n_node", "n_edge"))
    return [jraph.pad_with_graphs(one, atoms + 1, edges + 1, plan.shape[1] + 1) for one in joined]


def main(weights, structures, plan, settings, output):
    plan, settings = np.load(plan), json.loads(settings)
    model, config = load_model(weights)
    batches = batches_of(cases.crystals(structures, count=plan.size), plan, config)
    optimizer = make_optimizer(model, settings, batches=len(batches))
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state, batch):
        (value, _), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, batch, *settings["weights"], "mae")
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, value

    found = []
    for _ in range(settings["epochs"]):
        for batch in batches:
            model, state, value = step(model, state, jax.tree.map(np.asarray, batch))
            found.append(float(value))
    np.save(output, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
