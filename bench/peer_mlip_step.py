"""The PyPI mlip side of bench/mlip_step.py: its NequIP; runs in the environment where that package is installed."""

import json
import sys
import time

import jax
import jax.numpy as jnp
import nequix_cases as cases
import numpy as np
import optax
from mlip.data.chemical_system import ChemicalSystem
from mlip.data.dataset_info import DatasetInfo
from mlip.graph import Graph
from mlip.graph.batching_helpers import batch_graphs, pad_with_graphs
from mlip.models import ForceField, Nequip
from mlip.typing.properties import Properties


def make_force_field(settings, *, hessian):
    info = DatasetInfo(
        atomic_energies_map=dict.fromkeys(settings["elements"], 0.0),
        graph_cutoff_angstrom=settings["cutoff"],
        avg_num_neighbors=60.0,
    )
    config = Nequip.Config(
        num_layers=settings["n_layers"],
        target_irreps=settings["irreps"],
        l_max=settings["lmax"],
        num_rbf=8,
        radial_mlp_hidden=[64, 64],
    )
    wanted = Properties(energy=True, forces=True, stress=True, hessian=hessian)
    return ForceField.from_mlip_network(Nequip(config, info), wanted)


def salt_batch(settings):
    systems = [
        ChemicalSystem(
            atomic_numbers=a.numbers,
            positions=a.positions,
            cell=a.cell.array,
            pbc=(True, True, True),
            energy=cases.ENERGY,
            forces=forces,
            stress=np.zeros((3, 3)),
        )
        for a, forces in zip(*cases.rock_salts(), strict=True)
    ]
    joined = batch_graphs([Graph.from_chemical_system(system, settings["cutoff"]) for system in systems])
    sizes = int(joined.n_node.sum()) + 1, int(joined.n_edge.sum()) + 8, len(joined.n_node) + 1
    padded = pad_with_graphs(joined, *sizes)
    narrow = lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(narrow(np.asarray(leaf))), padded)


def loss(params, predictor, graph, rows):
    """Mean |ΔE|/N, mean ‖ΔF‖ and mean |Δσ| with the weights of both sides; rows are learnt to be zero, if there are."""
    found = predictor.apply(params, graph)
    atoms, graphs = graph.node_mask(), graph.graph_mask()
    per_atom = jnp.abs(found.globals.energy - graph.globals.energy) / jnp.maximum(graph.n_node, 1)
    squares = jnp.square(found.nodes.forces - graph.nodes.forces).sum(axis=1)
    lengths = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    stress = jnp.where(graphs[:, None, None], jnp.abs(found.globals.stress), 0.0)
    terms = (
        jnp.where(graphs, per_atom, 0.0).sum() / graphs.sum(),
        jnp.where(atoms, lengths, 0.0).sum() / atoms.sum(),
        stress.sum() / (9 * graphs.sum()),
    )
    value = sum(weight * term for weight, term in zip(cases.WEIGHTS, terms, strict=True))
    return value + (2.0 * jnp.abs(found.nodes.hessian).sum() / atoms.sum() if rows else 0.0)


def step_times(settings, *, rows):
    field, graph = make_force_field(settings, hessian=rows > 0), salt_batch(settings)
    if rows:
        numbers = np.random.default_rng(1).permutation(48)[:rows]
        dofs = np.tile(numbers, (len(graph.n_node), 1)).astype(np.int32)
        dofs[-1] = 0
        graph = graph.replace_globals(sample_hessian_rows=jnp.asarray(dofs))
    optimizer = optax.chain(optax.clip_by_global_norm(100.0), optax.adamw(1e-3, weight_decay=1e-3))
    params, state = field.params, optimizer.init(field.params)

    @jax.jit
    def step(params, state, graph):
        value, gradient = jax.value_and_grad(loss)(params, field.predictor, graph, rows)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    start = time.process_time()
    found = jax.block_until_ready(step(params, state, graph))
    times = {"compile": time.process_time() - start, "loss": float(found[2])}
    times["step"] = cases.seconds(lambda: jax.block_until_ready(step(params, state, graph)))
    if not rows:
        infer = jax.jit(lambda params, graph: field.predictor.apply(params, graph).to_prediction())
        jax.block_until_ready(infer(params, graph))
        times["evaluate"] = cases.seconds(lambda: jax.block_until_ready(infer(params, graph)))
        times["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
    return times


def main(settings, output):
    settings = json.loads(settings)
    cases.report(output, step_times(settings, rows=settings["rows"]), [])


if __name__ == "__main__":
    main(*sys.argv[1:])
