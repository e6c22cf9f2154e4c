"""The teachers ``uma-…``, ``esen-…`` and ``fairchem``: checkpoints of fairchem-core, by name or from a file."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.cell import Cell
from fairchem.core.calculate import pretrained_mlip
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.units.mlip_unit import InferenceSettings, MLIPPredictUnit, load_predict_unit
from fairchem.core.units.mlip_unit.api.inference import DEFAULT_CHARGE, DEFAULT_SPIN, DEFAULT_SPIN_OMOL, UMATask
from jaxtyping import Float64

from mlipdb.errors import ConfigError, DownloadError, LabelError, did_you_mean
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.store.checked import file_sha256
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.subsets.neighbours import count_pairs
from mlipdb.teachers.differences import chosen_step
from mlipdb.teachers.torch_batch import host, label_by_differences
from mlipdb.teachers.torch_device import choose_device, choose_dtype, dtype_name, memory_errors

DTYPE = "float32"  # as they were trained
CPU_EDGES, ACCELERATOR_EDGES = 8192, 65536  # of a batch
SUM_TOLERANCE = 1e-4  # eV an atom: float32 sums of energies that are known to 1e-6 of tens of eV
NO_REFERENCE = 1e-6  # eV: fits leave 1e-14 for elements that they never saw, and 4e-5 is a noble gas
FUNCTIONALS = {  # of the data that a task is trained on
    "omat": "PBE+U",
    "oc20": "RPBE",
    "oc22": "PBE+U",
    "oc25": "RPBE+D3",
    "odac": "PBE+D3",
    "omc": "PBE+D3",
    "omol": "wB97M-V",
}
FAMILIES = ("fairchem", "uma", "esen")  # names that say nothing of the checkpoint; all others are one's own


class FairchemTeacher:
    """Labels by a predict unit of fairchem-core for one task, whose name is in the method's settings.

    Energies are totals in eV in the task's reference, forces in eV/Å, stress in eV/Å³ and positive under tension.
    Atomic energies are what goes into the energy head's sum, scaled and with the task's element references (E0) added;
    they are left out where the head has no such sum. Charge and multiplicity go to the task omol, which is trained on
    them; a structure that gives none is neutral and a singlet. No other task knows charges. Hessian rows are central
    differences of forces. An isolated atom has the energy published for it, unless the model takes single atoms.
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
        """The teacher of fairchem's weights NAME, as ``NAME`` or ``fairchem:NAME``, or of a file as ``fairchem``.

        A checkpoint is unpickled, which may run code in it: it needs trust, a published one too, as no hash is known.
        Settings: task, the name of one of the model's datasets where it has several, such as omat or omol.
        """
        options.refuse_unused(name, known_settings=("task",))
        family, _, asked = name.partition(":")
        asked = asked or ("" if family in FAMILIES else family)
        checkpoint = _checkpoint(name, asked, options)
        path, device = Path(checkpoint.path), choose_device(options.device)
        dtype = choose_dtype(options.dtype, default=DTYPE)
        unit = _unit(checkpoint, device, dtype)
        task = _task(name, options.settings.get("task"), unit)
        info = TeacherInfo(
            name=f"fairchem:{asked or path.stem}",
            weights_sha256=file_sha256(path),
            package="fairchem-core",
            package_version=version("fairchem-core"),
            dtype=dtype_name(dtype),
            e0_included=True,
            atomic_numbers=_elements(unit, task),
            functional=FUNCTIONALS.get(task),
            takes_charge=True,  # or refuses it, by task
            settings={"task": task, "step": chosen_step(options.step)},
        )
        return cls(unit, info, edges=CPU_EDGES if device.type == "cpu" else ACCELERATOR_EDGES)

    def edges(self, structure: Structure) -> int:
        """Ordered pairs within the cutoff, images included; the model may keep fewer."""
        return count_pairs(structure, self._cutoff)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels of a batch.

        Raises LabelError for an element that the task's references do not know, a charge that the task does not, and
        an isolated atom without a published energy; MemoryError when the device is too small.
        """
        for structure in structures:
            self.info.check_structure(structure)
        return label_by_differences(self._label, structures, request, step=self._step)

    def _label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Energies, forces, stress and atomic energies; request.base is set and there are no rows."""
        alone = [self._is_alone(structure) for structure in structures]
        together = [structure for structure, one in zip(structures, alone, strict=True) if not one]
        labels = iter(self._predict(together) if together else [])
        return [
            self._isolated(structure) if one else next(labels) for structure, one in zip(structures, alone, strict=True)
        ]

    def _is_alone(self, structure: Structure) -> bool:
        """Whether it is an isolated atom of a model that has those from a list, one a batch."""
        return len(structure) == 1 and not any(structure.pbc) and not self._unit.model.module.supports_single_atoms

    def _isolated(self, structure: Structure) -> Label:
        try:
            return self._predict([structure])[0]
        except ValueError as error:
            symbol = SYMBOLS[structure.atomic_numbers[0]]
            raise LabelError(f"{self.info.name} has no energy of an isolated atom of {symbol}: {error}") from error

    def _predict(self, structures: Sequence[Structure]) -> list[Label]:
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
        if "stress" in arrays:
            arrays["stress"] -= _stress_offset(self._unit, self._task)
        atomic = host(caught[0]).reshape(-1) if len(caught) == 1 else None
        return self._split(structures, arrays, atomic)

    def _graph(self, structure: Structure) -> AtomicData:
        atoms = ase.Atoms(
            structure.atomic_numbers,
            structure.positions,
            cell=Cell(structure.cell).complete(),  # type: ignore[no-untyped-call]  # one with zero rows is refused
            pbc=structure.pbc,
            info=self._charges(structure),
        )
        try:
            self._unit.validate_atoms_data(atoms, self._task)
        except ValueError as error:
            raise LabelError(f"{self.info.name} cannot take the structure: {error}") from error
        known = ["charge", "spin"]  # all others are taken for 0
        return AtomicData.from_ase(atoms, task_name=self._task, target_dtype=self._dtype, r_data_keys=known)

    def _charges(self, structure: Structure) -> dict[str, int]:
        """Total charge in e and 2S+1 as the task was trained on them; 0 and 0 where it was on neither."""
        charge = structure.charge or DEFAULT_CHARGE
        if charge != int(charge) or (charge and self._task != UMATask.OMOL.value):
            kind = "whole charges" if charge != int(charge) else "neutral structures"
            raise LabelError(f"{self.info.name} with the task {self._task} takes {kind} only, not {charge:g} e")
        if self._task != UMATask.OMOL.value:
            return {"charge": DEFAULT_CHARGE, "spin": DEFAULT_SPIN}
        return {"charge": int(charge), "spin": structure.spin_multiplicity or DEFAULT_SPIN_OMOL}

    def _split(
        self, structures: Sequence[Structure], arrays: Mapping[str, np.ndarray], atomic: np.ndarray | None
    ) -> list[Label]:
        """The arrays of the batch structure by structure; in eV, eV/Å and, positive under tension, eV/Å³."""
        labels, first = [], 0
        for place, structure in enumerate(structures):
            atoms = slice(first, first + len(structure))
            first += len(structure)
            energy = float(arrays["energy"][place])
            shares = self._shares(structure, None if atomic is None else atomic[atoms], energy)
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
        self, structure: Structure, normed: Float64[np.ndarray, " atoms"] | None, energy: float
    ) -> Float64[np.ndarray, " atoms"] | None:
        """Atomic energies in eV from those in the head's own unit; None where they do not sum to the energy."""
        size = len(structure)
        if size == 1:
            return np.array([energy])
        if normed is None or len(normed) != size:
            return None
        task = _energy_task(self._unit, self._task)
        shares = normed * float(task.normalizer.rmsd) + float(task.normalizer.mean) / size
        if task.element_references is not None:
            shares = shares + host(task.element_references.element_references)[structure.atomic_numbers]
        return shares if abs(float(shares.sum()) - energy) < SUM_TOLERANCE * size else None


def _unit(checkpoint: pretrained_mlip.ResolvedCheckpoint, device: torch.device, dtype: torch.dtype) -> MLIPPredictUnit:
    """The model with nothing that depends on its first batch: a composition, a compiled shape, reduced precision."""
    settings = InferenceSettings(tf32=False, merge_mole=False, compile=False, base_precision_dtype=dtype)
    try:
        unit = load_predict_unit(checkpoint.path, settings, device=device.type, atom_refs=checkpoint.atom_refs)
    except (AttributeError, EOFError, RuntimeError, torch.serialization.pickle.UnpicklingError) as error:
        raise LabelError(
            f"fairchem-core {version('fairchem-core')} takes {checkpoint.path} for no inference checkpoint: {error}"
        ) from error
    if device.index is not None:
        unit.device = str(device)  # it keeps the kind only
    return unit


def _energy_task(unit: MLIPPredictUnit, dataset: str) -> Any:
    return next(task for task in unit.dataset_to_tasks[dataset] if task.property == "energy")


def _stress_offset(unit: MLIPPredictUnit, dataset: str) -> float:
    """What the unit adds to a stress that was not trained: the mean of the energies, whose normalizer it takes."""
    task = next(task for task in unit.dataset_to_tasks[dataset] if task.property == "stress")
    return float(task.normalizer.mean) if task.inference_only else 0.0


def _elements(unit: MLIPPredictUnit, task: str) -> frozenset[int]:
    """The elements that the task has references for, else all that the model has room for."""
    room = range(1, int(unit.model.module.backbone.max_num_elements))
    references = _energy_task(unit, task).element_references
    if references is None:
        return frozenset(room)
    values = np.abs(host(references.element_references))
    return frozenset(number for number in room[: len(values) - 1] if values[number] > NO_REFERENCE)


def _task(name: str, asked: str | None, unit: MLIPPredictUnit) -> str:
    """The task to label for; the only one if there is one."""
    known: list[str] = sorted(
        dataset for dataset, tasks in unit.dataset_to_tasks.items() if any(task.property == "energy" for task in tasks)
    )
    if asked is None and len(known) == 1:
        return known[0]
    if asked is None or asked not in known:
        given = "." if asked is None else f", not {asked}.{did_you_mean(asked, known)}"
        raise ConfigError(f"teacher {name} needs --set task=NAME{given} Tasks: {', '.join(known)}")
    return asked


def _checkpoint(name: str, asked: str, options: TeacherOptions) -> pretrained_mlip.ResolvedCheckpoint:
    """A file of the user's, or the checkpoint of a name with its energies of isolated atoms.

    The latter is in fairchem's cache or is fetched by it, which takes a registration.
    """
    path, known = options.weights, pretrained_mlip.available_models
    if path is not None:
        _check_trust(path, trusted=options.trust_weights)
        return _own(path)
    if asked not in known:
        raise ConfigError(
            f"teacher {name} names no checkpoint of fairchem-core {version('fairchem-core')}."
            f"{did_you_mean(asked, known)} Give fairchem:NAME with one of {', '.join(known)}, or --weights FILE"
        )
    _check_trust(asked, trusted=options.trust_weights)
    if options.offline:
        raise DownloadError(
            f"the weights of {asked} are fetched by fairchem-core; offline, give them with --weights FILE"
        )
    try:
        return pretrained_mlip.resolve_checkpoint(asked)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DownloadError(
            f"fairchem-core cannot fetch {asked} ({reason}); register for it at huggingface.co/facebook, log in with "
            "`hf auth login`, or give the file with --weights"
        ) from error


def _check_trust(what: Path | str, *, trusted: bool) -> None:
    """Before anything is fetched or opened."""
    if not trusted:
        raise LabelError(
            f"{what} is a pickle of fairchem-core, and loading it may run code in it; give --trust-weights if you know "
            "where it comes from"
        )


def _own(path: Path) -> pretrained_mlip.ResolvedCheckpoint:
    if not path.is_file():
        raise LabelError(f"no weights at {path}; --weights is a checkpoint file of fairchem-core")
    return pretrained_mlip.ResolvedCheckpoint(str(path))
