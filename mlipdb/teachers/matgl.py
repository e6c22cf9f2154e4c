"""The teacher ``matgl``: TensorNet and M3GNet potentials of the package matgl, by name or from a folder of weights."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matgl.utils.io as _matgl_io  # lets torch load the numpy arrays that folders of weights hold
import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from jaxtyping import Float, Float64
from matgl.models import M3GNet, TensorNet

from mlipdb.errors import DownloadError, LabelError
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.structures import SYMBOLS, Structure
from mlipdb.teachers.differences import chosen_step
from mlipdb.teachers.kept_lists import KeptLists
from mlipdb.teachers.torch_batch import AtomicOutputs, TorchBatch, label_by_differences, labels_from, torch_batch
from mlipdb.teachers.torch_device import choose_device, choose_dtype, dtype_name, memory_errors

FILES = ("model.pt", "state.pt")
DTYPE = "float32"  # as they were trained
CPU_EDGES, ACCELERATOR_EDGES = 16384, 65536  # of a batch
MODELS = {"TensorNet": TensorNet, "M3GNet": M3GNet}
# M3GNet cuts cosines off just before ±1, so that atoms in line, which are common, lose their second derivatives.
NOT_SMOOTH = frozenset({"M3GNet"})
FUNCTIONALS = {"MatPES-PBE": "PBE", "MatPES-r2SCAN": "r2SCAN", "MP-2021.2.8": "PBE+U"}  # as names of weights have them
# Arrays whose columns begin with the features of an edge's two ends, and the setting that says how many each has.
ENDS = {
    "TensorNet": (r"tensor_embedding\.emb2\.weight$", "units"),
    "M3GNet": (r"graph_layers\.\d+\.conv\.(edge|node)_update_func\.(layers|gates)\.0\.weight$", "dim_node_embedding"),
}
OTHERWISE = "ask for it as --teacher ase:matgl.ext.ase.PESCalculator"


class MatglTeacher:
    """Labels by a TensorNet or M3GNet potential; E0, its element references, is added in float64.

    Atomic energies contain E0, and their sum is the energy. Hessian rows are by autograd, those of M3GNet by central
    differences of forces, whose step is in the method's settings.
    """

    def __init__(self, parts: "Parts", info: TeacherInfo, *, device: torch.device) -> None:
        self.info = info
        edges = CPU_EDGES if device.type == "cpu" else ACCELERATOR_EDGES
        self.batch_limits = BatchLimits(structures=64, atoms=edges // 16, edges=edges)
        self._dtype = choose_dtype(info.dtype, default=DTYPE)
        self._model = parts.model.to(device=device, dtype=self._dtype).eval().requires_grad_(False)
        self._parts = parts
        self._device = device
        self._lists = KeptLists(float(parts.model.cutoff))
        self._types = torch.as_tensor(parts.types, device=device)
        self._step: float | None = info.settings.get("step")

    @classmethod
    def load(cls, name: str, options: TeacherOptions) -> "MatglTeacher":
        """The teacher ``matgl:NAME`` with the package's weights of that name, or one from a folder of weights.

        Only arrays and plain values are read from the folder, and no class is made that it names.
        """
        options.refuse_unused(name)
        asked = name.partition(":")[2] or (options.weights.resolve().name if options.weights else "")
        paths = _files(options.weights) if options.weights else _fetched(asked, options)
        parts = Parts(paths)
        digest = hashlib.sha256(b"".join(hashlib.sha256(paths[file].read_bytes()).digest() for file in FILES))
        by_step = options.step is not None or parts.kind in NOT_SMOOTH
        info = TeacherInfo(
            name=f"matgl:{asked}",
            weights_sha256=digest.hexdigest(),
            package="matgl",
            package_version=version("matgl"),
            dtype=dtype_name(choose_dtype(options.dtype, default=DTYPE)),
            e0_included=True,
            atomic_numbers=frozenset(np.flatnonzero(parts.types >= 0).tolist()),
            functional=next((known for part, known in FUNCTIONALS.items() if part in asked), None),
            settings={"step": chosen_step(options.step)} if by_step else {},
        )
        return cls(parts, info, device=choose_device(options.device))

    def edges(self, structure: Structure) -> int:
        """Ordered pairs within the cutoff, images included. The list is kept for the call of label that follows."""
        return self._lists.count(structure)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels of a batch; LabelError for an element that the potential was not made for."""
        for structure in structures:
            self.info.check_structure(structure)
        return label_by_differences(self._label, structures, request, step=self._step)

    def _label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels with rows by autograd."""
        lists = [self._lists.of(structure) for structure in structures]
        with memory_errors():
            batch = torch_batch(structures, lists, device=self._device, dtype=self._dtype)
            outputs = AtomicOutputs(energies=self._energies(batch))
            return labels_from(batch, outputs, structures, request, e0=self._parts.e0)

    def _energies(self, batch: TorchBatch) -> Float[torch.Tensor, " atoms"]:
        """Atomic energies without E0, in eV: what goes through the last layer before it is summed."""
        positions, shifts = batch.strained()
        graph = SimpleNamespace(
            node_type=self._types[batch.atomic_numbers],
            pos=positions,
            edge_index=torch.stack([batch.receivers, batch.senders]),
            pbc_offshift=shifts,
            batch=batch.structure_of,
            num_graphs=len(batch.strain),
        )
        caught: list[torch.Tensor] = []
        hook = self._model.final_layer.register_forward_hook(lambda _module, _given, found: caught.append(found))
        try:
            self._model(g=graph)
        finally:
            hook.remove()
        sizes = torch.bincount(batch.structure_of)
        return self._parts.scale * caught[-1].reshape(-1) + self._parts.mean / sizes[batch.structure_of]


class Parts:
    """What a folder of weights holds: the model, its scale and mean in eV, E0[Z] in eV and types[Z], -1 for none."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        arguments, state = (_plain(paths[file]) for file in FILES)
        found = arguments.get("model")
        described: dict[str, Any] = found if isinstance(found, dict) else {}
        self.kind: str = described.get("@class", "")
        _check_kind(self.kind, arguments, paths["model.pt"])
        old = _has_swapped_ends(self.kind, described, arguments, state)
        weights = _with_ends_swapped(self.kind, state, described["init_args"]) if old else state
        self.model = _model(self.kind, described["init_args"], weights, paths["state.pt"])
        self.scale, self.mean = float(state.get("data_std", 1.0)), float(state.get("data_mean", 0.0))
        self.types = np.full(len(SYMBOLS), -1)
        elements = [SYMBOLS.index(symbol) for symbol in self.model.element_types]
        self.types[elements] = np.arange(len(elements))
        self.e0: Float64[np.ndarray, " numbers"] = np.zeros(len(SYMBOLS))
        if "element_refs.property_offset" in state:
            self.e0[elements] = state["element_refs.property_offset"].numpy().astype(np.float64)


def _check_kind(kind: str, arguments: Mapping[str, Any], path: Path) -> None:
    """Raise LabelError for a potential that is more than a sum of one model's atomic energies."""
    if kind not in MODELS:
        raise LabelError(
            f"{path} holds a {kind or 'model of no kind'}; this teacher takes {', '.join(MODELS)}; {OTHERWISE}"
        )
    for extra in ("calc_repuls", "calc_charge"):
        if arguments.get(extra):
            raise LabelError(f"{path} is a potential with {extra}, which this teacher does not add; {OTHERWISE}")
    if arguments["model"]["init_args"].get("is_intensive", True):
        raise LabelError(f"{path} predicts a property of the whole, not a sum over atoms; it is no potential")
    if arguments["model"]["init_args"].get("include_state"):
        raise LabelError(f"{path} needs a state beside the structure, which the database does not have; {OTHERWISE}")


def _has_swapped_ends(
    kind: str, described: Mapping[str, Any], arguments: Mapping[str, Any], state: Mapping[str, Any]
) -> bool:
    """Whether weights are of a time when matgl gave the ends of an edge to its layers in the other order.

    matgl loads them all the same, with right energies of elements and wrong ones of compounds. TensorNet changed from
    its version 1 to 2; M3GNet with matgl 3, when it left DGL, under the same version: potentials saved before lack
    calc_charge or have a table onehot.
    """
    found: int = described.get("@model_version", 0)
    if kind == "M3GNet":
        return "calc_charge" not in arguments or "element_refs.onehot" in state
    here: int = getattr(MODELS[kind], "__version__", 0)
    if here < 2 or found not in (1, here):
        raise LabelError(
            f"weights of version {found} of {kind}, and matgl {version('matgl')} with version {here}: only weights "
            "of version 1 and of the package's own, from 2 up, are understood; install another matgl"
        )
    return found == 1


def _with_ends_swapped(kind: str, state: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The weights for features of an edge's ends in the other order: the first two blocks of columns change places."""
    names, ends = ENDS[kind]
    width = sizes.get(ends, 64)
    return {
        key: torch.cat([value[:, width : 2 * width], value[:, :width], value[:, 2 * width :]], dim=1)
        if re.search(names, key)
        else value
        for key, value in state.items()
    }


def _model(kind: str, arguments: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> torch.nn.Module:
    """The model with its weights; the plain kernels, because the quick ones are not differentiated twice."""
    plain = {"use_warp": False} if kind == "TensorNet" else {}
    model: torch.nn.Module = MODELS[kind](**{**arguments, **plain})
    own = {key.removeprefix("model."): value for key, value in state.items() if key.startswith("model.")}
    missing = set(model.load_state_dict(own, strict=False).missing_keys) & {key for key, _ in model.named_parameters()}
    if missing:
        raise LabelError(
            f"{path} lacks {len(missing)} of the model's arrays, such as {min(missing)}: it was saved by another "
            f"version of matgl than {version('matgl')}"
        )
    return model


def _plain(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise LabelError(f"{path} is not a file of plain values and arrays as matgl saves it: {error}") from error
    return found


def _files(folder: Path) -> dict[str, Path]:
    paths = {file: folder / file for file in FILES}
    absent = [file for file, path in paths.items() if not path.is_file()]
    if absent:
        raise LabelError(f"no {' and no '.join(absent)} in {folder}; --weights is a folder that matgl saved")
    return paths


def _fetched(name: str, options: TeacherOptions) -> dict[str, Path]:
    """The files of a name among matgl's published weights, from the cache or, unless offline, by the network."""
    if not name:
        raise LabelError("which potential? Give --teacher matgl:TensorNet-MatPES-PBE-v2025.1-PES, or --weights FOLDER")
    repository = name if "/" in name else f"{_matgl_io.HF_MATGL_ORG}/{name}"
    cache = options.cache or _matgl_io.MATGL_CACHE
    try:
        return {
            file: Path(hf_hub_download(repository, file, cache_dir=cache, local_files_only=options.offline))
            for file in FILES
        }
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise DownloadError(
            f"the weights of {name} are not in {cache} and cannot be fetched from {repository} ({error}); fetch the "
            "folder elsewhere and give it with --weights"
        ) from error
