import io
import json

import jax
import numpy as np
import pytest

from mlipdb.errors import ConfigError, CorruptError
from mlipdb.structures import make_structure
from mlipdb.trainers import Calculator
from mlipdb.trainers.models.nequix import Nequix, NequixConfig
from mlipdb.trainers.models.nqx import load_nqx, save_nqx

CONFIG = NequixConfig(
    atomic_numbers=(1, 8), e0=(-3.5, 0.1), hidden_irreps="3x0e + 2x1o", lmax=1, n_layers=2, radial_mlp_size=5, scale=0.7
)


@pytest.fixture
def written(tmp_path):
    model = Nequix.create(CONFIG, key=jax.random.key(4))
    save_nqx(tmp_path / "small.nqx", model, extra={"optimizer": "muon"})
    return model, tmp_path / "small.nqx"


def same_arrays(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_model_comes_back_from_its_file(written):
    model, path = written
    again, values = load_nqx(path)
    assert same_arrays(again, model)
    assert again.e0.tolist() == [-3.5, float(np.float32(0.1))]
    assert values["optimizer"] == "muon"


def test_the_file_is_a_line_of_json_then_npy_arrays_in_the_package_s_order(written):
    _, path = written
    line, _, rest = path.read_bytes().partition(b"\n")
    values = json.loads(line)
    assert values["index_weights"] is False
    assert values["layer_norm"] is True
    assert values["atom_energies"]["1"] == -3.5
    file, shapes = io.BytesIO(rest), []
    while file.tell() < len(rest):
        array = np.lib.format.read_array(file, allow_pickle=False)
        assert array.dtype == np.dtype("<f4")
        shapes.append(array.shape)
    first = [(8, 5), (5, 5), (5, 4), (2, 2), (2, 5), (2, 2), (2, 5), (5,), (2,)]  # gates: 3 scalars + 2 = 5
    last = [(8, 5), (5, 5), (5, 5), (3, 3), (2, 2), (5, 3), (3, 3), (3,)]  # radial, in, in, out, skip, gain
    assert shapes == [(2,), *first, *last, (3, 1)]


def test_bytes_after_the_last_array_are_ignored(written):
    model, path = written
    with path.open("ab") as file:
        file.write(b"\n")
        np.save(file, np.float64(3.0))
    assert same_arrays(load_nqx(path)[0], model)


def test_e0_is_read_from_the_array_and_not_from_the_json(written):
    _, path = written
    line, _, rest = path.read_bytes().partition(b"\n")
    values = json.loads(line) | {"atom_energies": {"1": 99.0, "8": 99.0}}
    path.write_bytes(json.dumps(values).encode() + b"\n" + rest)
    assert load_nqx(path)[0].e0[0] == -3.5


def test_a_file_cut_short_says_which_array(written):
    _, path = written
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorruptError, match="array 18"):
        load_nqx(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "other.nqx"
    path.write_bytes(b"\x93NUMPY rubbish\n")
    with pytest.raises(CorruptError, match="not JSON"):
        load_nqx(path)


def test_a_variant_of_the_network_is_refused(written):
    _, path = written
    line, _, rest = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps(json.loads(line) | {"layer_norm": False}).encode() + b"\n" + rest)
    with pytest.raises(ConfigError, match="layer_norm"):
        load_nqx(path)


@pytest.fixture(scope="module", params=["nequix-mp-1", "nequix-oam-1"])
def published(request, shared_data):
    return request.param, Calculator(shared_data / "nequix" / "models" / f"{request.param}.nqx")


# training-spec.md 1.2: Si diamond, a = 5.43 Å; energies of the published package, stored in its own tests
ENERGIES = {"nequix-mp-1": (-10.834069, -10.753344), "nequix-oam-1": (-10.831113, -10.765028)}


def silicon(displacement):
    import ase  # here, so that only these tests need it

    atoms = ase.Atoms("Si2", [[0, 0, 0], [5.43 / 4] * 3], cell=(1 - np.eye(3)) * 5.43 / 2, pbc=True)
    atoms.positions[0] += displacement
    return atoms


@pytest.mark.parametrize("state", [0, 1], ids=["relaxed", "displaced"])
def test_published_weights_give_the_published_energies(published, state):
    name, calculator = published
    atoms = silicon([[0, 0, 0], [0.1, 0.05, -0.05]][state])
    atoms.calc = calculator
    assert atoms.get_potential_energy() == pytest.approx(ENERGIES[name][state], abs=2e-6)


def test_published_weights_give_the_published_forces_and_stress(shared_data):
    atoms = silicon([0.1, 0.05, -0.05])
    atoms.calc = Calculator(shared_data / "nequix" / "models" / "nequix-mp-1.nqx")
    np.testing.assert_allclose(atoms.get_forces()[0], [-1.1041114, -0.45131257, 0.45131272], atol=5e-6)
    stress = [-0.025367301, -0.0278149154, -0.0278149098, -0.0241314191, -0.0106064761, 0.0106064798]
    np.testing.assert_allclose(atoms.get_stress(), stress, atol=2e-7)


def test_all_published_files_load_and_name_their_elements(shared_data):
    for path in sorted((shared_data / "nequix" / "models").glob("*.nqx")):
        model, _ = load_nqx(path)
        assert len(jax.tree.leaves(model)) == 62  # and E0, which is a setting here
        assert len(model.atomic_numbers) == 89
        assert model.config.activation_norm == 0.596460


def test_the_neighbour_count_of_the_reference_structure_is_the_published_one():
    from mlipdb.trainers.batching.neighbours import neighbours

    atoms = silicon([0, 0, 0])
    structure = make_structure(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=(True, True, True))
    assert len(neighbours(structure, 6.0)) == 92
