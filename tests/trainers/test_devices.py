import json
import os
import subprocess
import sys

import pytest

from mlipdb.testing.models import QUICK_FLAGS

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
from dataclasses import replace
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
import mlipdb
from mlipdb.subsets.subset import load
from mlipdb.trainers.batching.feed import Replay
from mlipdb.trainers.batching.packing import PlannedBatch, Sizes, choose_shapes
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.losses import make_losses
from mlipdb.trainers.prepare import prepare
from mlipdb.trainers.devices import all_devices
from mlipdb.trainers.models.heads import Head, with_heads
from mlipdb.trainers.step import gradient_and_outcome
from mlipdb.trainers.student import make_student
from mlipdb.testing.training import training_database

db = training_database(sys.argv[1], structures=18)
settings = ["model.cutoff=3.0", "model.hidden_irreps='4x0e'", "model.lmax=0", "model.n_layers=1"]
settings += ["model.radial_basis_size=4", "model.radial_mlp_size=4", "model.radial_mlp_layers=1"]
recipe = load_recipe("nano", settings=settings)
teacher = next(number for number, method in db.methods().items() if method.kind == "teacher")
ready = prepare(db, load(db, "toy"), recipe=recipe, teacher_id=teacher, devices=1, say=lambda text: None)
model = make_student(recipe.model, ready.facts, seed=0)
weights = {"energy_mae": 20.0, "forces_l2": 20.0, "stress_mae": 5.0, "atomic_energies_mae": 3.0, "hessian_rows": 2.0}
losses = make_losses(weights, replay_weight=3.0)
feed, sizes = ready.train.feed, ready.train.sizes
if sys.argv[2] == "replay":  # the second half is of another head
    feed = replace(feed, replay=Replay(source=feed.source, convention=feed.convention, start=len(sizes) // 2))
    model = with_heads(model, [Head(name="target"), Head(name="foundation")])
places = np.arange(len(sizes))
shape = choose_shapes(sizes, graphs=len(sizes))[0]
whole = feed.prepare(PlannedBatch(members=places, shape=shape)).batch
# Ragged: six devices share the structures unevenly, the last two have none.
group = tuple(PlannedBatch(members=part, shape=shape) for part in np.split(places, [1, 4, 5, 6, 8]))
stacked = next(feed.stacks([group], devices=8, epoch=0)).batch
devices = all_devices()
run = eqx.filter_jit(lambda m, b, mesh: gradient_and_outcome(m, b, losses=losses, mesh=mesh))
one, first = run(model, jax.tree.map(jnp.asarray, whole), None)
many, second = run(devices.alike(model), devices.spread(stacked), devices.mesh)
length = lambda tree: sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(tree)) ** 0.5
gap = length(jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), one, many)) / length(one)
counts = [[float(outcome.terms[name][1]) for name in sorted(outcome.terms)] for outcome in (first, second)]
values = [float(first.loss), float(second.loss)]
print(json.dumps({"devices": jax.device_count(), "gap": gap, "losses": values, "counts": counts,
                  "sound": np.asarray(second.sound).shape}))
"""


@pytest.mark.parametrize("kind", ["plain", "replay"])
def test_eight_devices_with_ragged_batches_have_the_gradient_of_one(tmp_path, kind):
    flags = f"{QUICK_FLAGS} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "db"), kind],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8
    assert found["gap"] < 1e-6
    assert found["sound"][0] == 8
    assert found["counts"][0] == found["counts"][1]
    assert len(found["counts"][0]) == (5 if kind == "plain" else 10)
    assert abs(found["losses"][0] - found["losses"][1]) < 1e-5 * found["losses"][0]
