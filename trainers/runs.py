"""Runs in the catalog: trainings and evaluations with what went in and what came out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy import select

from mlipdb.catalog import Run, Subset
from mlipdb.database import Database
from mlipdb.errors import NotFoundError, TrainError, did_you_mean
from mlipdb.subsets.subset import FrozenSubset

PACKAGES = ("mlipdb", "jax", "jaxlib", "equinox", "optax", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A row of the table run, as it was when read. subset is None where the subset was forgotten since."""

    name: str
    kind: str
    state: str
    config: Mapping[str, Any]
    subset: str | None
    subset_hash: str
    methods: Mapping[str, Any]
    parent: str | None
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    path: Path | None
    started_at: datetime
    finished_at: datetime | None

    def describe(self) -> dict[str, Any]:
        """Plain values."""
        return {name: _plain(value) for name, value in vars(self).items()}


def run_folder(db: Database, name: str) -> Path:
    """Where the files of a run are."""
    return db.path / "runs" / name


def start_run(
    db: Database,
    name: str,
    *,
    kind: str,
    config: Mapping[str, Any],
    subset: FrozenSubset,
    methods: Mapping[str, Any],
    path: Path | None = None,
    parent: str | None = None,
) -> None:
    """Add a row in state ``running``. Raises TrainError when the name is taken."""
    with db.write() as session:
        if session.scalar(select(Run.id).where(Run.name == name)) is not None:
            raise TrainError(f"a run called {name!r} exists; choose another --name, or go on with --resume {name}")
        session.add(
            Run(
                name=name,
                kind=kind,
                state="running",
                config=dict(config),
                subset_id=subset.id,
                subset_hash=subset.hash,
                methods=dict(methods),
                parent=parent,
                metrics={},
                versions={package: metadata.version(package) for package in PACKAGES},
                path=None if path is None else str(path.relative_to(db.path)),
                started_at=datetime.now(UTC),
            )
        )


def update_run(db: Database, name: str, *, state: str, metrics: Mapping[str, Any]) -> None:
    """Replace a run's state and metrics; a state other than ``running`` also sets when it ended."""
    with db.write() as session:
        row = session.scalars(select(Run).where(Run.name == name)).one()
        row.state = state
        row.metrics = dict(metrics)
        row.finished_at = None if state == "running" else datetime.now(UTC)


def find_run(db: Database, name: str) -> RunFacts:
    """The run of a name. Raises NotFoundError that lists the names there are."""
    with db.session() as session:
        row = session.execute(_rows().where(Run.name == name)).one_or_none()
        if row is None:
            names = list(session.scalars(select(Run.name).order_by(Run.name)))
            raise NotFoundError(f"no run {name!r}.{did_you_mean(name, names)} Known: {', '.join(names) or 'none'}")
        return _facts(db, row[0], row[1])


def list_runs(db: Database, *, kind: str | None = None, parent: str | None = None) -> list[RunFacts]:
    """All runs, oldest first; only those of a kind (``train`` or ``evaluate``), or that used another, if given."""
    query = _rows().order_by(Run.id)
    query = query if kind is None else query.where(Run.kind == kind)
    query = query if parent is None else query.where(Run.parent == parent)
    with db.session() as session:
        return [_facts(db, run, subset) for run, subset in session.execute(query)]


def _rows() -> Any:  # versions of SQLAlchemy write the type of a query of two columns differently
    """Runs with the name of their subset, as a query."""
    return select(Run, Subset.name).outerjoin(Subset, Subset.id == Run.subset_id)


def _facts(db: Database, row: Run, subset: str | None) -> RunFacts:
    return RunFacts(
        name=row.name,
        kind=row.kind,
        state=row.state,
        config=row.config,
        subset=subset,
        subset_hash=row.subset_hash,
        methods=row.methods,
        parent=row.parent,
        metrics=row.metrics,
        versions=row.versions,
        path=None if row.path is None else db.path / row.path,
        started_at=row.started_at.replace(tzinfo=UTC),  # SQLite gives the time back without its zone
        finished_at=None if row.finished_at is None else row.finished_at.replace(tzinfo=UTC),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def run_names(db: Database) -> list[str]:
    """Names of all runs, in alphabetical order."""
    with db.session() as session:
        return list(session.scalars(select(Run.name).order_by(Run.name)))


def free_name(db: Database, stem: str) -> str:
    """The stem as a run name, with a number when it is taken."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:200] or "run"
    with db.session() as session:
        taken = set(session.scalars(select(Run.name).where(Run.name.startswith(stem))))
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in numbered if name not in taken)
