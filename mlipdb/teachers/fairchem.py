"""The teachers ``uma`` and ``esen``: checkpoints of fairchem-core, by name or from a file."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from fairchem.core import pretrained_mlip
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.units.mlip_unit import InferenceSettings, MLIPPredictUnit, load_predict_unit
from jaxtyping import Float64

from mlipdb.errors import ConfigError, DownloadError, LabelError, did_you_mean
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.subsets.neighbours import count_pairs
from mlipdb.teachers.differences import chosen_step
from mlipdb.teachers.torch_batch import host, label_by_differences
from mlipdb.teachers.torch_device import choose_device, choose_dtype, dtype_name, memory_errors

DTYPE = "float32"  # as they were trained
CPU_EDGES, ACCELERATOR_EDGES = 8192, 65536  # of a batch
SUM_TOLERANCE = 1e-4  # eV an atom: float32 sums of energies that are known to 1e-6 of tens of eV


class FairchemTeacher:
    """Labels by a predict unit of fairchem-core for one task, whose name is in the method's settings.

    Energies are in the task's reference, undone to totals by the unit. Atomic energies are what goes into the energy
    head's sum, scaled and with the task's element references (E0) added; they are left out where they do not sum to the
    energy. Charge 0 and the task's default spin. Hessian rows are central differences of forces.
    """

    def __init__(self, unit: MLIPPredictUnit, info: TeacherInfo, *, edges: int) -> None:
        self.info = info
        self.batch_limits = BatchLimits(structures=64, atoms=edges // 16, edges=edges)
        self._unit = unit
        self._task: str = info.settings["task"]
        self._step: float = info.settings["step"]
        self._dtype = choose_dtype(info.dtype, default=DTYPE)
        self._cutoff = float(unit.model.module.backbone.cutoff)

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> "FairchemTeacher":
        """The teacher ``uma:NAME``, ``esen:NAME`` or ``fairchem:NAME`` with fairchem's weights of that name, or a file.

        A checkpoint is unpickled, which may run code in it: a file of yours needs trust.
        """
        options.refuse_unused(name, known_settings=("task",))
        asked = name.partition(":")[2]
        if options.weights is not None and not options.trust_weights:
            raise LabelError(
                f"{options.weights} is a pickle of fairchem-core, and loading it may run code in it; give "
                "--trust-weights if you know where it comes from"
            )
        path = options.weights or _fetched(name, asked, offline=options.offline)
        if not path.is_file():
            raise LabelError(f"no weights at {path}; --weights is a checkpoint file of fairchem-core")
        device, dtype = choose_device(options.device), choose_dtype(options.dtype, default=DTYPE)
        # nothing that depends on the first batch: its composition, a compiled shape, reduced precision
        settings = InferenceSettings(tf32=False, merge_mole=False, compile=False, base_precision_dtype=dtype)
        unit = load_predict_unit(str(path), settings, device=device.type, atom_refs=_atom_references(asked, options))
        task = _task(name, options.settings.get("task"), unit)
        info = TeacherInfo(
            name=f"fairchem:{asked or path.stem}",
            weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            package="fairchem-core",
            package_version=version("fairchem-core"),
            dtype=dtype_name(dtype),
            e0_included=True,
            atomic_numbers=_elements(unit, task),
            settings={"task": task, "step": chosen_step(options.step)},
        )
        return cls(unit, info, edges=CPU_EDGES if device.type == "cpu" else ACCELERATOR_EDGES)

    def edges(self, structure: Structure) -> int:
        """Ordered pairs within the cutoff, images included; the model may keep fewer."""
        return count_pairs(structure, self._cutoff)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels of a batch; LabelError for an element that the task's references do not know."""
        for structure in structures:
            self.info.check_elements(structure)
        return label_by_differences(self._label, structures, request, step=self._step)

    def _label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Energies, forces, stress and atomic energies; request.base is set and there are no rows."""
        with memory_errors():
            batch = atomicdata_list_to_batch([self._graph(structure) for structure in structures])
            caught: list[torch.Tensor] = []
            heads = [part for key, part in self._unit.model.named_modules() if key.endswith("energy_block")]
            hooks = [head.register_forward_hook(lambda _part, _given, found: caught.append(found)) for head in heads]
            try:
                found = self._unit.predict(batch)
            finally:
                for hook in hooks:
                    hook.remove()
        arrays = {key: host(found[key]) for key in ("energy", "forces", "stress") if key in found}
        atomic = host(caught[0]).reshape(-1) if len(caught) == 1 else None
        return self._split(structures, arrays, atomic)

    def _graph(self, structure: Structure) -> AtomicData:
        atoms = ase.Atoms(structure.atomic_numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
        self._unit.validate_atoms_data(atoms, self._task)
        return AtomicData.from_ase(atoms, task_name=self._task, target_dtype=self._dtype)

    def _split(
        self, structures: Sequence[Structure], arrays: Mapping[str, np.ndarray], atomic: np.ndarray | None
    ) -> list[Label]:
        """The arrays of the batch structure by structure; in eV, eV/Å and, positive under tension, eV/Å³."""
        labels, first = [], 0
        for place, structure in enumerate(structures):
            atoms = slice(first, first + len(structure))
            first += len(structure)
            energy = float(arrays["energy"][place])
            shares = None if atomic is None or len(atomic) < first else self._shares(structure, atomic[atoms], energy)
            stress = arrays["stress"][place].reshape(3, 3) if "stress" in arrays and all(structure.pbc) else None
            labels.append(
                Label(
                    energy_uncorrected=energy,
                    forces=arrays["forces"][atoms],
                    stress=None if stress is None else 0.5 * (stress + stress.T),
                    atomic_energies=shares,
                    atomic_energies_include_e0=None if shares is None else True,
                )
            )
        return labels

    def _shares(
        self, structure: Structure, normed: Float64[np.ndarray, " atoms"], energy: float
    ) -> Float64[np.ndarray, " atoms"] | None:
        """Atomic energies in eV from those in the head's own unit; None where they do not sum to the energy."""
        task = _energy_task(self._unit, self._task)
        size = len(structure)
        shares = normed * float(task.normalizer.rmsd) + float(task.normalizer.mean) / size
        if task.element_references is not None:
            shares = shares + host(task.element_references.element_references)[structure.atomic_numbers]
        return shares if abs(float(shares.sum()) - energy) < SUM_TOLERANCE * size else None


def _energy_task(unit: MLIPPredictUnit, dataset: str) -> Any:
    return next(task for task in unit.dataset_to_tasks[dataset] if task.property == "energy")


def _elements(unit: MLIPPredictUnit, task: str) -> frozenset[int]:
    """The elements that the task has references for, else all that the model has room for."""
    references = _energy_task(unit, task).element_references
    if references is None:
        return frozenset(range(1, int(unit.model.module.backbone.max_num_elements)))
    return frozenset(np.flatnonzero(host(references.element_references)).tolist())


def _task(name: str, asked: str | None, unit: MLIPPredictUnit) -> str:
    """The task to label for; the only one if there is one."""
    known = sorted(unit.dataset_to_tasks)
    if asked is None and len(known) == 1:
        return known[0]
    if asked not in known:
        hint = "" if asked is None else did_you_mean(asked, known)
        raise ConfigError(f"teacher {name} needs --set task=NAME, not {asked}.{hint} Tasks: {', '.join(known)}")
    return asked


def _fetched(name: str, asked: str, *, offline: bool) -> Path:
    """The checkpoint of a name, from fairchem's cache or fetched by it, which takes a registration."""
    known = pretrained_mlip.available_models
    if asked not in known:
        raise ConfigError(
            f"teacher {name} names no checkpoint of fairchem-core {version('fairchem-core')}."
            f"{did_you_mean(asked, known)} Give fairchem:NAME with one of {', '.join(known)}, or --weights FILE"
        )
    if offline:
        raise DownloadError(
            f"the weights of {asked} are fetched by fairchem-core; offline, give them with --weights FILE"
        )
    try:
        return Path(pretrained_mlip.pretrained_checkpoint_path_from_name(asked))
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"fairchem-core cannot fetch {asked} ({error}); register for it at huggingface.co/facebook, log in with "
            "`hf auth login`, or give the file with --weights"
        ) from error


def _atom_references(asked: str, options: TeacherOptions) -> dict[str, Any] | None:
    """Energies of single atoms, which some models take from a list; only with weights that fairchem fetches."""
    if options.weights is not None or not asked:
        return None
    return pretrained_mlip.resolve_checkpoint(asked).atom_refs
