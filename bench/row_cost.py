"""What Hessian rows and the term of atomic energies add to a training step, of Nequix small and published, and PaiNN.

    OMP_NUM_THREADS=1 taskset -c 0 python bench/row_cost.py --rounds 9

Steps with and without them are taken in turns, in random order, on the batch of bench/nequix_step.py, eight rattled
rock salts of 16 atoms; figures are medians of CPU seconds, which other work on the machine hardly changes; wall time
stands beside them. The labels are random: they cost what real ones cost. Exits 1 where one row adds more than 60 %,
four more than 150 %, or the term of atomic energies more than 0.5 % by the operations that the compiler counts (its
time is below what a clock tells).
"""

import argparse
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import nequix_cases as cases
import numpy as np

from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph
from mlipdb.trainers.compiled import compiler_options
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.graph import Batch, Targets
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.step import initial_state, make_train_step
from mlipdb.trainers.student import DataFacts, make_student

TERMS = {"energy_mae": 20.0, "forces_l2": 20.0, "stress_mae": 5.0}
ROWS = {"hessian_rows": 2.0}
CASES = {
    "plain": (0, {}),
    "atomic energies": (0, {"atomic_energies_mae": 20.0}),
    "1 row": (1, ROWS),
    "4 rows": (4, ROWS),
}
LIMITS = {"atomic energies": 0.5, "1 row": 60.0, "4 rows": 150.0}
MODELS = {
    "nano": load_recipe("nano").model,
    "nequix-mp": load_recipe("nequix-mp").model,
    "painn": {"name": "painn", "cutoff": 6.0},
}


def make_model(name):
    elements = sorted({int(number) for atoms in cases.rock_salts()[0] for number in atoms.numbers})
    facts = DataFacts(
        atomic_numbers=tuple(elements), e0=(0.0,) * len(elements), scale=1.0, shift=0.0, avg_n_neighbors=60.0
    )
    return make_student(MODELS[name], facts, seed=0)


def make_batch(model, rows):
    """The padded graph of the salts with every label there is."""
    salts, _ = cases.rock_salts()
    structures = [make_structure(a.numbers, a.positions, cell=a.cell.array, pbc=(True, True, True)) for a in salts]
    lists = [neighbours(structure, model.cutoff, needs=model.graph_needs) for structure in structures]
    needed = needed_shape(structures, lists)
    shape = GraphShape(needed.atoms, needed.edges + 8, needed.graphs)
    return jax.tree.map(jnp.asarray, Batch(pad_graph(structures, lists, shape=shape), _targets(shape, rows)))


def _targets(shape, rows):
    rng = np.random.default_rng(1)
    normal = lambda *size: rng.normal(size=size).astype(np.float32)  # noqa: E731
    dofs = np.full((rows, shape.graphs), -1, np.int32)
    dofs[:, :8] = 48 * np.arange(8) + rng.permutation(48)[:rows, None]
    there = np.ones(shape.graphs, bool)
    return Targets(
        energy=normal(shape.graphs),
        has_energy=there,
        forces=normal(shape.atoms, 3),
        has_forces=there,
        stress=normal(shape.graphs, 3, 3),
        has_stress=there,
        atomic_energies=normal(shape.atoms),
        has_atomic_energies=there,
        hessian_dofs=dofs,
        hessian_rows=normal(rows, shape.atoms, 3),
        has_hessian_row=dofs >= 0,
    )


class Stepper:
    """One case: its compiled step, and the state that goes through it."""

    def __init__(self, model, case):
        rows, extra = CASES[case]
        recipe = load_recipe("nequix-mp").optimizer
        optimizer = make_optimizer(recipe)
        self.inputs = (make_batch(model, rows), jnp.asarray(1e-4, jnp.float32), make_losses({**TERMS, **extra}))
        self.state = initial_state(model, optimizer)
        start = time.process_time()
        step = make_train_step(optimizer, ema_decay=0.999).__wrapped__
        options = compiler_options(sums_in_stages=model.has_long_sums)
        jit = eqx.filter_jit(step, donate="all-except-first", compiler_options=options)
        self.step = jit.lower(self.inputs, self.state).compile()
        self.compiling = time.process_time() - start
        self.operations = self.step.compiled.cost_analysis()["flops"]
        self.memory = self.step.compiled.memory_analysis().temp_size_in_bytes / 2**20
        self.seconds()

    def seconds(self):
        """CPU and wall."""
        start = np.array([time.process_time(), time.perf_counter()])
        self.state, outcome = jax.block_until_ready(self.step(self.inputs, self.state))
        assert bool(outcome.finite)
        return np.array([time.process_time(), time.perf_counter()]) - start


def measure(name, rounds, cases):
    """Prints a table of one model; whether it is within the limits."""
    model = make_model(name)
    steppers = {case: Stepper(model, case) for case in cases}
    times = {case: [] for case in cases}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for case in order.permutation(cases):
            times[case].append(steppers[case].seconds())
    medians = {case: np.median(measured, axis=0) for case, measured in times.items()}
    plain = medians["plain"][0]
    fine = True
    for case, stepper in steppers.items():
        seconds, wall = medians[case]
        added = 100 * (seconds / plain - 1)
        operations = 100 * (stepper.operations / steppers["plain"].operations - 1)
        print(
            f"{name:10}{case:16}{seconds:8.3f} s {added:+7.1f} %  wall {wall:7.3f} s  operations {operations:+7.2f} %"
            f"  memory {stepper.memory:6.0f} MiB  compile {stepper.compiling:5.1f} s"
        )
        judged = operations if case == "atomic energies" else added
        fine &= judged <= LIMITS.get(case, np.inf)
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="beside plain")
    options = parser.parse_args()
    cases = [case for case in CASES if case == "plain" or case in options.cases]
    fine = [measure(name, options.rounds, cases) for name in options.models]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
