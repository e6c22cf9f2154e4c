# ruff: noqa: D102 - a test's name is its docstring
"""What every model must do. Authors of models subclass one of two classes in their own tests.

ModelConformance is for conservative models, DirectModelConformance for those whose forces are an output.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from mlipdb.structures import Structure, make_structure
from mlipdb.trainers.arrays import named_arrays, with_arrays
from mlipdb.trainers.batching.neighbours import Neighbours, neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph
from mlipdb.trainers.graph import AtomicGraph, Prediction
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.derive import hessian_rows, predict, predict_with_rows

# Tests compile more than they compute, so that code for speed would be lost time.
# The older code generator takes half the time over a tiny model.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
QUICK_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())  # the same as $XLA_FLAGS
quick: Any = partial(cast("Any", eqx.filter_jit), compiler_options=QUICK)  # equinox's types leave the options out


@cache
def made(kind: Any, config: Any, *, seed: int = 1) -> Any:
    """A model with random weights, in one program: its small parts, one by one, take twice as long."""
    return quick(lambda: kind.create(config, key=jax.random.key(seed)))()


class Made:
    """A model that is made when a test first asks for it, with float32 numbers, and not while tests are collected.

    `model = Made(lambda: made(MyModel, CONFIG))` in a class of tests.
    """

    def __init__(self, create: Callable[[], AbstractModel]) -> None:
        self._create = cache(create)

    def __get__(self, instance: object, owner: type) -> Any:
        with jax.enable_x64(False):
            return self if instance is None else self._create()


_predict = quick(predict)
_hessian_rows = quick(hessian_rows)


def _squares(model: AbstractModel, graph: AtomicGraph, dofs: Int[Array, "rows graphs"]) -> Float[Array, ""]:
    """Of everything that a training may compare."""
    prediction, rows = predict_with_rows(model, graph, dofs)
    squares = [(values**2).sum() for values in (prediction.energy, prediction.forces, prediction.stress, rows)]
    return jnp.stack(squares).sum()


_gradients = quick(eqx.filter_grad(_squares))


class CommonConformance:
    """Symmetries, supercell, cutoff, padding, and what is kept, in float64.

    A subclass sets model, best one that is Made, and structures: two to four small ones of elements that the model
    knows, the first periodic in three directions. The model should have random or trained weights, not zeros, and be
    small: everything runs in a few seconds then. tolerance is relative to the largest entry compared, or to 0.01 where
    that is smaller; cutoff_tolerance is what an energy in eV and a force in eV/Å may be 1e-3 Å within the cutoff. A
    model that claims no smooth_cutoff may jump there.
    """

    model: ClassVar[AbstractModel | Made]
    structures: ClassVar[Sequence[Structure]]
    tolerance: ClassVar[float] = 1e-6
    cutoff_tolerance: ClassVar[float] = 1e-4
    smooth_cutoff: ClassVar[bool] = True

    def test_rotation_with_inversion_turns_forces_and_stress_and_keeps_energies(self) -> None:
        turn = _improper_rotation()
        for structure in self.structures:
            before = self._evaluate(structure)
            moved = replace(structure, positions=structure.positions @ turn.T, cell=structure.cell @ turn.T)
            after = self._evaluate(moved)
            self._same(after.atomic_energies, before.atomic_energies)
            self._same(after.forces, before.forces @ turn.T)
            self._same(after.stress, turn @ before.stress @ turn.T)

    def test_translation_changes_nothing(self) -> None:
        for structure in self.structures:
            moved = replace(structure, positions=structure.positions + np.array([31.7, -4.4, 2.2]))
            self._same_prediction(self._evaluate(moved), self._evaluate(structure))

    def test_moving_an_atom_by_a_lattice_vector_changes_nothing(self) -> None:
        crystal = self.structures[0]
        positions = crystal.positions.copy()
        positions[0] += crystal.cell[0] - 2 * crystal.cell[2]
        self._same_prediction(self._evaluate(replace(crystal, positions=positions)), self._evaluate(crystal))

    def test_the_order_of_atoms_does_not_matter(self) -> None:
        for structure in self.structures:
            order = np.roll(np.arange(len(structure)), 1)
            swapped = replace(
                structure, atomic_numbers=structure.atomic_numbers[order], positions=structure.positions[order]
            )
            before, after = self._evaluate(structure), self._evaluate(swapped)
            self._same(after.atomic_energies[: len(order)], before.atomic_energies[order])
            self._same(after.forces[: len(order)], before.forces[order])
            self._same(after.stress, before.stress)

    def test_a_supercell_has_the_energies_forces_and_stress_of_its_cell(self) -> None:
        crystal = self.structures[0]
        before, after = self._evaluate(crystal), self._evaluate(_doubled(crystal))
        count = len(crystal)
        self._same(after.energy[0], 2 * before.energy[0])
        self._same(after.forces[: 2 * count], np.tile(before.forces[:count], (2, 1)))
        self._same(after.stress[0], before.stress[0])

    def test_energy_and_force_vanish_smoothly_at_the_cutoff(self) -> None:
        first, second = self.model.atomic_numbers[0], self.model.atomic_numbers[-1]
        cutoff = self.model.cutoff
        pairs = [make_structure([first, second], [[0, 0, 0], [0, 0, r]]) for r in (cutoff - 1e-3, cutoff + 1e-3)]
        inside, outside = (self._evaluate(pair) for pair in pairs)
        assert not outside.forces.any()
        if self.smooth_cutoff:
            assert abs(inside.energy[0] - outside.energy[0]) < self.cutoff_tolerance
            assert np.abs(inside.forces).max() < self.cutoff_tolerance

    def test_padding_and_company_in_a_batch_change_nothing(self) -> None:
        lists = [_neighbours(self.model, structure) for structure in self.structures]
        needed = needed_shape(self.structures, lists)
        triplets = needed.triplets + 11 if needed.triplets else 0
        larger = GraphShape(needed.atoms + 5, needed.edges + 37, needed.graphs + 2, triplets)
        batch = self._predict(self.structures, larger)
        start = 0
        for place, structure in enumerate(self.structures):
            alone, atoms = self._evaluate(structure), slice(start, start + len(structure))
            self._same(batch.energy[place], alone.energy[0])
            self._same(batch.atomic_energies[atoms], alone.atomic_energies[: len(structure)])
            self._same(batch.forces[atoms], alone.forces[: len(structure)])
            self._same(batch.stress[place], alone.stress[0])
            start += len(structure)
        padding = [batch.energy[len(lists) :], batch.stress[len(lists) :], batch.forces[start:]]
        assert not any(values.any() for values in padding)

    def test_second_derivatives_of_lonely_atoms_and_padding_are_finite_zeros(self) -> None:
        lonely = make_structure([self.model.atomic_numbers[0]], [[0.0, 0.0, 0.0]])
        crystal = self.structures[0]
        count = len(crystal)
        assert not self._evaluate(lonely).forces.any()
        rows = self._rows([lonely, crystal], [[2, 3], [-1, 3 * count + 2]])
        assert np.isfinite(rows).all()
        assert not rows[0, 0].any()
        assert not rows[1, 0].any()
        assert not rows[:, 1 + count :].any()
        assert rows[1, 1:].any()

    def test_derivatives_by_the_weights_are_finite_whatever_the_padding(self) -> None:
        lonely = make_structure([self.model.atomic_numbers[0]], [[0.0, 0.0, 0.0]])
        with jax.enable_x64(True):
            graph = _exact(self.model, [lonely, self.structures[0]], shape=self._shape(graphs=4))
            dofs = jnp.asarray([[-1, 3, -1, -1]])
            gradients = jax.tree.leaves(_gradients(_double(self.model), graph, dofs))
            assert all(np.isfinite(leaf).all() for leaf in gradients)
            assert any(leaf.any() for leaf in gradients)

    def test_a_model_is_made_again_from_its_config_but_for_the_arrays(self) -> None:
        again = type(self.model).from_config(self.model.to_config())
        assert again.cutoff == self.model.cutoff
        assert again.atomic_numbers == self.model.atomic_numbers
        assert np.array_equal(again.e0, self.model.e0)
        jax.tree.map(lambda new, old: np.testing.assert_equal(new.shape, old.shape), again, self.model)
        assert again.graph_needs == self.model.graph_needs

    def test_a_model_from_its_config_and_arrays_is_the_same_to_the_bit(self) -> None:
        arrays = {name: np.asarray(array) for name, array in named_arrays(self.model).items()}
        again = with_arrays(type(self.model).from_config(self.model.to_config()), arrays, where="memory")
        with jax.enable_x64(True):
            graph = _exact(self.model, self.structures[:1], shape=self._shape(graphs=3))
            both = [jax.device_get(_predict(_double(model), graph)) for model in (self.model, again)]
        jax.tree.map(np.testing.assert_array_equal, *both)

    def _evaluate(self, structure: Structure) -> Prediction:
        """In one shape for all tests, so that the model is compiled once."""
        return self._predict([structure], self._shape(graphs=3))

    def _predict(self, structures: Sequence[Structure], shape: GraphShape) -> Prediction:
        with jax.enable_x64(True):
            graph = _exact(self.model, structures, shape=shape)
            found: Prediction = jax.device_get(_predict(_double(self.model), graph))
        return found

    def _rows(self, structures: Sequence[Structure], dofs: list[list[int]]) -> Float64[np.ndarray, "rows atoms 3"]:
        padded = np.full((2, 4), -1, dtype=np.int32)
        padded[: len(dofs), : len(dofs[0])] = dofs
        with jax.enable_x64(True):
            graph = _exact(self.model, structures, shape=self._shape(graphs=4))
            rows: Float64[np.ndarray, "rows atoms 3"] = jax.device_get(
                _hessian_rows(_double(self.model), graph, jnp.asarray(padded))
            )
        return rows[: len(dofs)]

    def _shape(self, *, graphs: int) -> GraphShape:
        largest = [*self.structures, _doubled(self.structures[0])]
        sizes = [needed_shape([structure], [_neighbours(self.model, structure)]) for structure in largest]
        edges, triplets = max(size.edges for size in sizes), max(size.triplets for size in sizes)
        return GraphShape(max(size.atoms for size in sizes) + 2, edges + edges // 4 + 8, graphs, triplets)

    def _difference(
        self, quantity: Callable[[Structure], Any], structure: Structure, move: Float64[np.ndarray, "atoms 3"]
    ) -> Float64[np.ndarray, "..."]:
        """Central difference of a quantity of a structure as its atoms move."""
        step = 1e-5
        ahead = quantity(replace(structure, positions=structure.positions + step * move))
        behind = quantity(replace(structure, positions=structure.positions - step * move))
        return np.asarray((ahead - behind) / (2 * step))

    def _same(self, found: Any, expected: Any) -> None:
        scale = max(0.01, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.tolerance * scale)

    def _same_prediction(self, found: Prediction, expected: Prediction) -> None:
        jax.tree.map(self._same, found, expected)


class ModelConformance(CommonConformance):
    """The above for a conservative model, and all derivatives of its energy by finite differences."""

    def test_forces_are_the_negative_gradient_of_the_energy(self) -> None:
        for structure in self.structures:
            move = _direction(len(structure))
            slope = self._difference(lambda s: self._evaluate(s).energy[0], structure, move)
            self._same(-(self._evaluate(structure).forces[: len(structure)] * move).sum(), slope)

    def test_stress_is_the_derivative_of_the_energy_by_strain_over_the_volume(self) -> None:
        crystal, step = self.structures[0], 1e-5
        strain = np.array([[0.3, 0.1, -0.2], [0.1, -0.4, 0.25], [-0.2, 0.25, 0.6]])

        def strained(amount: float) -> float:
            change = np.eye(3) + amount * strain
            moved = replace(crystal, positions=crystal.positions @ change, cell=crystal.cell @ change)
            return float(self._evaluate(moved).energy[0])

        slope = (strained(step) - strained(-step)) / (2 * step * (crystal.volume or 0.0))
        self._same((self._evaluate(crystal).stress[0] * strain).sum(), slope)

    def test_hessian_rows_are_the_derivatives_of_the_gradient(self) -> None:
        for structure in self.structures:
            count = len(structure)
            for dof in (0, 3 * count - 1):
                move = np.zeros((count, 3))
                move[dof // 3, dof % 3] = 1.0
                slope = self._difference(lambda s: -self._evaluate(s).forces[: len(s)], structure, move)
                self._same(self._rows([structure], [[dof]])[0, :count], slope)


class DirectModelConformance(CommonConformance):
    """The above for a direct model, and rows of minus the derivative of its forces by finite differences."""

    def test_there_is_no_stress(self) -> None:
        for structure in self.structures:
            found = self._evaluate(structure)
            assert not found.has_stress
            assert not found.stress.any()

    def test_a_row_is_the_change_of_one_force_component_by_all_positions(self) -> None:
        for structure in self.structures:
            count = len(structure)
            move = _direction(count)
            change = self._difference(lambda s: self._evaluate(s).forces[: len(s)], structure, move)
            for dof in (0, 3 * count - 1):
                row = self._rows([structure], [[dof]])[0, :count]
                self._same((row * move).sum(), -change[dof // 3, dof % 3])


def _neighbours(model: AbstractModel, structure: Structure) -> Neighbours:
    return neighbours(structure, model.cutoff, needs=model.graph_needs)


def _exact(model: AbstractModel, structures: Sequence[Structure], *, shape: GraphShape) -> AtomicGraph:
    """The padded graph with float64 numbers."""
    lists = [_neighbours(model, structure) for structure in structures]
    graph = pad_graph(structures, lists, shape=shape)
    positions, cell = np.zeros((shape.atoms, 3)), np.zeros((shape.graphs, 3, 3))
    positions[: sum(map(len, structures))] = np.concatenate([structure.positions for structure in structures])
    cell[: len(structures)] = [structure.cell for structure in structures]
    exact = eqx.tree_at(
        lambda g: (g.positions, g.cell, g.shifts), graph, (positions, cell, graph.shifts.astype(np.float64))
    )
    on_device: AtomicGraph = jax.tree.map(jnp.asarray, exact)
    return on_device


def _double(model: AbstractModel) -> AbstractModel:
    double: AbstractModel = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.float64), model)
    return double


def _doubled(structure: Structure) -> Structure:
    """Two cells along the first lattice vector."""
    return replace(
        structure,
        atomic_numbers=np.tile(structure.atomic_numbers, 2),
        positions=np.concatenate([structure.positions, structure.positions + structure.cell[0]]),
        cell=structure.cell * np.array([[2.0], [1.0], [1.0]]),
    )


def _improper_rotation() -> Float64[np.ndarray, "3 3"]:
    turn: Float64[np.ndarray, "3 3"] = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    return -turn if np.linalg.det(turn) > 0 else turn


def _direction(atoms: int) -> Float64[np.ndarray, "atoms 3"]:
    return np.random.default_rng(11).normal(size=(atoms, 3))
