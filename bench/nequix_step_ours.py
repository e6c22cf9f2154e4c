"""Our side of bench/nequix_step.py."""

import sys
import time
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import nequix_cases as cases
import numpy as np

from mlipdb.structures import make_structure
from mlipdb.trainers import Calculator
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.models.base import reference_energies
from mlipdb.trainers.models.derive import predict
from mlipdb.trainers.models.nqx import load_nqx
from mlipdb.trainers.optimizer import make_optimizer, trainable
from mlipdb.trainers.recipe import OptimizerRecipe


def salt_batch(model):
    """The padded graph of the salts, and their energies without E0 and forces."""
    salts, forces = cases.rock_salts()
    structures = [make_structure(a.numbers, a.positions, cell=a.cell.array, pbc=(True, True, True)) for a in salts]
    lists = [neighbours(structure, model.cutoff) for structure in structures]
    needed = needed_shape(structures, lists)
    shape = GraphShape(needed.atoms, needed.edges + 8, needed.graphs)
    graph = jax.tree.map(jnp.asarray, pad_graph(structures, lists, shape=shape))
    energies = [cases.ENERGY - reference_energies(model, structure).sum() for structure in structures]
    wanted_forces = np.concatenate([*forces, np.zeros((1, 3))])
    return graph, jnp.asarray([*energies, 0.0], jnp.float32), jnp.asarray(wanted_forces, jnp.float32)


def loss(model, graph, energies, forces):
    """Mean |ΔE|/N, mean ‖ΔF‖ and mean |Δσ| with the weights of both sides."""
    found = predict(model, graph)
    per_atom = jnp.abs(found.energy - energies) / jnp.maximum(graph.atom_count, 1)
    squares = jnp.square(found.forces - forces).sum(axis=1)
    lengths = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    graphs, atoms = graph.graph_mask.sum(), graph.atom_mask.sum()
    terms = (
        jnp.where(graph.graph_mask, per_atom, 0.0).sum() / graphs,
        jnp.where(graph.atom_mask, lengths, 0.0).sum() / atoms,
        jnp.abs(found.stress).sum() / (9 * graphs),
    )
    return sum(weight * term for weight, term in zip(cases.WEIGHTS, terms, strict=True))


def step_times(model, batch):
    """With the optimizer of a training here, which does what the peer's does; its updates are for a rate of 1."""
    optimizer = make_optimizer(OptimizerRecipe(name="muon", weight_decay=1e-3, clip_norm=100.0))
    state = optimizer.init(eqx.filter(model, trainable(model)))

    @partial(compiled, sums_in_stages=model.has_long_sums)
    def step(model, state, batch):
        value, gradient = eqx.filter_value_and_grad(loss)(model, *batch)
        parameters, fixed = eqx.partition(model, trainable(model))
        updates, state = optimizer.update(eqx.filter(gradient, trainable(model)), state, parameters)
        moved = jax.tree.map(lambda value, update: value + 1e-2 * update, parameters, updates)
        return eqx.combine(moved, fixed), state, value

    run = lambda: jax.block_until_ready(step(model, state, batch))  # noqa: E731
    start = time.process_time()
    value = run()[2]
    compiling = time.process_time() - start
    infer = compiled(predict)
    evaluate = lambda: jax.block_until_ready(infer(model, batch[0]))  # noqa: E731
    evaluate()
    return {"compile": compiling, "step": cases.seconds(run), "evaluate": cases.seconds(evaluate), "loss": float(value)}


def crystal_results(model, structures, *, prefix=""):
    calculator = Calculator(model)
    for atoms in cases.crystals(structures):
        atoms.calc = calculator
        found = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False))
        yield {prefix + name: value for name, value in zip(("energy", "forces", "stress"), found, strict=True)}


def main(weights, structures, norm, output):
    model, _ = load_nqx(weights)
    times = step_times(model, salt_batch(model))
    times["norm"] = model.config.activation_norm
    hessian = partial(Calculator(model).get_hessian, cases.hessian_crystal())
    hessian()
    times["hessian"] = cases.seconds(hessian, 3)
    shipped = crystal_results(model, structures, prefix="shipped-")
    same_norm = replace(model, config=replace(model.config, activation_norm=float(norm)))
    pairs = zip(shipped, crystal_results(same_norm, structures), strict=True)
    results = [first | second for first, second in pairs]
    cases.report(output, times, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
