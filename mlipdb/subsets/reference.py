"""Energies of isolated atoms: where they come from, and how they are found or fitted."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from jaxtyping import Float64
from sqlalchemy import Select, or_, select

from mlipdb.catalog import LabelRow, MethodRow, Source, StructureElement, StructureRow
from mlipdb.database import Database
from mlipdb.errors import ConfigError, NotFoundError, did_you_mean
from mlipdb.structures import ATOMIC_NUMBERS, SYMBOLS
from mlipdb.subsets.statistics import fit_e0

EMPTY_BOX = 500.0  # Å³; one atom alone in so large a cell is isolated


@dataclass(frozen=True)
class Reference:
    """Which E0s: kind is ``fit`` (least squares), ``isolated`` (of source, or of the subset's own) or ``given``.

    given are eV by atomic number.
    """

    kind: str = "fit"
    source: str | None = None
    given: Mapping[int, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A text that is equal for equal E0s."""
        if self.kind == "given":
            return "given:" + hashlib.sha256(repr(sorted(self.given.items())).encode()).hexdigest()[:16]
        return self.kind if self.source is None else f"{self.kind}:{self.source}"


@dataclass(frozen=True)
class ReferenceEnergies:
    """E0s in eV by atomic number. rank and elements are those of the composition matrix, rms of the rest in eV/atom."""

    e0: Mapping[int, float]
    rank: int
    elements: int
    residual_rms: float


def parse_reference(text: str) -> Reference:
    """``fit``, ``isolated``, ``isolated:SOURCE``, or a JSON file such as ``{"H": -13.6, "O": -2043.5}`` in eV.

    Raises ConfigError that says what does not fit.
    """
    kind, _, source = text.partition(":")
    if kind == "isolated":
        return Reference("isolated", source or None)
    if text == "fit":
        return Reference()
    path = Path(text)
    if not path.is_file():
        raise ConfigError(f'E0s {text!r}: give fit, isolated, isolated:SOURCE, or a JSON file such as {{"H": -13.6}}')
    try:
        table = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f'{path}: is not JSON ({error}); E0s are an object such as {{"H": -13.6}}') from error
    return given_reference(table, where=str(path))


def given_reference(table: object, *, where: str = "E0s") -> Reference:
    """E0s in eV by symbol or atomic number. Raises ConfigError."""
    if not isinstance(table, Mapping) or not table:
        raise ConfigError(f'{where}: E0s are an object such as {{"H": -13.6, "O": -2043.5}}, in eV')
    given = {}
    for name, value in table.items():
        symbol = SYMBOLS[int(name)] if str(name).isdecimal() and int(name) < len(SYMBOLS) else str(name)
        if symbol not in ATOMIC_NUMBERS:
            raise ConfigError(f"{where}: {name!r} is not an element.{did_you_mean(symbol, ATOMIC_NUMBERS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ConfigError(f"{where}: the E0 of {symbol} is {value!r}; it must be a number in eV")
        given[ATOMIC_NUMBERS[symbol]] = float(value)
    return Reference("given", None, given)


def reference_energies(
    reference: Reference,
    compositions: Sequence[Mapping[int, int]],
    energies: Float64[np.ndarray, " structures"],
    *,
    isolated: Mapping[int, float],
) -> ReferenceEnergies:
    """E0s for these structures; energies are their totals in eV, isolated what isolated_energies found.

    Raises NotFoundError that names elements without one.
    """
    fit = fit_e0(compositions, energies)
    numbers = [int(number) for number in fit.atomic_numbers]
    if reference.kind == "fit":
        e0 = dict(zip(numbers, fit.e0.tolist(), strict=True))
        return ReferenceEnergies(e0, fit.rank, len(numbers), fit.residual_rms)
    e0 = dict(isolated if reference.kind == "isolated" else reference.given)
    missing = [SYMBOLS[number] for number in numbers if number not in e0]
    if missing:
        where = "the file gives" if reference.kind == "given" else "there is"
        raise NotFoundError(
            f"{where} no isolated-atom energy for {', '.join(missing)}; ingest single atoms without a cell of the same "
            "level of theory (isolated:SOURCE), give E0s in a file, or use fit"
        )
    atoms = np.array([sum(each.values()) for each in compositions], dtype=np.float64)
    sums = np.array([sum(e0[number] * count for number, count in each.items()) for each in compositions])
    rms = float(np.sqrt(np.mean(np.square((energies - sums) / atoms))))
    return ReferenceEnergies(e0, fit.rank, len(numbers), rms)


def isolated_energies(
    db: Database, sources: Iterable[int], *, energy: str, method_id: int | None = None
) -> dict[int, float]:
    """Lowest energy in eV of single atoms that are not periodic (or alone in a large cell), by atomic number.

    Asks the catalog only. method_id limits them to one level of theory.
    """
    query = _single_atoms(sources, energy=energy)
    if method_id is not None:
        query = query.where(LabelRow.method_id == method_id)
    with db.session() as session:
        found = session.execute(query).all()
    lowest: dict[int, float] = {}
    for number, total in found:
        lowest[number] = min(total, lowest.get(number, np.inf))
    return lowest


def _single_atoms(sources: Iterable[int], *, energy: str) -> Select[int, float]:
    """Element and energy of each neutral isolated atom of sources that has a DFT label."""
    row = StructureRow
    value = getattr(LabelRow, energy)
    query = select(StructureElement.atomic_number, value).join(row, row.id == StructureElement.structure_id)
    query = query.join(LabelRow, LabelRow.structure_id == row.id).join(MethodRow, MethodRow.id == LabelRow.method_id)
    query = query.where(row.source_id.in_(list(sources)), row.nsites == 1, or_(row.pbc == 0, row.volume > EMPTY_BOX))
    return query.where(value.is_not(None), MethodRow.kind == "dft", or_(row.charge.is_(None), row.charge == 0))


def isolated_of_source(db: Database, name: str, *, energy: str, method_id: int) -> tuple[dict[int, float], str | None]:
    """Energies of a source's single atoms at one level of theory, and a note where that is not method_id's.

    Raises ConfigError where the source has atoms of several methods and none is method_id, NotFoundError without the
    source.
    """
    query = _single_atoms([source_number(db, name)], energy=energy).with_only_columns(LabelRow.method_id).distinct()
    with db.session() as session:
        found = sorted(map(int, session.scalars(query)))
    methods = db.methods()
    own = methods[method_id].name
    if method_id not in found and len(found) > 1:
        listed = ", ".join(f"{number}: {methods[number].name}" for number in found)
        raise ConfigError(
            f"the single atoms of source {name!r} are of {len(found)} methods ({listed}), none of them that of the "
            f"labels ({method_id}: {own}); give E0s in a file, or use fit"
        )
    chosen = method_id if method_id in found or not found else found[0]
    note = None
    if chosen != method_id:
        note = f"E0s are single atoms of {methods[chosen].name!r} from source {name!r}, the labels are of {own!r}"
    return isolated_energies(db, [source_number(db, name)], energy=energy, method_id=chosen), note


def source_number(db: Database, name: str) -> int:
    """The id of a source. Raises NotFoundError with a suggestion."""
    with db.session() as session:
        known = {row[0]: row[1] for row in session.execute(select(Source.name, Source.id))}
    if name not in known:
        raise NotFoundError(f"there is no source {name!r}.{did_you_mean(name, known)}")
    return int(known[name])
