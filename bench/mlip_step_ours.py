"""Our side of bench/mlip_step.py: Nequix of the recipe nequix-mp."""

import json
import sys
import time
from dataclasses import replace

import jax
import nequix_cases as cases
import row_cost

from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.models.derive import predict
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.step import initial_state, make_train_step


def step_times(rows):
    model = row_cost.make_model("nequix-mp")
    batch = row_cost.make_batch(model, rows)
    optimizer = make_optimizer(replace(load_recipe("nequix-mp").optimizer, name="adamw"))
    inputs = (batch, jax.numpy.float32(1e-3), make_losses(row_cost.TERMS | (row_cost.ROWS if rows else {})))
    state = initial_state(model, optimizer)
    step = make_train_step(optimizer, ema_decay=0.999, sums_in_stages=model.has_long_sums)

    def run():
        nonlocal state
        state, outcome = jax.block_until_ready(step(inputs, state))
        return outcome

    start = time.process_time()
    outcome = run()
    times = {"compile": time.process_time() - start, "loss": float(outcome.loss), "step": cases.seconds(run)}
    if not rows:
        infer = compiled(predict)
        jax.block_until_ready(infer(model, batch.graph))
        times["evaluate"] = cases.seconds(lambda: jax.block_until_ready(infer(model, batch.graph)))
        times["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(model))
    return times


def main(settings, output):
    cases.report(output, step_times(json.loads(settings)["rows"]), [])


if __name__ == "__main__":
    main(*sys.argv[1:])
