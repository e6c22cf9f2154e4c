"""What a training starts from: E0s, mean, scale and neighbours of a part of a subset; worked out once and kept."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sqlalchemy import select

from mlipdb.catalog import LabelRow, StructureRow, SubsetMember, SubsetStatistics
from mlipdb.catalog.rows import now
from mlipdb.database import Database
from mlipdb.errors import ConfigError, LockedError
from mlipdb.labels import ENERGY_KINDS
from mlipdb.subsets.neighbours import count_pairs
from mlipdb.subsets.reference import Reference, isolated_energies, isolated_of_source, reference_energies
from mlipdb.subsets.splits import PARTS, format_fractions
from mlipdb.subsets.statistics import ForceScale, energy_shift
from mlipdb.subsets.subset import FrozenSubset

VERSION = 2  # of what the kept numbers mean; a change of any of them raises it
CHUNK = 4096


class MixedE0Warning(UserWarning):
    """E0s are of another level of theory than the labels."""


@dataclass(frozen=True)
class Request:
    """Which statistics: the part of the split, the cutoff in Å (None: no neighbours), the energy and the E0s."""

    part: str = "train"
    cutoff: float | None = 6.0
    energy: str = "energy_uncorrected"
    reference: Reference = field(default_factory=Reference)

    @property
    def key(self) -> str:
        """A text that is equal for equal requests."""
        cutoff = "none" if self.cutoff is None else repr(float(self.cutoff))
        return f"v{VERSION} part={self.part} cutoff={cutoff} energy={self.energy} e0={self.reference.key}"


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of a part of a subset.

    structures and atoms are counted over all, energies over those with the energy; e0 in eV by atomic number, rank of
    so many elements says how many of a fit's E0s the data decide, residual_rms is the rest in eV/atom; mean is that of
    (E - ΣE0)/N in eV/atom, scale the rms force component in eV/Å, neighbours the mean over structures of neighbours
    per atom, None without a cutoff. note says where the E0s are of another level of theory than the labels.
    """

    structures: int
    atoms: int
    energies: int
    e0: Mapping[int, float]
    e0_kind: str
    rank: int
    elements: int
    residual_rms: float
    mean: float
    scale: float
    neighbours: float | None
    note: str | None = None

    def describe(self) -> dict[str, Any]:
        """Plain values, E0s by atomic number as text."""
        return asdict(self) | {"e0": {str(number): value for number, value in sorted(self.e0.items())}}


Found = TypeVar("Found", TrainingStatistics, TrainingStatistics | None)


@dataclass(frozen=True, eq=False)
class PartData:
    """What statistics are made of, one entry a structure: composition, energy in eV where the mask says so, pairs."""

    compositions: Sequence[Mapping[int, int]]
    energies: Float64[np.ndarray, " structures"]
    has_energy: Bool[np.ndarray, " structures"]
    pairs: Int64[np.ndarray, " structures"] | None
    force_rms: float


def training_statistics(
    db: Database, subset: FrozenSubset, request: Request, *, method_id: int | None = None
) -> TrainingStatistics:
    """The statistics of a part of a subset, from the catalog where they are kept, else worked out and kept.

    method_id chooses the labels (None: those that came with the structures). Raises ConfigError where they are of
    several methods or there are none, NotFoundError where an E0 is missing.
    """
    if request.part not in PARTS:
        raise ConfigError(f"part {request.part!r} is unknown; it is {', '.join(PARTS)}")
    if request.energy not in ENERGY_KINDS:
        raise ConfigError(f"energy {request.energy!r} is unknown; it is {', '.join(ENERGY_KINDS)}")
    method = one_method(db, subset, part=request.part) if method_id is None else method_id
    known = _kept(db, subset, request, method_id=method)
    if known is not None:
        return known
    data = _read(db, subset.splits[request.part], request, method_id=method_id)
    return _keep(db, subset, request, data, method_id=method)


def kept_statistics(
    db: Database, subset: FrozenSubset, request: Request, *, method_id: int
) -> TrainingStatistics | None:
    """The statistics that are kept for a subset of this content, split and request; None where there are none.

    Warns of E0s of another level of theory.
    """
    return _told(_kept(db, subset, request, method_id=method_id))


def _kept(db: Database, subset: FrozenSubset, request: Request, *, method_id: int) -> TrainingStatistics | None:
    same = (SubsetStatistics.subset_hash == subset.hash, SubsetStatistics.method_id == method_id)
    query = select(SubsetStatistics.results).where(*same, SubsetStatistics.key == _key(subset, request))
    with db.session() as session:
        found = session.scalar(query)
    return None if found is None else described_statistics(found)


def described_statistics(values: Mapping[str, Any]) -> TrainingStatistics:
    """The statistics whose describe() this is, also after a trip through JSON."""
    return TrainingStatistics(**{**values, "e0": {int(number): value for number, value in values["e0"].items()}})


def keep_statistics(
    db: Database, subset: FrozenSubset, request: Request, data: PartData, *, method_id: int
) -> TrainingStatistics:
    """Work out statistics of data that were read, and keep them unless another process is writing.

    Warns of E0s of another level of theory.
    """
    return _told(_keep(db, subset, request, data, method_id=method_id))


def _told(found: Found) -> Found:
    if found is not None and found.note is not None:
        warnings.warn(found.note, MixedE0Warning, stacklevel=3)
    return found


def _keep(
    db: Database, subset: FrozenSubset, request: Request, data: PartData, *, method_id: int
) -> TrainingStatistics:
    found = _worked_out(db, subset, request, data, method_id=method_id)
    values = {"subset_hash": subset.hash, "method_id": method_id, "key": _key(subset, request)}
    try:
        with db.write() as session:
            there = select(SubsetStatistics.id).filter_by(**values)
            if session.scalar(there) is None:
                session.add(SubsetStatistics(**values, results=found.describe(), created_at=now()))
    except LockedError:  # a long ingest; they are worked out again next time
        pass
    return found


def part_methods(db: Database, subset: FrozenSubset, *, part: str) -> list[int]:
    """The methods of the labels that came with the structures of a part, ascending."""
    query = select(LabelRow.method_id).distinct().join(SubsetMember, SubsetMember.structure_id == LabelRow.structure_id)
    query = query.join(StructureRow, StructureRow.id == LabelRow.structure_id)
    query = query.where(SubsetMember.subset_id == subset.id, SubsetMember.split == part)
    with db.session() as session:
        return sorted(map(int, session.scalars(query.where(LabelRow.shard_id == StructureRow.shard_id))))


def one_method(db: Database, subset: FrozenSubset, *, part: str, choose: str = "--method NUMBER") -> int:
    """The method of the labels that came with the structures of a part. Raises ConfigError for none or several."""
    found = part_methods(db, subset, part=part)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError(f"no structure of the {part} part of {subset.name!r} has a label; label it or choose another")
    methods = db.methods()
    listed = ", ".join(f"{number}: {methods[number].name}" for number in found)
    raise ConfigError(
        f"the labels of the {part} part of {subset.name!r} are of {len(found)} methods ({listed}), whose energies are "
        f"not comparable; choose one with {choose} or narrow the subset"
    )


def _key(subset: FrozenSubset, request: Request) -> str:
    """The hash of a subset is of its members alone, so the split stands in the key."""
    split = f"{subset.split_by} {format_fractions(subset.fractions)} {subset.seed}"
    return f"{request.key} split={hashlib.sha256(split.encode()).hexdigest()[:16]}"


def _read(db: Database, ids: Int64[np.ndarray, " structures"], request: Request, *, method_id: int | None) -> PartData:
    compositions: list[Mapping[int, int]] = []
    energies: list[float | None] = []
    pairs: list[int] = []
    forces = ForceScale()
    for structure, label in _stream(db, ids, method_id):
        compositions.append(structure.composition)
        energies.append(None if label is None else getattr(label, request.energy))
        if label is not None and label.forces is not None:
            forces.add(label.forces)
        if request.cutoff is not None:
            pairs.append(count_pairs(structure, request.cutoff))
    return PartData(
        compositions,
        np.array([0.0 if energy is None else energy for energy in energies], dtype=np.float64),
        np.array([energy is not None for energy in energies], dtype=np.bool_),
        None if request.cutoff is None else np.array(pairs, dtype=np.int64),
        forces.rms,
    )


def _stream(db: Database, ids: Int64[np.ndarray, " structures"], method_id: int | None) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(ids), CHUNK):
        yield from db.read(ids[start : start + CHUNK], method_id=method_id)


def _worked_out(
    db: Database, subset: FrozenSubset, request: Request, data: PartData, *, method_id: int
) -> TrainingStatistics:
    told = [composition for composition, taken in zip(data.compositions, data.has_energy, strict=True) if taken]
    if not told:
        raise ConfigError(
            f"no structure of the {request.part} part of {subset.name!r} has {request.energy}; choose another: "
            f"{', '.join(ENERGY_KINDS)}"
        )
    energies = data.energies[data.has_energy]
    isolated, note = _isolated(db, subset, request, method_id=method_id)
    found = reference_energies(request.reference, told, energies, isolated=isolated)
    atoms = np.array([sum(each.values()) for each in data.compositions], dtype=np.int64)
    sums = np.array([sum(found.e0.get(z, 0.0) * n for z, n in each.items()) for each in told])
    return TrainingStatistics(
        structures=len(data.compositions),
        atoms=int(atoms.sum()),
        energies=len(told),
        e0=dict(found.e0),
        e0_kind=request.reference.key,
        rank=found.rank,
        elements=found.elements,
        residual_rms=found.residual_rms,
        mean=energy_shift(energies - sums, atoms[data.has_energy]),
        scale=data.force_rms,
        neighbours=None if data.pairs is None else float(np.mean(data.pairs / atoms)),
        note=note,
    )


def _isolated(
    db: Database, subset: FrozenSubset, request: Request, *, method_id: int
) -> tuple[dict[int, float], str | None]:
    reference = request.reference
    if reference.kind != "isolated":
        return {}, None
    if reference.source is not None:
        return isolated_of_source(db, reference.source, energy=request.energy, method_id=method_id)
    query = select(StructureRow.source_id).distinct().join(SubsetMember, SubsetMember.structure_id == StructureRow.id)
    with db.session() as session:
        sources = list(session.scalars(query.where(SubsetMember.subset_id == subset.id)))
    return isolated_energies(db, sources, energy=request.energy, method_id=method_id), None
