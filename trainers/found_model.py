"""Where a model is that somebody names: a path, a run of a database, or published weights."""

from pathlib import Path

from mlipdb.database import Database, open_database
from mlipdb.errors import NotFoundError, TrainError, did_you_mean
from mlipdb.teachers.published import DEMONSTRATION, PUBLISHED, known_file
from mlipdb.trainers.checkpoint import split_head
from mlipdb.trainers.runs import find_run, run_names

NAMES = (*PUBLISHED, DEMONSTRATION)


def find_model(name: str | Path, *, db: Database | Path | str | None = None) -> Path:
    """The file or folder of a model: that path if there is one, else a run of the database, else published weights.

    Published weights, such as nequix-mp-1, are downloaded once and checked by their hash. ``NAME@HEAD`` is found as
    ``PATH@HEAD``, which load_model reads. Raises NotFoundError for a name that is none of these, TrainError for a run
    without a model.
    """
    path = Path(name)
    if path.exists():
        return path
    if db is not None and not isinstance(db, Database):
        opened = open_database(db)
        try:
            return find_model(name, db=opened)
        finally:
            opened.close()
    runs = [] if db is None else run_names(db)
    if db is not None and str(name) in runs:
        return _run_model(db, str(name))
    if str(name) in NAMES:
        return known_file(str(name), cache=None, offline=False)
    before, head = split_head(name)
    if head is not None:
        found = find_model(before, db=db)
        return found.with_name(f"{found.name}@{head}")
    where = "a run needs its database" if db is None else f"runs: {', '.join(runs) or 'none'}"
    raise NotFoundError(
        f"{str(name)!r} is no file or folder, no run and no published name.{did_you_mean(str(name), [*runs, *NAMES])} "
        f"{where}; published: {', '.join(NAMES)}"
    )


def _run_model(db: Database, name: str) -> Path:
    facts = find_run(db, name)
    if facts.kind != "train" or facts.path is None:
        raise TrainError(f"run {name!r} is of kind {facts.kind!r}; only trainings leave a model. Give {facts.parent!r}")
    if not (facts.path / "checkpoints.json").is_file():
        raise TrainError(f"run {name!r} has no checkpoint yet ({facts.state}); its first epoch must end before")
    return facts.path
