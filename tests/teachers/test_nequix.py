import hashlib
import itertools

import jax
import numpy as np
import pytest

from mlipdb.errors import LabelError
from mlipdb.labelling.teacher import LabelRequest, TeacherOptions
from mlipdb.structures import make_structure
from mlipdb.teachers.nequix import NequixTeacher, _shape, batch_dofs
from mlipdb.teachers.published import PUBLISHED
from mlipdb.testing.teachers import TeacherConformance, crystal, molecule
from mlipdb.trainers.batching.pad import GraphShape

pytestmark = pytest.mark.slow

NO_ROWS = np.zeros(0, np.int32)


def load(path, name="nequix"):
    return NequixTeacher.load(name, TeacherOptions(weights=path, offline=True))


class TestNequix(TeacherConformance):
    # float32: an energy is good to 1e-6 eV, so a difference over 2e-2 Å to 1e-4 eV/Å
    step = 1e-2
    batch_tolerance = 5e-6
    force_tolerance = 2e-3
    stress_tolerance = 1e-4
    hessian_tolerance = 2e-2

    @pytest.fixture(autouse=True)
    def keep(self, tiny_nqx):
        self.kept = load(tiny_nqx)

    def teacher(self):
        return self.kept


def test_the_method_says_which_weights_made_a_label(tiny_nqx):
    method = load(tiny_nqx).info.method()
    assert method.weights_sha256 == hashlib.sha256(tiny_nqx.read_bytes()).hexdigest()
    assert (method.name, method.package, method.dtype) == ("nequix", "mlipdb", "float32")
    assert method.e0_convention == "e0 included"


def test_e0_is_added_in_float64(tiny_nqx):
    """A thousand hydrogens far apart: a float32 sum would be off by the E0's rounding a thousand times over."""
    places = np.array(list(itertools.product(range(10), repeat=3)), dtype=np.float64) * 50.0
    gas = make_structure(np.ones(1000), places)
    label = load(tiny_nqx).label([gas], LabelRequest(base=True, hessian_row_numbers=[NO_ROWS]))[0]
    alone = load(tiny_nqx).label(
        [make_structure([1], [[0.0, 0.0, 0.0]])], LabelRequest(base=True, hessian_row_numbers=[NO_ROWS])
    )[0]
    assert label.energy_uncorrected == pytest.approx(1000 * alone.energy_uncorrected, abs=1e-9)


def test_structures_far_from_the_origin_get_the_same_label(tiny_nqx):
    here = molecule()
    there = make_structure(here.atomic_numbers, here.positions + 4096.0)
    first, second = load(tiny_nqx).label([here, there], LabelRequest(base=True, hessian_row_numbers=[NO_ROWS, NO_ROWS]))
    np.testing.assert_allclose(first.forces, second.forces, atol=1e-5)


def test_batches_of_similar_size_share_one_program(tiny_nqx, caplog):
    teacher = load(tiny_nqx)
    rows = np.arange(7, dtype=np.int32)  # a number that no other test asks for, so that the first batch compiles

    def compiled(structures):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            numbers = [rows[: 3 * len(structure)] for structure in structures]
            teacher.label(structures, LabelRequest(base=True, hessian_row_numbers=numbers))
        return sum("Finished XLA compilation" in record.getMessage() for record in caplog.records)

    assert compiled([molecule()] * 2) > 0
    assert compiled([molecule(), crystal(), crystal()]) == 0


def test_a_shape_that_does_not_fit_into_memory_is_not_taken_for_smaller_batches(tiny_nqx, monkeypatch):
    teacher, asked = load(tiny_nqx), []

    def evaluate(_, graph):
        asked.append(len(graph.senders))
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: so many edges")

    monkeypatch.setattr("mlipdb.teachers.nequix._predict", evaluate)
    for copies in (300, 1):
        with pytest.raises(MemoryError, match="so many edges"):
            teacher.label([crystal()] * copies, LabelRequest(base=True, hessian_row_numbers=[NO_ROWS] * copies))
    assert asked[0] > asked[1] == 1024


def test_dofs_count_over_the_whole_batch_and_ask_for_nothing_beyond():
    structures = [molecule(), crystal()]
    dofs = batch_dofs(structures, [np.array([4], np.int32), np.array([5, 0, 1], np.int32)], graphs=4)
    assert dofs.tolist() == [[4, 14, -1, -1], [-1, 9, -1, -1], [-1, 10, -1, -1]]


def test_rows_in_chunks_are_the_rows_in_one_piece(tiny_nqx):
    teacher, structure = load(tiny_nqx), molecule()
    every = np.array([4, 0, 8, 2, 6, 1, 3, 7, 5], np.int32)
    whole, first, last = (
        teacher.label([structure], LabelRequest(base=False, hessian_row_numbers=[rows]))[0].hessian_rows
        for rows in (every, every[:8], every[8:])
    )
    assert whole.shape == (9, 3, 3)
    np.testing.assert_allclose(whole, np.concatenate([first, last]), atol=1e-6)


@pytest.mark.parametrize("name", ["nequix-mp-1", "nequix-omat-1", "nequix-demo"])
def test_weights_given_by_path_need_no_download(name, tiny_nqx):
    assert load(tiny_nqx, name).info.name == name


def test_nequix_without_weights_names_the_known_ones():
    with pytest.raises(LabelError, match=r"needs --weights FILE.*nequix-oam-1"):
        NequixTeacher.load("nequix", TeacherOptions(offline=True))


def test_a_name_whose_hash_is_unknown_is_not_downloaded():
    with pytest.raises(LabelError, match=r"nequix-omat-1.nqx and give it with --weights"):
        NequixTeacher.load("nequix-omat-1", TeacherOptions())


def test_missing_weights_name_the_path(tmp_path):
    with pytest.raises(LabelError, match=r"nowhere\.nqx"):
        load(tmp_path / "nowhere.nqx")


@pytest.fixture(scope="module")
def published(shared_data):
    return load(shared_data / "nequix" / "models" / "nequix-mp-1.nqx")


class TestPublished:
    """nequix-mp-1 against the reference numbers of its own tests (Si diamond, a = 5.43 Å)."""

    displaced = np.array([[0.1, 0.05, -0.05], [1.3575, 1.3575, 1.3575]])

    def silicon(self, positions):
        cell = 2.715 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
        return make_structure([14, 14], positions, cell=cell, pbc=(True, True, True))

    def test_a_published_file_given_by_path_is_known_by_its_name(self, published):
        assert published.info.name == "nequix-mp-1"
        assert published.info.weights_sha256 == PUBLISHED["nequix-mp-1"].sha256
        assert published.info.functional == "PBE+U"
        assert len(published.info.atomic_numbers) == 89

    def test_another_published_name_for_it_is_refused(self, shared_data):
        with pytest.raises(LabelError, match="use --teacher nequix-mp-1"):
            load(shared_data / "nequix" / "models" / "nequix-mp-1.nqx", "nequix-oam-1")

    def test_energies_forces_and_rows_match_the_references_and_finite_differences(self, published):
        relaxed = self.silicon(np.array([[0.0, 0.0, 0.0], [1.3575, 1.3575, 1.3575]]))
        step = 0.01
        moves = [np.zeros((2, 3)) for _ in range(2)]
        moves[0][1, 2], moves[1][1, 2] = step, -step
        structures = [relaxed, *(self.silicon(self.displaced + move) for move in (np.zeros((2, 3)), *moves))]
        rows = [np.array([5], np.int32)] * 4
        labels = published.label(structures, LabelRequest(base=True, hessian_row_numbers=rows))
        assert labels[0].energy_uncorrected == pytest.approx(-10.834069, abs=5e-6)
        assert labels[1].energy_uncorrected == pytest.approx(-10.753344, abs=5e-6)
        assert labels[1].forces[0] == pytest.approx([-1.1041114, -0.45131257, 0.45131272], abs=2e-5)
        assert np.diag(labels[0].stress) == pytest.approx([-0.02699542] * 3, abs=1e-6)
        assert labels[1].stress[1, 2] == pytest.approx(-0.0241314191, abs=1e-6)
        slope = -(labels[2].forces - labels[3].forces) / (2 * step)
        assert labels[1].hessian_rows[0] == pytest.approx(slope, abs=2e-2)
        assert labels[0].hessian_rows[0, 1, 2] > 5.0


@pytest.mark.parametrize(
    ("needed", "padded"),
    [(1, 1024), (1024, 1024), (1025, 1280), (2838, 3072), (4096, 4096), (4097, 5120), (8192, 8192)],
)
def test_edges_are_padded_by_a_fifth_at_most_from_a_thousand_on(needed, padded):
    shape = _shape(GraphShape(atoms=10, edges=needed, graphs=2))
    assert shape.edges == padded
    assert needed < 1024 or shape.edges <= 1.25 * needed
