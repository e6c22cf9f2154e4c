"""The ASE calculator: energy, atomic energies, forces, stress and Hessian of any model, without needless compiling."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ase
import jax
import jax.numpy as jnp
import numpy as np
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from jaxtyping import Float64, Int

from mlipdb.database import Database
from mlipdb.structures import Structure, make_structure
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph, reuse_shape, round_up
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.found_model import find_model
from mlipdb.trainers.graph import AtomicGraph
from mlipdb.trainers.models.base import AbstractModel, reference_energies, require_elements
from mlipdb.trainers.models.derive import gives_stress, hessian_rows, predict, suitable_rows_at_once
from mlipdb.trainers.models.kernel import Wanted, choose_kernel, with_kernel

_predict = compiled(predict)
_hessian_rows = compiled(hessian_rows)


class Calculator(AseCalculator):
    """A model as an ASE calculator.

    model is a .nqx file, a checkpoint or run folder of mlipdb, the name of published weights such as nequix-mp-1, the
    name of a run of the database db, or a model. Of several heads NAME@HEAD is one, NAME the first. Energies contain
    E0, added in float64.
    The stress exists where all three directions are periodic, but not for a direct model such as PaiNN, whose forces do
    not conserve energy either. The arrays given to the model keep one padded shape while the structure fits into it,
    so that a relaxation or a run of molecular dynamics compiles once. kernel is what computes the convolutions of a
    Nequix: plain, cuequivariance or auto; the attribute kernel says which it is, and why.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 as in ase

    def __init__(
        self,
        model: str | Path | AbstractModel,
        *,
        db: Database | Path | str | None = None,
        kernel: Wanted = "plain",
        **settings: Any,
    ) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]  # ase
        found = model if isinstance(model, AbstractModel) else load_model(find_model(model, db=db))
        self.kernel = "kernel plain"
        self.model = with_kernel(found, choose_kernel(found, kernel, say=partial(setattr, self, "kernel")))
        self._shape: GraphShape | None = None

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill results with everything at once, since it costs one evaluation. ASE calls this.

        Raises ElementError for an element that the model does not know, and ASE's error for the stress of a
        structure that is not periodic in three directions.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]  # ase
        structure = _structure(self.atoms if atoms is None else atoms)
        if "stress" in properties:
            self._check_stress(structure)
        prediction = jax.device_get(_predict(self.model, self._graph(structure)))
        count = len(structure)
        interaction = np.asarray(prediction.atomic_energies[:count], dtype=np.float64)
        energies = interaction + reference_energies(self.model, structure)
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": np.asarray(prediction.forces[:count], dtype=np.float64),
        }
        if prediction.has_stress and all(structure.pbc):
            stress = np.asarray(prediction.stress[0], dtype=np.float64)
            self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]  # xx yy zz yz xz xy

    def get_hessian(self, atoms: ase.Atoms) -> Float64[np.ndarray, "atoms 3 atoms 3"]:
        """Second derivatives +d²E/dx_ia dx_jb in eV/Å², as computed: symmetric to float32 rounding.

        Of a direct model -dF_ia/dx_jb, which is not symmetric.
        """
        count = len(atoms)
        return self.get_hessian_rows(atoms, np.arange(3 * count)).reshape(count, 3, count, 3)

    def get_hessian_rows(self, atoms: ase.Atoms, rows: Int[np.ndarray, " rows"]) -> Float64[np.ndarray, "rows atoms 3"]:
        """Rows r = 3·atom + axis of the Hessian, +d²E/dx_r dx in eV/Å²."""
        structure = _structure(atoms)
        graph = self._graph(structure)
        padded = np.full((round_up(len(rows), smallest=8), len(graph.graph_mask)), -1, dtype=np.int32)
        padded[: len(rows), 0] = rows
        at_once = suitable_rows_at_once(self.model, graph)
        found = jax.device_get(_hessian_rows(self.model, graph, jnp.asarray(padded), rows_at_once=at_once))
        return np.asarray(found[: len(rows), : len(structure)], dtype=np.float64)

    def _check_stress(self, structure: Structure) -> None:
        if not gives_stress(self.model):
            raise PropertyNotImplementedError(
                f"{type(self.model).__name__} predicts forces directly, not as derivatives of its energy, so that it "
                "has no stress; relax at a fixed cell, or train a conservative model"
            )
        if not all(structure.pbc):
            raise PropertyNotImplementedError(f"a stress needs three periodic directions; pbc is {structure.pbc}")

    def _graph(self, structure: Structure) -> AtomicGraph:
        require_elements(self.model, [structure])
        lists = [neighbours(structure, self.model.cutoff, needs=self.model.graph_needs)]
        self._shape = reuse_shape(needed_shape([structure], lists), self._shape)
        return pad_graph([structure], lists, shape=self._shape)


def _structure(atoms: Any) -> Structure:
    """The atoms as they are; E0 and model know neither charge nor spin."""
    first, second, third = (bool(flag) for flag in atoms.pbc)
    return make_structure(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=(first, second, third))
