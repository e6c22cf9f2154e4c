"""The teacher ``nequix``: published weights by name, or any .nqx file or checkpoint folder of mlipdb."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Int32

from mlipdb.errors import LabelError
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.structures import Structure
from mlipdb.teachers.kept_lists import KeptLists
from mlipdb.teachers.published import PUBLISHED, known_file, published_name
from mlipdb.trainers.archive import DOCUMENT
from mlipdb.trainers.batching.pad import GraphShape, needed_shape, pad_graph
from mlipdb.trainers.batching.shapes import KnownShapes
from mlipdb.trainers.checkpoint import load_model, read_notes, split_head
from mlipdb.trainers.compiled import compiled
from mlipdb.trainers.graph import AtomicGraph, Prediction
from mlipdb.trainers.models.base import AbstractModel
from mlipdb.trainers.models.derive import ROWS_AT_ONCE, gives_stress, predict, predict_with_rows
from mlipdb.trainers.models.nqx import load_nqx
from mlipdb.trainers.run_files import best_checkpoint
from mlipdb.version import __version__

CPU_EDGES, ACCELERATOR_EDGES = 8192, 32768  # of a batch; about 2 GB with published weights and Hessian rows, and 8 GB

_predict = compiled(predict)
_predict_with_rows = compiled(predict_with_rows)


class NequixTeacher:
    """Labels by a conservative model of mlipdb in float32; E0 is added in float64 on the host.

    Energies are sums of the atomic energies, E0 inside. Hessian rows are Hessian-vector products, one for the k-th
    rows of all structures of a batch.
    """

    def __init__(self, model: AbstractModel, info: TeacherInfo) -> None:
        self.info = info
        edges = CPU_EDGES if jax.default_backend() == "cpu" else ACCELERATOR_EDGES
        self.batch_limits = BatchLimits(structures=255, atoms=edges // 4, edges=edges)
        self._model = model
        self._e0 = np.zeros(119)
        self._e0[list(model.atomic_numbers)] = np.asarray(model.e0, dtype=np.float64)
        self._lists = KeptLists(float(model.cutoff), needs=model.graph_needs)
        self._shapes: dict[int, KnownShapes] = defaultdict(partial(KnownShapes, _shape))  # by rows at once

    @classmethod
    def load(cls, name: str, options: TeacherOptions, *, stress: bool = True) -> "NequixTeacher":
        """The teacher of a published name, or of a file or checkpoint folder; see TeacherInfo for what is remembered.

        PATH@HEAD is one head of a checkpoint that has several, PATH the first; which one is among the settings.
        A published file is known by its hash, so that it is the same teacher whether given by name or by path. Without
        stress it may be a direct model, which has none: labels are then energies and forces alone.
        """
        options.refuse_unused(name, "device", "dtype", "step")
        given = options.weights or known_file(name, cache=options.cache, offline=options.offline)
        path, _ = split_head(given)
        if not path.exists():
            raise LabelError(f"no weights at {path}; give a .nqx file or a checkpoint folder with --weights")
        model = load_model(given) if path.is_dir() or given != path else load_nqx(path)[0]
        if stress:
            _check_stress(model, path)
        sha256 = hashlib.sha256(_identity(path).read_bytes()).hexdigest()
        known = published_name(sha256)
        if known is not None and name in PUBLISHED and name != known:
            raise LabelError(f"{path} holds the weights of {known}, not of {name}; use --teacher {known}")
        published = PUBLISHED.get(known or name)
        info = TeacherInfo(
            name=known or name,
            weights_sha256=sha256,
            package="mlipdb",
            package_version=__version__,
            dtype="float32",
            e0_included=True,
            atomic_numbers=frozenset(model.atomic_numbers),
            functional=None if published is None else published.functional,
            settings=_head(given),
        )
        return cls(model, info)

    def edges(self, structure: Structure) -> int:
        """Pairs within the cutoff, images included. The list is kept for the call of label that follows."""
        return self._lists.count(structure)

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """Labels of a batch: one evaluation, and one Hessian-vector product for each row that the greediest asks for.

        Raises LabelError for an element that the model was not made for, MemoryError when the device is too small.
        """
        for structure in structures:
            self.info.check_structure(structure)
        lists = [self._lists.of(structure) for structure in structures]
        most = max((len(numbers) for numbers in request.hessian_row_numbers), default=0)
        shapes = self._shapes[min(most, ROWS_AT_ONCE)]
        shape = shapes.fitting(needed_shape(structures, lists))
        dofs = batch_dofs(structures, request.hessian_row_numbers, graphs=shape.graphs)
        try:
            prediction, rows = self._evaluate(pad_graph(structures, lists, shape=shape), dofs)
        except MemoryError:
            shapes.drop(shape)
            raise
        return self._split(structures, request, prediction=prediction, rows=rows)

    def _evaluate(self, graph: AtomicGraph, dofs: Int32[np.ndarray, "rows graphs"]) -> tuple[Prediction, np.ndarray]:
        """On the device, rows in chunks, which repeat the energy's own tenth of the work, then as numpy arrays."""
        chunks = [dofs[start : start + ROWS_AT_ONCE] for start in range(0, len(dofs), ROWS_AT_ONCE)]
        try:
            if not chunks:
                return jax.device_get(_predict(self._model, graph)), np.zeros((0, 0, 3))
            found = [
                jax.device_get(_predict_with_rows(self._model, graph, jnp.asarray(chunk), rows_at_once=ROWS_AT_ONCE))
                for chunk in chunks
            ]
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise MemoryError(str(error).splitlines()[0]) from error
        return found[0][0], np.concatenate([rows for _, rows in found])

    def _split(
        self, structures: Sequence[Structure], request: LabelRequest, *, prediction: Prediction, rows: np.ndarray
    ) -> list[Label]:
        """The arrays of the batch structure by structure, as float64."""
        labels, first = [], 0
        for place, (structure, numbers) in enumerate(zip(structures, request.hessian_row_numbers, strict=True)):
            atoms = slice(first, first + len(structure))
            first += len(structure)
            label = Label(
                hessian_row_numbers=numbers if len(numbers) else None,
                hessian_rows=rows[: len(numbers), atoms].astype(np.float64) if len(numbers) else None,
            )
            labels.append(
                self._with_base(label, structure, prediction, atoms=atoms, graph=place) if request.base else label
            )
        return labels

    def _with_base(
        self, label: Label, structure: Structure, prediction: Prediction, *, atoms: slice, graph: int
    ) -> Label:
        has_stress = all(structure.pbc) and gives_stress(self._model)
        interaction = np.asarray(prediction.atomic_energies[atoms], dtype=np.float64)
        atomic: Float64[np.ndarray, " atoms"] = interaction + self._e0[structure.atomic_numbers]
        return replace(
            label,
            energy_uncorrected=float(atomic.sum()),
            forces=np.asarray(prediction.forces[atoms], dtype=np.float64),
            stress=np.asarray(prediction.stress[graph], dtype=np.float64) if has_stress else None,
            atomic_energies=atomic,
            atomic_energies_include_e0=True,
        )


def _identity(path: Path) -> Path:
    """The file whose hash stands for the weights; a checkpoint's document holds the hashes of its arrays."""
    return path if path.is_file() else (best_checkpoint(path) or path) / DOCUMENT


def _head(path: Path) -> dict[str, str]:
    """The head that labels, where the weights have several: it tells its labels from those of the others."""
    named = {} if split_head(path)[0].is_file() else read_notes(path)
    return {"head": named["head"]} if "head" in named else {}


def batch_dofs(
    structures: Sequence[Structure], row_numbers: Sequence[Int32[np.ndarray, " _"]], *, graphs: int
) -> Int32[np.ndarray, "rows graphs"]:
    """Row numbers of each structure as degrees of freedom of the whole batch; -1 where a structure asks for no more.

    Beyond one chunk the number of rows is a multiple of it.
    """
    most = max((len(numbers) for numbers in row_numbers), default=0)
    padded = most if most <= ROWS_AT_ONCE else -(-most // ROWS_AT_ONCE) * ROWS_AT_ONCE
    dofs = np.full((padded, graphs), -1, dtype=np.int32)
    first = 0
    for place, (structure, numbers) in enumerate(zip(structures, row_numbers, strict=True)):
        dofs[: len(numbers), place] = 3 * first + numbers
        first += len(structure)
    return dofs


def _check_stress(model: AbstractModel, path: Path) -> None:
    """A label of a periodic structure has a stress, which a direct model could only invent."""
    if not gives_stress(model):
        raise LabelError(
            f"{path} is a {type(model).__name__}, whose forces are no derivative, so that it has no stress to label "
            "with; give a conservative model, such as Nequix"
        )


def _shape(needed: GraphShape) -> GraphShape:
    """A padded shape, in few sizes: the runner fills batches to one, and a new shape takes long to compile.

    Edges, which are nearly all of the work, come in quarters of powers of two, so that at most a fifth of them is
    padding and not half. There are about 60 edges to an atom and an edge costs a quarter of an atom, so that atoms are
    padded generously.
    """
    edges = _quarter_step(needed.edges, smallest=1024)
    return GraphShape(
        atoms=_power_of_two(needed.atoms, smallest=_power_of_two(edges, smallest=1024) // 32),
        edges=edges,
        graphs=_power_of_two(needed.graphs, smallest=64),
        triplets=_power_of_two(needed.triplets, smallest=4096) if needed.triplets else 0,
    )


def _quarter_step(count: int, *, smallest: int) -> int:
    """The next of 1, 1.25, 1.5 and 1.75 times a power of two."""
    quarter = _power_of_two(count, smallest=smallest) // 8  # of the power of two below
    return max(smallest, -(-count // quarter) * quarter)


def _power_of_two(count: int, *, smallest: int) -> int:
    return max(smallest, 1 << (count - 1).bit_length())
