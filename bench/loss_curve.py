"""The loss of the recipe nequix-mp, step by step, beside that of PyPI nequix: same weights, same batches.

    python bench/loss_curve.py --structures mptrj-random-1k.xyz --peer-python peers/bin/python

The model is a reduced one with every kind of path, so that 300 steps end in minutes on two cores; optimiser, schedule,
losses and their weights are those of the recipe, with 10 epochs of 30 batches of 8 crystals. The first weights are
written as .nqx by mlipdb and read by the package; the neighbours, padding, loss, gradient, Muon and schedule of each
side are its own. Exits 1 where the mean of 30 steps, anywhere, is off by more than 1 %.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import nequix_cases as cases
import numpy as np

from mlipdb.structures import make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.graph import Batch, Targets
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.models.base import reference_energies
from mlipdb.trainers.models.nequix import Nequix, NequixConfig
from mlipdb.trainers.models.nqx import load_nqx, save_nqx
from mlipdb.trainers.optimizer import make_optimizer
from mlipdb.trainers.schedule import learning_rate
from mlipdb.trainers.step import initial_state, make_train_step

EPOCHS, BATCHES, GRAPHS, SMOOTHED, LIMIT = 10, 30, 8, 30, 0.01
SIZES = {
    "hidden_irreps": "32x0e + 16x1o + 8x2e + 8x3o",
    "lmax": 3,
    "n_layers": 3,
    "cutoff": 5.0,
    "radial_mlp_size": 32,
}


def structure_of(atoms):
    return make_structure(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=atoms.pbc)


def first_model(crystals):
    """A model with random weights and the facts of the crystals."""
    elements = sorted({int(number) for atoms in crystals for number in atoms.numbers})
    counts = np.array([[(atoms.numbers == number).sum() for number in elements] for atoms in crystals], float)
    energies = np.array([atoms.get_potential_energy() for atoms in crystals])
    e0 = np.linalg.lstsq(counts, energies, rcond=None)[0].astype(np.float32).astype(np.float64)
    structures = [structure_of(atoms) for atoms in crystals]
    edges = [len(neighbours(structure, SIZES["cutoff"]).senders) for structure in structures]
    config = NequixConfig(
        atomic_numbers=tuple(elements),
        e0=tuple(e0.tolist()),
        shift=float(((energies - counts @ e0) / counts.sum(axis=1)).mean()),
        scale=float(np.sqrt(np.concatenate([atoms.get_forces().ravel() ** 2 for atoms in crystals]).mean())),
        avg_n_neighbors=float(np.mean(np.array(edges) / counts.sum(axis=1))),
        **SIZES,
    )
    return Nequix.create(config, key=jax.random.key(0))


def targets_of(crystals, structures, model, shape):
    atoms = sum(len(structure) for structure in structures)
    spare = shape.graphs - len(crystals)
    there = np.arange(shape.graphs) < len(crystals)
    e0 = np.array([reference_energies(model, structure).sum() for structure in structures])
    energies = np.array([atoms.get_potential_energy() for atoms in crystals]) - e0
    forces = np.concatenate([a.get_forces() for a in crystals])
    stress = np.stack([a.get_stress(voigt=False) for a in crystals])
    return Targets(
        energy=np.pad(np.float32(energies), (0, spare)),
        has_energy=there,
        forces=np.pad(np.float32(forces), ((0, shape.atoms - atoms), (0, 0))),
        has_forces=there,
        stress=np.pad(np.float32(stress), ((0, spare), (0, 0), (0, 0))),
        has_stress=there,
        atomic_energies=np.zeros(shape.atoms, np.float32),
        has_atomic_energies=np.zeros(shape.graphs, bool),
        hessian_dofs=np.zeros((0, shape.graphs), np.int32),
        hessian_rows=np.zeros((0, shape.atoms, 3), np.float32),
        has_hessian_row=np.zeros((0, shape.graphs), bool),
    )


def batches_of(crystals, plan, model):
    """One batch for each row of the plan, all of one shape."""
    structures = [structure_of(atoms) for atoms in crystals]
    lists = [neighbours(structure, model.cutoff) for structure in structures]
    chosen = [([structures[i] for i in row], [lists[i] for i in row]) for row in plan]
    needed = [needed_shape(*pair) for pair in chosen]
    shape = GraphShape(*(max(getattr(one, name) for one in needed) for name in ("atoms", "edges", "graphs")))
    for row, (some, of_them) in zip(plan, chosen, strict=True):
        targets = targets_of([crystals[i] for i in row], some, model, shape)
        yield jax.tree.map(jnp.asarray, Batch(pad_graph(some, of_them, shape=shape), targets))


def our_losses(weights, crystals, plan):
    recipe = load_recipe("nequix-mp")
    model, _ = load_nqx(weights)
    optimizer = make_optimizer(recipe.optimizer)
    decay, state = recipe.optimizer.ema_decay, initial_state(model, optimizer)
    step = make_train_step(optimizer, ema_decay=decay, sums_in_stages=model.has_long_sums)
    losses, found = make_losses(recipe.loss), []
    batches = list(batches_of(crystals, plan, model))
    for epoch in range(EPOCHS):
        for number, batch in enumerate(batches):
            rate = learning_rate(recipe.optimizer, epoch=epoch, step=number, steps=BATCHES, epochs=EPOCHS)
            state, outcome = step((batch, jnp.asarray(rate, jnp.float32), losses), state)
            found.append(float(outcome.loss))
    return np.array(found)


def their_losses(python, folder, weights, structures):
    recipe = load_recipe("nequix-mp")
    optimizer, loss = recipe.optimizer, recipe.loss
    settings = {
        "epochs": EPOCHS,
        "learning_rate": optimizer.learning_rate,
        "final": optimizer.final_learning_rate,
        "warmup_steps": optimizer.warmup_epochs * BATCHES,
        "warmup_start": optimizer.warmup_start,
        "weight_decay": optimizer.weight_decay,
        "clip_norm": optimizer.clip_norm,
        "weights": [loss["energy_mae"], loss["forces_l2"], loss["stress_mae"]],
    }
    program = Path(__file__).parent / "peer_loss_curve.py"
    arguments = [weights, structures, folder / "plan.npy", json.dumps(settings), folder / "losses.npy"]
    subprocess.run([python, str(program), *map(str, arguments)], check=True)
    return np.load(folder / "losses.npy")


def compare(ours, theirs):
    """Prints both curves, smoothed and raw; the largest deviation of the smoothed one."""
    smooth = lambda values: np.convolve(values, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")  # noqa: E731
    raw, smoothed = (np.abs(a / b - 1) for a, b in ((ours, theirs), (smooth(ours), smooth(theirs))))
    print("step      mlipdb    nequix   off")
    for step in [*range(0, len(ours), BATCHES), len(ours) - 1]:
        print(f"{step:4}{ours[step]:12.6g}{theirs[step]:10.6g}  {100 * raw[step]:.3f} %")
    print(
        f"mean of {SMOOTHED} steps: off by at most {100 * smoothed.max():.3f} % (asked 1 %); single steps: at most "
        f"{100 * raw.max():.3f} %, {100 * raw[:50].max():.4f} % in the first 50, {100 * np.median(raw):.3f} % median"
    )
    return float(smoothed.max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, required=True, help="extended XYZ with 240 small labelled crystals")
    parser.add_argument("--peer-python", required=True, help="the Python where PyPI nequix is installed")
    options = parser.parse_args()
    crystals = cases.crystals(options.structures, count=BATCHES * GRAPHS)
    plan = np.random.default_rng(0).permutation(len(crystals)).reshape(BATCHES, GRAPHS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "plan.npy", plan)
        save_nqx(folder / "first.nqx", first_model(crystals))
        ours = our_losses(folder / "first.nqx", crystals, plan)
        theirs = their_losses(options.peer_python, folder, folder / "first.nqx", options.structures)
    sys.exit(0 if compare(ours, theirs) <= LIMIT else 1)


if __name__ == "__main__":
    main()
