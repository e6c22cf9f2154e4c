"""The PyPI nequix side of bench/nequix_step.py; runs in the environment where that package is installed."""

import sys
import time
from functools import partial

import e3nn_jax
import equinox as eqx
import jax
import jraph
import nequix_cases as cases
import numpy as np
import optax
from ase.calculators.singlepoint import SinglePointCalculator
from nequix.calculator import NequixCalculator
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import load_model, weight_decay_mask
from nequix.train import loss


def graph_of(atoms, forces, *, index, cutoff):
    atoms.calc = SinglePointCalculator(atoms, energy=cases.ENERGY, forces=forces, stress=np.zeros(6))
    return dict_to_graphstuple(preprocess_graph(atoms, index, cutoff, True))


def step_times(model, batch):
    optimizer = optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.contrib.muon(1e-2, weight_decay=1e-3, weight_decay_mask=weight_decay_mask(model)),
    )
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state, batch):
        (value, _), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, batch, *cases.WEIGHTS, "mae")
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), state, value

    run = lambda: jax.block_until_ready(step(model, state, batch))  # noqa: E731
    start = time.process_time()
    value = run()[2]
    compiling = time.process_time() - start
    infer = eqx.filter_jit(lambda model, batch: model(batch))
    evaluate = lambda: jax.block_until_ready(infer(model, batch))  # noqa: E731
    evaluate()
    return {"compile": compiling, "step": cases.seconds(run), "evaluate": cases.seconds(evaluate), "loss": float(value)}


def main(weights, structures, output):
    model, config = load_model(weights)
    make = partial(graph_of, index=atomic_numbers_to_indices(config["atomic_numbers"]), cutoff=config["cutoff"])
    joined = jraph.batch_np([make(*pair) for pair in zip(*cases.rock_salts(), strict=True)])
    sizes = int(joined.n_node.sum()) + 1, int(joined.n_edge.sum()) + 8, len(joined.n_node) + 1
    times = step_times(model, jraph.pad_with_graphs(joined, *sizes))
    calculator = NequixCalculator(model_path=weights, use_kernel=False)
    hessian = partial(calculator.get_hessian, cases.hessian_crystal())
    hessian()
    times["hessian"] = cases.seconds(hessian, 3)
    # silu over its norm is what the package applies; it integrates the norm numerically, for each version of JAX anew
    times["norm"] = float(jax.nn.silu(1.0) / e3nn_jax.normalize_function(jax.nn.silu)(1.0))
    infer = eqx.filter_jit(lambda batch: model(batch))
    graphs = [make(atoms, np.zeros((len(atoms), 3))) for atoms in cases.crystals(structures)]
    edges = max(int(graph.n_edge.sum()) for graph in graphs)
    results = []
    for graph in graphs:
        energy, forces, stress = infer(jraph.pad_with_graphs(graph, 16, edges + 1, 2))
        count = int(graph.n_node.sum())
        results.append({"energy": energy[0], "forces": forces[:count], "stress": stress[0]})
    cases.report(output, times, results)


if __name__ == "__main__":
    main(*sys.argv[1:])
