"""The teachers ``mace-mp-…``, ``mace-off-…`` and ``mace``: published models by name, or any .model file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.teachers.kept_lists import KeptLists
from mlipdb.teachers.mace_weights import PUBLISHED, package, read_model, resolve, weights_file
from mlipdb.teachers.torch_batch import AtomicOutputs, TorchBatch, labels_from, torch_batch
from mlipdb.teachers.torch_device import choose_device, choose_dtype, dtype_name, memory_errors

CPU_EDGES, ACCELERATOR_EDGES = 4096, 32768  # of a batch


class MaceTeacher:
    """Labels by a MACE model, in float64 unless asked for float32; E0 is added in float64 on the host.

    Energies are sums of the model's node energies, E0 inside. Hessian rows are backward passes through the gradient,
    one for the k-th rows of all structures of a batch.
    """

    def __init__(self, model: Any, info: TeacherInfo, *, head: int, device: torch.device, dtype: torch.dtype) -> None:
        """Takes the model over: its parameters are converted and frozen, its E0 taken out."""
        self.info = info
        edges = CPU_EDGES if device.type == "cpu" else ACCELERATOR_EDGES
        self.batch_limits = BatchLimits(structures=64, atoms=edges // 4, edges=edges)
        self._e0 = _take_e0(model, head=head)
        self._model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self._head, self._device, self._dtype = head, device, dtype
        self._lists = KeptLists(float(model.r_max))

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> "MaceTeacher":
        """The teacher of a published name, or of a .model file; see TeacherInfo for what is remembered.

        Settings: head, the name of one of the model's heads where it has several.
        """
        options.refuse_unused(name, "step", known_settings=("head",))
        name = resolve(name)
        device, dtype = choose_device(options.device), choose_dtype(options.dtype, default="float64")
        path = weights_file(name, options)
        model, sha256 = read_model(path, device)
        heads = list(getattr(model, "heads", None) or ["Default"])
        head = _choose_head(heads, options.settings.get("head"), name=name)
        published = PUBLISHED.get(name)
        info = TeacherInfo(
            name=name,
            weights_sha256=sha256,
            package="mace-torch",
            package_version=str(package("mace").__version__),
            dtype=dtype_name(dtype),
            e0_included=True,
            atomic_numbers=frozenset(model.atomic_numbers.tolist()),
            functional=None if published is None else published.functional,
            settings={"head": heads[head]} if len(heads) > 1 else {},
        )
        return cls(model, info, head=head, device=device, dtype=dtype)

    def edges(self, structure: Structure) -> int:
        """Pairs within the cutoff, images included. The list is kept for the call of label that follows."""
        return self._lists.count(structure)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels of a batch: one evaluation, and one backward pass for each row that the greediest asks for.

        Raises LabelError for an element that the model was not made for, MemoryError when the device is too small.
        """
        for structure in structures:
            self.info.check_structure(structure)
        lists = [self._lists.of(structure) for structure in structures]
        with memory_errors():
            batch = torch_batch(structures, lists, device=self._device, dtype=self._dtype)
            outputs = AtomicOutputs(energies=self._interaction_energies(batch))
            return labels_from(batch, outputs, structures, request, e0=self._e0)

    def _interaction_energies(self, batch: TorchBatch) -> Float[torch.Tensor, " atoms"]:
        """The model's node energies in eV, which have no E0 because it was taken out."""
        positions, shifts = batch.strained()
        graphs = len(batch.strain)
        counts = torch.bincount(batch.structure_of, minlength=graphs)
        data = {
            "positions": positions,
            "node_attrs": (batch.atomic_numbers[:, None] == self._model.atomic_numbers).to(self._dtype),
            "edge_index": torch.stack([batch.receivers, batch.senders]),  # MACE's vectors end at its receivers
            "shifts": shifts,
            "unit_shifts": torch.zeros_like(shifts),  # of use to its own strain only
            "cell": torch.zeros((graphs, 3, 3), dtype=self._dtype, device=self._device),
            "batch": batch.structure_of,
            "ptr": torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
            "head": torch.full((graphs,), self._head, dtype=torch.long, device=self._device),
        }
        energies: torch.Tensor = self._model(data, compute_force=False)["node_energy"]
        return energies


def _choose_head(heads: Sequence[str], asked: str | None, *, name: str) -> int:
    """Which output of the model to read: that asked for, the only one, or the one called default."""
    if asked is not None:
        if asked not in heads:
            hint = did_you_mean(asked, heads)
            raise ConfigError(f"teacher {name} has no head {asked!r}.{hint} Heads: {', '.join(heads)}")
        return list(heads).index(asked)
    if len(heads) == 1:
        return 0
    default = [place for place, head in enumerate(heads) if head.lower() == "default"]
    if not default:
        raise ConfigError(f"teacher {name} has several heads; choose with --set head=NAME among {', '.join(heads)}")
    return default[0]


def _take_e0(model: Any, *, head: int) -> Float64[np.ndarray, " numbers"]:
    """E0 in eV by atomic number, as stored; the model's own is set to zero, so that float32 does not round it in."""
    stored = model.atomic_energies_fn.atomic_energies
    e0 = np.zeros(119)
    e0[model.atomic_numbers.cpu().numpy()] = np.atleast_2d(stored.detach().cpu().numpy())[head]
    stored.zero_()
    return e0
