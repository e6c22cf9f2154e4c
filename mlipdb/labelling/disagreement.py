"""Stored disagreements: how far methods are apart on the structures that all of them labelled, for filters to ask."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from mlipdb.catalog import Disagreement, DisagreementMethod, StructureDisagreement
from mlipdb.catalog.rows import insert_many, now
from mlipdb.database import Database
from mlipdb.errors import ConfigError, LabelError, MlipdbError, NotFoundError, QueryError, did_you_mean
from mlipdb.labelling.spread import Labelled, energy_spread, force_spread, read_labelled
from mlipdb.query import structure_ids

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,59}")
AT_ONCE = 10_000
QUANTILES = (0.5, 0.9, 0.99, 1.0)

Ids = Int64[np.ndarray, " structures"]
Values = Float64[np.ndarray, " structures"]


@dataclass(frozen=True, kw_only=True)
class Definition:
    """Which methods (ids) are compared on the structures of which filter, and the name of the result."""

    name: str
    methods: tuple[int, ...]
    filter: str


@dataclass(frozen=True, kw_only=True)
class DisagreementReport:
    """A stored disagreement, and what the last call did.

    structures is how many have it; fresh were worked out by the call, gone lost a label and with it their numbers.
    forces (eV/Å) and energy (eV/atom) are the median, 90 %, 99 % and the largest; None where no structure has one.
    problem says why a disagreement could not be brought up to date.
    """

    name: str
    methods: tuple[int, ...]
    filter: str
    structures: int
    fresh: int
    gone: int
    forces: tuple[float, ...] | None
    energy: tuple[float, ...] | None
    problem: str | None = None


def disagree(
    db: Database, methods: Sequence[int], *, subset: str = "all", name: str | None = None
) -> DisagreementReport:
    """Work out and store how far methods are apart on those structures of a subset or filter that all have labelled.

    It is kept under a name, by default made of the methods' names, and brought up to date by the same call again or by
    refresh_disagreements. Raises ConfigError where the name is taken by something else or cannot stand in a filter,
    LabelError where no structure has labels by all.
    """
    definition = _definition(db, tuple(methods), subset, name)
    work = _Work.read(db, definition)
    if not len(work.labelled.ids):
        names = " and ".join(f"{number} {db.method(number).name}" for number in methods)
        raise LabelError(
            f"no structure of {subset!r} has labels by all of {names}; label it with each of them first: "
            "mlipdb label --teacher … --subset …"
        )
    work.store()
    return work.report()


def refresh_disagreements(db: Database, *, method_id: int | None = None) -> tuple[DisagreementReport, ...]:
    """Bring every stored disagreement up to date, or those of a method: call it after labels came or went.

    Only structures whose labels are new or others are worked out again; the constants per element are fitted to all.
    One that cannot be brought up to date, as its subset is gone, is reported with the problem.
    """
    reports = []
    for definition in disagreements(db):
        if method_id is None or method_id in definition.methods:
            try:
                work = _Work.read(db, definition)
                work.store()
                reports.append(work.report())
            except MlipdbError as error:
                reports.append(_stored_report(db, definition, problem=str(error)))
    return tuple(reports)


def disagreements(db: Database) -> tuple[Definition, ...]:
    """Every stored disagreement, by name."""
    with db.session() as session:
        rows = session.execute(select(Disagreement.id, Disagreement.name, Disagreement.filter)).all()
        return tuple(
            Definition(name=name, methods=_methods(session, number), filter=filter)
            for number, name, filter in sorted(rows, key=lambda row: str(row.name))
        )


def forget_disagreement(db: Database, name: str) -> None:
    """Drop a stored disagreement; the labels stay. Raises NotFoundError."""
    find_disagreement(db, name)
    with db.write() as session:
        session.execute(delete(Disagreement).where(Disagreement.name == name))


def clear_disagreements(session: Session, method_id: int) -> None:
    """Take off the numbers that a method is part of, in the transaction that drops its labels.

    What is compared stays known: the numbers come back when the method has labelled again.
    """
    mine = select(DisagreementMethod.disagreement_id).where(DisagreementMethod.method_id == method_id)
    session.execute(delete(StructureDisagreement).where(StructureDisagreement.disagreement_id.in_(mine)))


def find_disagreement(db: Database, name: str) -> Definition:
    """The stored disagreement of a name. Raises NotFoundError."""
    known = {each.name: each for each in disagreements(db)}
    if name not in known:
        hint = did_you_mean(name, known) or " Make one: mlipdb labels disagree METHOD METHOD"
        raise NotFoundError(f"there is no disagreement {name!r}.{hint}")
    return known[name]


def _definition(db: Database, methods: tuple[int, ...], filter: str, name: str | None) -> Definition:
    """What a call asks for: the stored one where it is the same, in whatever order its methods are."""
    names = [db.method(number).name for number in methods]
    if len(set(methods)) < 2 or len(set(methods)) < len(methods):
        raise ConfigError(f"methods {list(methods)}: give two or more different ones to compare")
    if "_disagreement" in filter:
        raise QueryError(
            f"{filter!r} asks for a disagreement, which is what is to be worked out; freeze it first: mlipdb subset "
            "freeze NAME FILTER"
        )
    known = disagreements(db)
    same = [each for each in known if (set(each.methods), each.filter) == (set(methods), filter)]
    if name is None and same:
        return same[0]
    wanted = Definition(name=name or _default_name(names, methods), methods=methods, filter=filter)
    if not NAME.fullmatch(wanted.name):
        raise ConfigError(
            f"the name {wanted.name!r} cannot stand in a filter: it takes small letters, digits and '_' (60 at most); "
            "choose one with --name"
        )
    taken = next((each for each in known if each.name == wanted.name), None)
    if taken is not None and taken not in same:
        raise ConfigError(
            f"the disagreement {taken.name!r} is of methods {list(taken.methods)} on {taken.filter!r}; choose another "
            f"--name, or forget it first: mlipdb labels disagreements --forget {taken.name}"
        )
    return taken or wanted


def _default_name(names: Sequence[str], methods: Sequence[int]) -> str:
    words = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names]
    if len(set(words)) < len(words):
        words = [f"{word}_{number}" for word, number in zip(words, methods, strict=True)]
    return "_".join(words)[:60].strip("_")


@dataclass(frozen=True, eq=False)
class _Stored:
    """The rows of a disagreement, ids ascending; forces are NaN where they are not known."""

    ids: Ids
    forces: Values
    hashes: UInt8[np.ndarray, "structures 16"]


@dataclass(frozen=True, eq=False)
class _Work:
    """One disagreement on its way: what is labelled now, the numbers, which of them are new, how many rows must go."""

    db: Database
    definition: Definition
    labelled: Labelled
    forces: Values
    fresh: Bool[np.ndarray, " structures"]
    gone: int

    @classmethod
    def read(cls, db: Database, definition: Definition) -> "_Work":
        """Read labels; work out the forces of the structures whose labels are new or others."""
        with db.session() as session:
            labelled = read_labelled(session, structure_ids(session, definition.filter), definition.methods)
            stored = _stored(session, definition.name)
        forces, kept = np.full(len(labelled.ids), np.nan), np.zeros(len(labelled.ids), bool)
        _, here, there = np.intersect1d(labelled.ids, stored.ids, assume_unique=True, return_indices=True)
        same = (labelled.hashes[here] == stored.hashes[there]).all(axis=1)
        forces[here[same]], kept[here[same]] = stored.forces[there[same]], True
        forces[~kept] = force_spread(db, labelled.ids[~kept], definition.methods)
        return cls(db, definition, labelled, forces, ~kept, len(stored.ids) - len(here))

    def store(self) -> None:
        """Replace the rows in one transaction; nothing is written where nothing has changed."""
        if not (self.fresh.any() or self.gone):
            return
        with self.db.session() as session:
            energy = energy_spread(session, self.labelled)
        constants = {str(m): dict(each) for m, each in zip(self.definition.methods, energy.constants, strict=False)}
        columns = ("disagreement_id", "structure_id", "forces", "energy", "labels")
        with self.db.write() as session:
            number = _replace(session, self.definition, constants)
            for start in range(0, len(self.labelled.ids), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                ids, hashes = self.labelled.ids[some].tolist(), [row.tobytes() for row in self.labelled.hashes[some]]
                rows = zip(ids, _nulls(self.forces[some]), _nulls(energy.values[some]), hashes, strict=True)
                insert_many(session, StructureDisagreement, columns, [(number, *row) for row in rows])

    def report(self) -> DisagreementReport:
        """What is stored and what was done."""
        return _stored_report(self.db, self.definition, fresh=int(self.fresh.sum()), gone=self.gone)


def _stored(session: Session, name: str) -> _Stored:
    row = StructureDisagreement
    query = select(row.structure_id, row.forces, row.labels).join(Disagreement, Disagreement.id == row.disagreement_id)
    found = session.execute(query.where(Disagreement.name == name).order_by(row.structure_id)).all()
    return _Stored(
        np.array([identity for identity, _, _ in found], np.int64),
        np.array([np.nan if forces is None else forces for _, forces, _ in found], np.float64),
        np.frombuffer(b"".join(bytes(labels) for _, _, labels in found), np.uint8).reshape(-1, 16),
    )


def _replace(session: Session, definition: Definition, constants: dict[str, dict[str, float]]) -> int:
    """The row of a definition, new or with its numbers taken off; its id."""
    row = session.scalars(select(Disagreement).where(Disagreement.name == definition.name)).one_or_none()
    if row is None:
        row = Disagreement(name=definition.name, filter=definition.filter, constants=constants, updated_at=now())
        session.add(row)
        session.flush()
        members = [(row.id, method, place) for place, method in enumerate(definition.methods)]
        insert_many(session, DisagreementMethod, ("disagreement_id", "method_id", "place"), members)
    row.constants, row.updated_at = constants, now()
    session.flush()
    session.execute(delete(StructureDisagreement).where(StructureDisagreement.disagreement_id == row.id))
    return row.id


def _methods(session: Session, number: int) -> tuple[int, ...]:
    row = DisagreementMethod
    return tuple(session.scalars(select(row.method_id).where(row.disagreement_id == number).order_by(row.place)))


def _stored_report(
    db: Database, definition: Definition, *, fresh: int = 0, gone: int = 0, problem: str | None = None
) -> DisagreementReport:
    row = StructureDisagreement
    query = select(row.forces, row.energy).join(Disagreement, Disagreement.id == row.disagreement_id)
    with db.session() as session:
        rows = session.execute(query.where(Disagreement.name == definition.name)).all()
    forces, energy = (
        np.array([row[place] for row in rows if row[place] is not None], np.float64) for place in range(2)
    )
    return DisagreementReport(
        name=definition.name,
        methods=definition.methods,
        filter=definition.filter,
        structures=len(rows),
        fresh=fresh,
        gone=gone,
        forces=_quantiles(forces),
        energy=_quantiles(energy),
        problem=problem,
    )


def _quantiles(values: Values) -> tuple[float, ...] | None:
    return tuple(np.quantile(values, QUANTILES).tolist()) if len(values) else None


def _nulls(values: Values) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]
