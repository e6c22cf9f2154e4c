"""The teacher ``chgnet``: the weights that ship with the package chgnet, or a checkpoint of your own."""

import contextlib
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import chgnet
import numpy as np
import torch
from chgnet.model.model import BatchedGraph, CHGNet
from jaxtyping import Float64, Int64

from mlipdb.errors import LabelError
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import ENERGY_KINDS, Label
from mlipdb.structures import Structure
from mlipdb.teachers.differences import chosen_step
from mlipdb.teachers.kept_lists import KeptLists
from mlipdb.teachers.torch_batch import AtomicOutputs, TorchBatch, label_by_differences, labels_from, torch_batch
from mlipdb.teachers.torch_device import choose_device, choose_dtype, dtype_name, memory_errors
from mlipdb.trainers.batching.neighbours import Neighbours

ELEMENTS = frozenset(range(1, 95))  # rows of its embedding
CPU_EDGES, ACCELERATOR_EDGES = 16384, 65536  # of a batch


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A checkpoint inside the package: its folder, what it was trained on, and what its file does not say."""

    folder: str
    functional: str
    energies: str
    energy: str
    arguments: dict[str, Any]


SHIPPED = {
    "chgnet-0.3.0": Shipped(
        folder="0.3.0", functional="PBE+U", energies="MP2020-corrected, of MPtrj", energy="energy_corrected",
        arguments={"mlp_out_bias": False},
    ),
    "chgnet-0.2.0": Shipped(
        folder="0.2.0", functional="PBE+U", energies="MP2020-corrected, of MPtrj", energy="energy_corrected",
        arguments={"mlp_out_bias": True},
    ),
    "chgnet-r2scan": Shipped(
        folder="r2scan", functional="r2SCAN", energies="as computed, of MP-r2SCAN", energy="energy_uncorrected",
        arguments={"mlp_out_bias": False},
    ),
}  # fmt: skip
DEFAULT = "chgnet-0.3.0"
DTYPE = "float32"  # as it was trained


class ChgnetTeacher:
    """Labels by CHGNet: energies, forces, stress, moments and Hessian rows by autograd; E0 is added in float64.

    Atomic energies contain E0, the element energies of its composition model, and their sum is the energy. Moments are
    sizes, without sign. CHGNet's energy has kinks, rounded off over 1e-3 Å, where three atoms stand in line, as they do
    in rock salt: there rows by differences over a step, in settings, are another number than the second derivative.
    """

    def __init__(self, model: CHGNet, info: TeacherInfo, *, device: torch.device) -> None:
        self.info = info
        self._step: float | None = info.settings.get("step")
        edges = CPU_EDGES if device.type == "cpu" else ACCELERATOR_EDGES
        self.batch_limits = BatchLimits(structures=64, atoms=edges // 16, edges=edges)
        self._e0 = _element_energies(model)
        self._dtype = choose_dtype(info.dtype, default=DTYPE)
        self._model = model.to(device=device, dtype=self._dtype).eval().requires_grad_(False)
        self._device = device
        self._cutoff = float(model.graph_converter.atom_graph_cutoff)
        self._lists = KeptLists(self._cutoff)
        self._angle_cutoff = float(model.graph_converter.bond_graph_cutoff)

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> "ChgnetTeacher":
        """The teacher of a shipped checkpoint by name, or of a file; a shipped file is known by its hash.

        A file that holds more than arrays and plain values runs code when it is loaded: LabelError without trust.
        """
        path = options.weights or shipped_file(DEFAULT if name == "chgnet" else name)
        if not path.is_file():
            raise LabelError(f"no weights at {path}; give a checkpoint file of CHGNet with --weights, or leave it out")
        sha256 = _sha256(path)
        options.refuse_unused(name)
        known = next((each for each in SHIPPED if _sha256(shipped_file(each)) == sha256), None)
        shipped = None if known is None else SHIPPED[known]
        model = _load_model(path, {} if shipped is None else shipped.arguments, trust=options.trust_weights)
        settings = {} if shipped is None else {"energies": shipped.energies}
        info = TeacherInfo(
            name=known or name,
            weights_sha256=sha256,
            package="chgnet",
            package_version=version("chgnet"),
            dtype=dtype_name(choose_dtype(options.dtype, default=DTYPE)),
            e0_included=True,
            atomic_numbers=ELEMENTS,
            functional=None if shipped is None else shipped.functional,
            energy=ENERGY_KINDS[0] if shipped is None else shipped.energy,
            settings=settings if options.step is None else {**settings, "step": chosen_step(options.step)},
        )
        return cls(model, info, device=choose_device(options.device))

    def edges(self, structure: Structure) -> int:
        """Ordered pairs within the cutoff, images included. The list is kept for the call of label that follows."""
        return self._lists.count(structure)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels of a batch.

        Raises LabelError for a foreign element and for an atom without a neighbour, which CHGNet was not made for.
        """
        return label_by_differences(self._label, structures, request, step=self._step)

    def _label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels with rows by autograd.

        Structures without an angle go by themselves: the model then leaves out layers that have an offset in 0.2.0.
        """
        lists = [self._lists.of(structure) for structure in structures]
        for structure, found in zip(structures, lists, strict=True):
            self.info.check_structure(structure)
            self._check_neighbours(structure, found)
        parts: dict[bool, list[int]] = {True: [], False: []}
        for place, (structure, found) in enumerate(zip(structures, lists, strict=True)):
            parts[_has_angle(structure, found, cutoff=self._angle_cutoff)].append(place)
        labels: dict[int, Label] = {}
        for places in filter(None, parts.values()):
            rows = [request.hessian_row_numbers[place] for place in places]
            part = LabelRequest(base=request.base, hessian_row_numbers=rows)
            given = self._label_alike([structures[place] for place in places], [lists[place] for place in places], part)
            labels.update(zip(places, given, strict=True))
        return [labels[place] for place in range(len(structures))]

    def _label_alike(
        self, structures: Sequence[Structure], lists: Sequence[Neighbours], request: LabelRequest
    ) -> list[Label]:
        with memory_errors():
            batch = torch_batch(structures, lists, device=self._device, dtype=self._dtype)
            bonds = bonds_of(batch, lists, angle_cutoff=self._angle_cutoff)
            outputs = self._evaluate(batch, bonds, magmoms=request.base)
            return labels_from(batch, outputs, structures, request, e0=self._e0, energy=self.info.energy)

    def _check_neighbours(self, structure: Structure, found: Neighbours) -> None:
        alone = np.setdiff1d(np.arange(len(structure)), found.receivers)
        if len(alone):
            raise LabelError(
                f"{self.info.name}: atoms {alone[:5].tolist()} have no neighbour within {self._cutoff} Å, and "
                "CHGNet was not made for isolated atoms"
            )

    def _evaluate(self, batch: TorchBatch, bonds: "Bonds", *, magmoms: bool) -> AtomicOutputs:
        """The model on a graph that is made here, so that everything is derived by the batch's positions."""
        model = self._model
        positions, shifts = batch.strained()
        radial, near, directions = model.bond_basis_expansion(
            center=positions[batch.receivers],
            neighbor=positions[batch.senders],
            undirected2directed=bonds.first,
            image=shifts,
            lattice=torch.eye(3, device=self._device, dtype=positions.dtype),
        )
        first, second = bonds.angles
        graph = BatchedGraph(
            atomic_numbers=batch.atomic_numbers,
            bond_bases_ag=radial,
            bond_bases_bg=near,
            angle_bases=model.angle_basis_expansion(directions[first], directions[second]),
            batched_atom_graph=torch.stack([batch.receivers, batch.senders], dim=1),
            batched_bond_graph=torch.stack([batch.receivers[first], bonds.of[first], bonds.of[second]], dim=1),
            atom_owners=batch.structure_of,
            directed2undirected=bonds.of,
            atom_positions=[positions],
            strains=[batch.strain],
            volumes=[],
        )
        found = model._compute(graph, compute_magmom=magmoms, return_site_energies=True)
        return AtomicOutputs(
            energies=torch.cat(found["site_energies"]), magmoms=torch.cat(found["m"]) if magmoms else None
        )


@dataclass(frozen=True, eq=False)
class Bonds:
    """Edges without direction: of[e] is the bond of edge e, first[b] one edge of bond b.

    angles are ordered pairs of different edges that leave one atom, both shorter than the angles' cutoff.
    """

    of: torch.Tensor
    first: torch.Tensor
    angles: tuple[torch.Tensor, torch.Tensor]


def bonds_of(batch: TorchBatch, lists: Sequence[Neighbours], *, angle_cutoff: float) -> Bonds:
    """The bonds and angles of a batch; angle_cutoff is in Å."""
    receivers, senders = (part.cpu().numpy() for part in (batch.receivers, batch.senders))
    there = np.column_stack([receivers, senders, np.concatenate([found.shifts for found in lists])])
    back = np.column_stack([senders, receivers, -there[:, 2:]])
    _, first, of = np.unique(np.where(_precedes(there, back)[:, None], there, back), axis=0, return_index=True,
                             return_inverse=True)  # fmt: skip
    with torch.no_grad():
        vectors = batch.positions[batch.senders] - batch.positions[batch.receivers] + batch.shifts
        near = (vectors.norm(dim=1) < angle_cutoff).cpu().numpy()
    angles = _angles(receivers, np.flatnonzero(near))
    device = batch.positions.device
    return Bonds(
        torch.as_tensor(of.reshape(-1), device=device),
        torch.as_tensor(first, device=device),
        (torch.as_tensor(angles[0], device=device), torch.as_tensor(angles[1], device=device)),
    )


def _precedes(rows: Int64[np.ndarray, "rows 5"], others: Int64[np.ndarray, "rows 5"]) -> np.ndarray:
    """Whether a row comes before the other one; a row and its reverse are never equal."""
    change = rows - others
    leading = np.argmax(change != 0, axis=1)
    return np.asarray(np.take_along_axis(change, leading[:, None], axis=1)[:, 0] < 0)


def _angles(
    receivers: Int64[np.ndarray, " edges"], near: Int64[np.ndarray, " near"]
) -> tuple[Int64[np.ndarray, " angles"], Int64[np.ndarray, " angles"]]:
    """All ordered pairs of different near edges of one atom; edges are sorted by their atom."""
    atoms = receivers[near]
    starts, ends = np.searchsorted(atoms, atoms, side="left"), np.searchsorted(atoms, atoms, side="right")
    counts = ends - starts
    first = np.repeat(np.arange(len(near)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    second = np.repeat(starts, counts) + within
    different = first != second
    return near[first[different]], near[second[different]]


def _has_angle(structure: Structure, found: Neighbours, *, cutoff: float) -> bool:
    """Whether an atom has two neighbours closer than the cutoff in Å."""
    shifts = found.shifts @ structure.cell
    vectors = structure.positions[found.senders] - structure.positions[found.receivers] + shifts
    near = np.square(vectors).sum(axis=1) < cutoff**2
    return bool(np.bincount(found.receivers[near], minlength=1).max() > 1)


def _element_energies(model: CHGNet) -> Float64[np.ndarray, " numbers"]:
    """E0[Z] in eV of the composition model; 0 without one."""
    e0 = np.zeros(119)
    if model.composition_model is not None:
        weights = model.composition_model.fc.weight.detach().numpy().ravel()
        e0[1 : len(weights) + 1] = weights
    return e0


def shipped_file(name: str) -> Path:
    """The checkpoint file of a name of SHIPPED, inside the installed package."""
    (path,) = (Path(chgnet.__file__).parent / "pretrained" / SHIPPED[name].folder).glob("*.pth.tar")
    return path


def _load_model(path: Path, arguments: dict[str, Any], *, trust: bool) -> CHGNet:
    """The model of a checkpoint file, saved by CHGNet's trainer."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:
        if trust:
            raise
        raise LabelError(
            f"{path} holds more than arrays and plain values, so that loading it may run code in it ({error}); "
            "give --trust-weights if you know where it comes from"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how many parameters it has
        model = CHGNet(**{**state["model"]["model_args"], **arguments})
    model.load_state_dict(state["model"]["state_dict"])
    if not model.mlp_first:
        raise LabelError(f"{path} is a CHGNet that averages before its readout, so that it has no atomic energies")
    return model


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
