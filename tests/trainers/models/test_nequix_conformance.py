import jax
import numpy as np

from mlipdb.structures import make_structure
from mlipdb.testing.models import Made, ModelConformance, made
from mlipdb.trainers.models.nequix import Nequix, NequixConfig

CONFIG = NequixConfig(
    atomic_numbers=(1, 8, 14),
    e0=(-1.0, -2.0, -3.0),
    hidden_irreps="3x0e + 2x1o",
    lmax=1,
    n_layers=2,
    cutoff=3.0,
    radial_basis_size=4,
    radial_mlp_size=8,
    radial_mlp_layers=1,
    scale=0.8,
    shift=0.1,
    avg_n_neighbors=12.0,
)
CRYSTAL = make_structure(
    [14, 8], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=[[3.1, 0.2, 0], [0, 3.0, 0.4], [0.3, 0, 3.3]], pbc=(True,) * 3
)
MOLECULE = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0.1, 0], [-0.2, 0.95, 0.15]])
SLAB = make_structure([14, 14], [[0, 0, 0], [1.5, 1.4, 0.8]], cell=np.diag([3.0, 2.9, 0]), pbc=(True, True, False))


class TestNequix(ModelConformance):
    model = Made(lambda: made(Nequix, CONFIG))
    structures = (CRYSTAL, MOLECULE, SLAB)


def test_a_model_of_tests_is_made_once_and_of_float32_whoever_asks_first():
    class Tests:
        model = Made(lambda: Nequix.create(CONFIG, key=jax.random.key(1)))

    with jax.enable_x64(True):
        model = Tests().model
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model)} == {"float32"}
    assert Tests().model is model
