import dataclasses

import numpy as np
import pytest

from mlipdb.structures import make_structure
from mlipdb.testing.models import DirectModelConformance, Made, ModelConformance, made
from mlipdb.trainers.models.gemnet import GemNetDT, GemNetT
from mlipdb.trainers.models.gemnet_config import GemNetConfig, ScaleFactors

pytestmark = pytest.mark.slow

FACTORS = ScaleFactors(
    triplet_radial=(1.5, 1.2), triplet_sum=(0.8, 0.9), atom_sum=(0.7, 0.5), energy_sum=(0.6, 0.7, 0.5)
)
CONFIG = GemNetConfig(
    atomic_numbers=(1, 8, 14),
    e0=(-1.0, -2.0, -3.0),
    direct=False,
    cutoff=3.0,
    n_blocks=2,
    n_spherical=3,
    n_radial=3,
    atom_size=4,
    edge_size=4,
    triplet_size=3,
    rbf_size=3,
    cbf_size=2,
    bilinear_size=3,
    n_atom=1,
    scale=0.8,
    shift=0.1,
    scale_factors=FACTORS,
)
DIRECT = dataclasses.replace(
    CONFIG, direct=True, scale_factors=dataclasses.replace(FACTORS, force_radial=(1.4, 0.9, 2.0))
)
CRYSTAL = make_structure(
    [14, 8], [[0.05, 0.1, -0.1], [1.6, 1.35, 1.5]], cell=[[3.1, 0.2, 0], [0, 3.0, 0.4], [0.3, 0, 3.3]], pbc=(True,) * 3
)
ONE_ATOM = make_structure([14], [[0.3, 0.2, 0.1]], cell=[[2.3, 0.2, 0], [0, 2.5, 0.4], [0.3, 0, 2.4]], pbc=(True,) * 3)
MOLECULE = make_structure([8, 1, 1], [[0, 0, 0], [0.98, 0.1, 0], [-0.2, 0.95, 0.15]])
SLAB = make_structure([14, 14], [[0, 0, 0], [1.5, 1.4, 0.8]], cell=np.diag([3.0, 2.9, 0]), pbc=(True, True, False))


class TestGemNetDT(DirectModelConformance):
    model = Made(lambda: made(GemNetDT, DIRECT))
    structures = (CRYSTAL, ONE_ATOM, MOLECULE, SLAB)


class TestGemNetT(ModelConformance):
    model = Made(lambda: made(GemNetT, CONFIG, seed=2))
    structures = (CRYSTAL, ONE_ATOM, MOLECULE)
