"""A training step of published Nequix weights: all arrays, with Muon and with AdamW, beside low-rank changes of them.

    python bench/lora_step.py WEIGHTS.nqx --rank 4 --rounds 10

The kinds of step are taken in turns in one process, on the same batch with the same losses, so that a busy hour hits
all alike; times are medians over the rounds. Bytes are those of the optimiser's state and of the moving averages,
which, with the arrays that learn, are what a training holds beside the model. Exits 1 where a low-rank step takes more
than 1.05 times the Muon step, or has no less state than either.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import nequix_cases as cases
import numpy as np

from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import needed_shape, pad_graph
from mlipdb.trainers.graph import Batch, Targets
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.models.lora import adapt
from mlipdb.trainers.models.nqx import load_nqx
from mlipdb.trainers.optimizer import make_optimizer, trainable
from mlipdb.trainers.recipe import OptimizerRecipe
from mlipdb.trainers.step import initial_state, make_train_step

LOSSES = {"energy_mae": 20.0, "forces_l2": 20.0, "stress_mae": 5.0}


def salt_batch(model, *, count):
    """Rattled rock salts of 16 atoms with forces to fit, padded."""
    salts, forces = (found[:count] for found in cases.rock_salts())
    structures = [make_structure(a.numbers, a.positions, cell=a.cell.array, pbc=(True, True, True)) for a in salts]
    lists = [neighbours(structure, model.cutoff) for structure in structures]
    graph = pad_graph(structures, lists, shape=needed_shape(structures, lists))
    graphs, atoms, has = count + 1, len(graph.atom_mask), np.arange(count + 1) < count
    targets = Targets(
        energy=np.where(has, -1.0, 0.0).astype(np.float32),
        has_energy=has,
        forces=np.concatenate([*forces, np.zeros((1, 3))]).astype(np.float32),
        has_forces=has,
        stress=np.zeros((graphs, 3, 3), np.float32),
        has_stress=has,
        atomic_energies=np.zeros(atoms, np.float32),
        has_atomic_energies=np.zeros(graphs, bool),
        hessian_dofs=np.zeros((0, graphs), np.int32),
        hessian_rows=np.zeros((0, atoms, 3), np.float32),
        has_hessian_row=np.zeros((0, graphs), bool),
    )
    return jax.tree.map(jnp.asarray, Batch(graph, targets))


class Side:
    """One kind of step, with its state and times."""

    def __init__(self, model, recipe):
        optimizer = make_optimizer(recipe)
        self.step = make_train_step(optimizer, ema_decay=recipe.ema_decay, sums_in_stages=model.has_long_sums)
        self.state, self.times = initial_state(model, optimizer), []

    def advance(self, inputs):
        start = time.perf_counter()
        self.state, outcome = self.step(inputs, self.state)
        jax.block_until_ready((self.state, outcome))
        self.times.append(time.perf_counter() - start)

    def facts(self):
        """Compile time, median step, least and most in s, numbers that learn, bytes of optimiser state and averages."""
        flags = jax.tree.leaves(trainable(self.state.model))
        learns = sum(leaf.size for leaf, one in zip(jax.tree.leaves(self.state.model), flags, strict=True) if one)
        held = [
            sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (self.state.optimizer, self.state.average)
        ]
        steps = self.times[1:]
        return self.times[0], float(np.median(steps)), min(steps), max(steps), learns, *held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--structures", type=int, default=8, help="of 16 atoms in the batch, at most 8")
    options = parser.parse_args()
    model, _ = load_nqx(options.weights)
    recipe = OptimizerRecipe()
    low = adapt(model, rank=options.rank, alpha=1.0, key=jax.random.key(0))
    sides = {
        "naive, muon": Side(model, recipe),
        "naive, adamw": Side(model, replace(recipe, name="adamw")),
        f"lora, rank {options.rank}": Side(low, replace(recipe, name="adamw")),
    }
    inputs = (salt_batch(model, count=options.structures), jnp.float32(1e-5), make_losses(LOSSES))
    for _ in range(options.rounds + 1):
        for side in sides.values():
            side.advance(inputs)
    columns = (
        f"{'compile s':>10}{'step s':>10}{'least':>8}{'most':>8}{'learn':>10}{'optimiser B':>13}{'averages B':>12}"
    )
    print(" " * 16 + columns)
    found = {name: side.facts() for name, side in sides.items()}
    for name, (compiling, step, least, most, learns, state, average) in found.items():
        print(f"{name:16}{compiling:10.1f}{step:10.3f}{least:8.3f}{most:8.3f}{learns:10,}{state:13,}{average:12,}")
    muon, adamw, lora = found.values()
    print(f"lora over naive: step {lora[1] / muon[1]:.3f} of muon's, {lora[1] / adamw[1]:.3f} of adamw's")
    sys.exit(0 if lora[1] <= 1.05 * muon[1] and lora[5] < min(muon[5], adamw[5]) else 1)


if __name__ == "__main__":
    main()
