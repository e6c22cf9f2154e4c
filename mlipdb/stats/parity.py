"""Two sets of labels of the same structures, side by side."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session, aliased

from mlipdb.catalog import LabelRow, MethodRow, StructureRow
from mlipdb.database import Database
from mlipdb.errors import NotFoundError, did_you_mean
from mlipdb.labels import ENERGY_KINDS
from mlipdb.stats.counts import Scope, scope_of, spread_of

OUTLIERS = 10
POINTS = 5000  # energies that a plot shows


@dataclass(frozen=True)
class Errors:
    """How far the second method is from the first: mean absolute error, root mean square, R², in the unit.

    r2 is None where the first method's values are all the same.
    """

    unit: str
    count: int
    mean: float
    mae: float
    rmse: float
    r2: float | None


@dataclass(frozen=True)
class Outlier:
    """A structure where the methods are far apart: second minus first, and the energies per atom themselves."""

    id: int
    external_id: str
    difference: float
    first: float | None = None
    second: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Parity:
    """Two methods on the structures that both labelled.

    Errors of energies are per atom and of every structure, counted by SQL; those of forces are per component and of
    a sample of so many structures. energies and forces hold points to draw: first and second method in columns, in
    eV/atom and eV/Å.
    """

    first: str
    second: str
    filter: str
    energy_kind: str | None
    structures: int
    sampled: int
    errors: dict[str, Errors]
    outliers: tuple[Outlier, ...]
    force_outliers: tuple[Outlier, ...]
    energies: Float64[np.ndarray, "points 2"]
    forces: Float64[np.ndarray, "components 2"]

    def describe(self) -> dict[str, Any]:
        """Plain values without the points."""
        return {name: value for name, value in asdict(self).items() if name not in ("energies", "forces")}


def find_method(session: Session, name: str) -> MethodRow:
    """The method of a number or of a name; NotFoundError where none or several are called so."""
    rows = list(session.scalars(select(MethodRow).order_by(MethodRow.id)))
    found = [row for row in rows if str(row.id) == name] or [row for row in rows if row.name == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{row.id} ({row.name})" for row in (found or rows)) or "none yet"
    if found:
        raise NotFoundError(f"{len(found)} methods are called {name!r}: {known}; give one of the numbers")
    raise NotFoundError(
        f"there is no method {name!r}; methods are {known}.{did_you_mean(name, [r.name for r in rows])}"
    )


def compare_methods(
    db: Database, first: str, second: str, *, filter: str = "all", sample: int = 500, seed: int = 0
) -> Parity:
    """Compare the labels of two methods, given by number or name, on the structures of a filter.

    sample is how many structures are read for the forces, seed which. Raises NotFoundError where a method is not
    known or no structure has labels of both.
    """
    with db.session() as session:
        scope = scope_of(session, filter)
        rows = [find_method(session, name) for name in (first, second)]
        pairs = Pairs(session, scope, rows[0].id, rows[1].id)
        total = pairs.count()
        if not total:
            raise NotFoundError(
                f"no structure of {filter!r} has labels of both {rows[0].name} and {rows[1].name}; "
                "`mlipdb stats` lists what each labelled"
            )
        kind = pairs.energy_kind()
        energy = pairs.energy_errors(kind) if kind else None
        energies = pairs.energy_points(kind, seed=seed) if kind else np.empty((0, 2))
        outliers = pairs.energy_outliers(kind) if kind else ()
        ids = pairs.sample(sample, seed=seed)
    forces, force_outliers = _forces(db, ids, first=rows[0].id, second=rows[1].id)
    components = errors_of(forces, unit="eV/Å") if len(forces) else None
    errors = {"energy per atom": energy, "force components": components}
    return Parity(
        first=f"{rows[0].name} ({rows[0].id})",
        second=f"{rows[1].name} ({rows[1].id})",
        filter=filter,
        energy_kind=kind,
        structures=total,
        sampled=len(ids),
        errors={name: found for name, found in errors.items() if found},
        outliers=outliers,
        force_outliers=force_outliers,
        energies=energies,
        forces=forces,
    )


def errors_of(values: Float64[np.ndarray, "values 2"], *, unit: str) -> Errors:
    """Errors of the second column against the first."""
    difference = values[:, 1] - values[:, 0]
    squares = float(np.square(difference).mean())
    variance = float(values[:, 0].var())
    return Errors(
        unit,
        len(values),
        float(difference.mean()),
        float(np.abs(difference).mean()),
        squares**0.5,
        1 - squares / variance if variance > 0 else None,
    )


class Pairs:
    """The labels of two methods of the same structure, as SQL."""

    def __init__(self, session: Session, scope: Scope, first: int, second: int) -> None:
        self._session = session
        self._first, self._second = aliased(LabelRow), aliased(LabelRow)
        left, right = self._first, self._second
        self._same = and_(
            *(left.method_id == first, right.method_id == second, left.structure_id == right.structure_id),
            *(left.part == 0, right.part == 0, left.status == "done", right.status == "done"),
            scope.holds(left.structure_id),
        )

    def count(self) -> int:
        """How many structures have labels of both."""
        return self._session.scalar(select(func.count()).select_from(self._first, self._second).where(self._same)) or 0

    def energy_kind(self) -> str | None:
        """The first kind of energy that both gave for some structure; None where there is none."""
        both = [func.count(self._difference(kind)) for kind in ENERGY_KINDS]
        counts = self._session.execute(select(*both).where(self._same)).one()
        return next((kind for kind, count in zip(ENERGY_KINDS, counts, strict=True) if count), None)

    def energy_errors(self, kind: str) -> Errors:
        """Errors of the energies per atom, from two passes so that no digits are lost."""
        left, right = self._energies(kind)
        gap = right - left
        means = select(func.count(gap), func.avg(gap), func.avg(func.abs(gap)), func.avg(left))
        count, mean, mae, centre = self._session.execute(self._with_sites(means, kind)).one()
        moments = select(func.avg(gap * gap), func.avg((left - centre) * (left - centre)))
        squares, variance = self._session.execute(self._with_sites(moments, kind)).one()
        return Errors("eV/atom", count, mean, mae, squares**0.5, 1 - squares / variance if variance > 0 else None)

    def energy_outliers(self, kind: str) -> tuple[Outlier, ...]:
        """The structures whose energies per atom are furthest apart."""
        left, right = self._energies(kind)
        facts = (StructureRow.id, StructureRow.external_id, (right - left).label("gap"), left, right)
        chosen = self._with_sites(select(*facts), kind)
        furthest = chosen.order_by(func.abs(right - left).desc(), StructureRow.id).limit(OUTLIERS)
        return tuple(Outlier(*row) for row in self._session.execute(furthest))

    def energy_points(self, kind: str, *, seed: int) -> Float64[np.ndarray, "points 2"]:
        """Energies per atom to draw, of all structures or of a sample of POINTS."""
        left, right = self._energies(kind)
        chosen = self._with_sites(select(StructureRow.id, left, right), kind)
        rows = self._session.execute(chosen.order_by(spread_of(StructureRow.id, seed=seed)).limit(POINTS)).all()
        return np.array([row[1:] for row in sorted(rows)], dtype=np.float64).reshape(-1, 2)

    def sample(self, count: int, *, seed: int) -> list[int]:
        """So many structures for which both gave forces."""
        left, right = self._first, self._second
        forces = and_(left.arrays.contains("forces"), right.arrays.contains("forces"))
        chosen = select(left.structure_id).where(self._same, forces)
        ordered = chosen.order_by(spread_of(left.structure_id, seed=seed), left.structure_id).limit(count)
        return sorted(self._session.scalars(ordered))

    def _difference(self, kind: str) -> ColumnElement[float]:
        return getattr(self._second, kind) - getattr(self._first, kind)  # type: ignore[no-any-return]  # a column

    def _energies(self, kind: str) -> tuple[ColumnElement[float], ColumnElement[float]]:
        return getattr(self._first, kind) / StructureRow.nsites, getattr(self._second, kind) / StructureRow.nsites

    def _with_sites(self, chosen: Any, kind: str) -> Any:
        known = self._difference(kind).is_not(None)
        return chosen.where(self._same, StructureRow.id == self._first.structure_id, known)


def _forces(
    db: Database, ids: list[int], *, first: int, second: int
) -> tuple[Float64[np.ndarray, "components 2"], tuple[Outlier, ...]]:
    """Force components of both methods, and the structures with the largest difference of one force."""
    columns, largest = [], []
    pairs = zip(ids, db.read(ids, method_id=first), db.read(ids, method_id=second), strict=True)
    for identity, (_, left), (_, right) in pairs:
        if left is None or right is None or left.forces is None or right.forces is None:
            continue
        columns.append(np.column_stack([left.forces.ravel(), right.forces.ravel()]))
        largest.append((float(np.linalg.norm(right.forces - left.forces, axis=1).max()), identity))
    furthest = sorted(largest, key=lambda item: (-item[0], item[1]))[:OUTLIERS]
    outliers = tuple(Outlier(number, db.entry(number).external_id, gap) for gap, number in furthest)
    return (np.concatenate(columns) if columns else np.empty((0, 2))), outliers
