"""Structures as one graph in torch, and what a model says of it as labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int

from mlipdb.labelling.teacher import LabelRequest
from mlipdb.labels import ENERGY_KINDS, Label
from mlipdb.structures import Structure
from mlipdb.teachers.differences import difference_rows
from mlipdb.teachers.torch_rows import batch_dofs, chunk_on, gradient_rows
from mlipdb.trainers.batching.neighbours import Neighbours


@dataclass(frozen=True, eq=False, kw_only=True)
class TorchBatch:
    """Structures side by side: atoms and edges in their order, each atom with the number of its structure.

    Edge e has the vector positions[senders[e]] - positions[receivers[e]] + shifts[e] in Å before the strain; edges of a
    structure are sorted by receiver. positions, relative to each structure's centre, and strain, 0, are what energies
    are derived by.
    """

    atomic_numbers: Int[torch.Tensor, " atoms"]
    structure_of: Int[torch.Tensor, " atoms"]
    senders: Int[torch.Tensor, " edges"]
    receivers: Int[torch.Tensor, " edges"]
    shifts: Float[torch.Tensor, "edges 3"]
    positions: Float[torch.Tensor, "atoms 3"]
    strain: Float[torch.Tensor, "structures 3 3"]

    def strained(self) -> tuple[Float[torch.Tensor, "atoms 3"], Float[torch.Tensor, "edges 3"]]:
        """Positions and shifts in Å with the strain applied: the same numbers, with their dependence on it."""
        change = 0.5 * (self.strain + self.strain.transpose(1, 2))
        positions = self.positions + _times(self.positions, change[self.structure_of])
        shifts = self.shifts + _times(self.shifts, change[self.structure_of[self.receivers]])
        return positions, shifts


def _times(
    vectors: Float[torch.Tensor, "vectors 3"], matrices: Float[torch.Tensor, "vectors 3 3"]
) -> Float[torch.Tensor, "vectors 3"]:
    return torch.matmul(vectors[:, None, :], matrices)[:, 0]


def torch_batch(
    structures: Sequence[Structure], lists: Sequence[Neighbours], *, device: torch.device, dtype: torch.dtype
) -> TorchBatch:
    """The batch of structures with their neighbour lists. Differences are taken in float64, then rounded to dtype."""
    sizes = [len(structure) for structure in structures]
    firsts = np.cumsum([0, *sizes[:-1]])
    pairs = list(zip(firsts, lists, strict=True))
    centred = [structure.positions - structure.positions.mean(axis=0) for structure in structures]
    shifts = [
        found.shifts.astype(np.float64) @ structure.cell for structure, found in zip(structures, lists, strict=True)
    ]

    def whole(parts: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts).astype(np.int64), device=device)

    def real(parts: Sequence[np.ndarray]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(parts), device=device, dtype=dtype)

    return TorchBatch(
        atomic_numbers=whole([structure.atomic_numbers for structure in structures]),
        structure_of=whole([np.repeat(np.arange(len(structures)), sizes)]),
        senders=whole([found.senders + first for first, found in pairs]),
        receivers=whole([found.receivers + first for first, found in pairs]),
        shifts=real(shifts),
        positions=real(centred).requires_grad_(True),
        strain=torch.zeros((len(structures), 3, 3), device=device, dtype=dtype, requires_grad=True),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class AtomicOutputs:
    """What a model says of each atom of a batch: interaction energies in eV and, if it knows them, moments in µB."""

    energies: Float[torch.Tensor, " atoms"]
    magmoms: Float[torch.Tensor, " atoms"] | None = None


def labels_from(
    batch: TorchBatch,
    outputs: AtomicOutputs,
    structures: Sequence[Structure],
    request: LabelRequest,
    *,
    e0: Float64[np.ndarray, " numbers"],
    energy: str = ENERGY_KINDS[0],
) -> list[Label]:
    """Labels by derivatives of the energies; e0[Z] in eV is added to them in float64. energy is their kind.

    Forces, stress and the Hessian rows come from one graph of the energy, which is kept while there are rows.
    """
    dofs = batch_dofs([len(structure) for structure in structures], request.hessian_row_numbers)
    gradient, virial = _derivatives(batch, outputs.energies, twice=len(dofs) > 0)
    rows = gradient_rows(gradient, batch.positions, dofs, chunk=chunk_on(batch.positions.device))
    parts = zip(structures, request.hessian_row_numbers, _slices(structures), strict=True)
    labels = [
        Label(
            hessian_row_numbers=numbers if len(numbers) else None,
            hessian_rows=rows[: len(numbers), atoms] if len(numbers) else None,
        )
        for _, numbers, atoms in parts
    ]
    if not request.base:
        return labels
    energies, moments = host(outputs.energies), None if outputs.magmoms is None else host(outputs.magmoms)
    forces, strains = -host(gradient), host(virial)
    complete = []
    for place, (label, structure, atoms) in enumerate(zip(labels, structures, _slices(structures), strict=True)):
        atomic = energies[atoms] + e0[structure.atomic_numbers]
        total: dict[str, Any] = {energy: float(atomic.sum())}
        volume = structure.volume
        complete.append(
            replace(
                label,
                **total,
                forces=forces[atoms],
                stress=None if volume is None else strains[place] / volume,
                magmoms=None if moments is None else moments[atoms],
                atomic_energies=atomic,
                atomic_energies_include_e0=True,
            )
        )
    return complete


def label_by_differences(
    label: Callable[[Sequence[Structure], LabelRequest], list[Label]],
    structures: Sequence[Structure],
    request: LabelRequest,
    *,
    step: float | None,
) -> list[Label]:
    """What label gives, but Hessian rows by central differences of its forces over a step in Å, if one is given."""
    if step is None:
        return label(structures, request)

    def base(displaced: Sequence[Structure]) -> list[Label]:
        none = np.zeros(0, np.int32)
        return label(displaced, LabelRequest(base=True, hessian_row_numbers=[none] * len(displaced)))

    def forces(displaced: list[Structure]) -> list[np.ndarray]:
        return [np.asarray(found.forces) for found in base(displaced)]

    labels = base(structures) if request.base else [Label()] * len(structures)
    rows = difference_rows(forces, structures, request.hessian_row_numbers, step=step)
    return [
        given if found is None else replace(given, hessian_row_numbers=numbers, hessian_rows=found)
        for given, numbers, found in zip(labels, request.hessian_row_numbers, rows, strict=True)
    ]


def host(tensor: torch.Tensor) -> Float64[np.ndarray, "*shape"]:
    """A tensor's values as a float64 array."""
    values: Float64[np.ndarray, "*shape"] = tensor.detach().cpu().numpy().astype(np.float64)
    return values


def _derivatives(
    batch: TorchBatch, energies: Float[torch.Tensor, " atoms"], *, twice: bool
) -> tuple[Float[torch.Tensor, "atoms 3"], Float[torch.Tensor, "structures 3 3"]]:
    """dE/dx in eV/Å and dE/dstrain in eV; zero where no atom has a neighbour."""
    total = energies.sum()
    if not total.requires_grad:
        return torch.zeros_like(batch.positions), torch.zeros_like(batch.strain)
    gradient, virial = torch.autograd.grad(
        total, (batch.positions, batch.strain), create_graph=twice, materialize_grads=True
    )
    return gradient, virial


def _slices(structures: Sequence[Structure]) -> list[slice]:
    """Where each structure's atoms are in the batch."""
    ends = np.cumsum([len(structure) for structure in structures]).tolist()
    return [slice(end - len(structure), end) for structure, end in zip(structures, ends, strict=True)]
