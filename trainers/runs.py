"""Runs in the catalog: trainings and evaluations with what went in and what came out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from sqlalchemy import select

from mlipdb.catalog import Run
from mlipdb.database import Database
from mlipdb.errors import NotFoundError, TrainError, did_you_mean
from mlipdb.subsets.subset import FrozenSubset

PACKAGES = ("mlipdb", "jax", "jaxlib", "equinox", "optax", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A row of the table run, as it was when read."""

    name: str
    kind: str
    state: str
    config: Mapping[str, Any]
    subset_hash: str
    metrics: Mapping[str, Any]
    path: Path | None


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
        row = session.scalar(select(Run).where(Run.name == name))
        if row is None:
            names = list(session.scalars(select(Run.name).order_by(Run.name)))
            raise NotFoundError(f"no run {name!r}.{did_you_mean(name, names)} Known: {', '.join(names) or 'none'}")
        return RunFacts(
            name=row.name,
            kind=row.kind,
            state=row.state,
            config=row.config,
            subset_hash=row.subset_hash,
            metrics=row.metrics,
            path=None if row.path is None else db.path / row.path,
        )


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
