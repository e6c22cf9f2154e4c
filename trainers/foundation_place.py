"""Where the foundation of a fine-tuning is: runs keep what it was called and its checksum, not a path of one day."""

from dataclasses import replace
from pathlib import Path

from mlipdb.database import Database
from mlipdb.download import cache_directory
from mlipdb.errors import MlipdbError, TrainError
from mlipdb.teachers.published import published_name
from mlipdb.trainers.checkpoint import split_head
from mlipdb.trainers.found_model import find_model
from mlipdb.trainers.foundation_weights import fingerprint
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.run_files import best_checkpoint
from mlipdb.trainers.runs import run_folder, run_names


def foundation_name(db: Database, given: str) -> str:
    """What a run keeps of a foundation that was given: its name, or of another file or folder the whole path.

    A run of the database that is given by its folder is kept by its name, so that the database can be moved.
    """
    before, head = split_head(given)
    if before.exists():
        run = run_of(db, given)
        whole = before.resolve()
        name = run if run is not None and whole == run_folder(db, run).resolve() else str(whole)
        return name if head is None else f"{name}@{head}"
    find_model(given, db=db)
    return given


def run_of(db: Database, given: str) -> str | None:
    """The run of the database that a foundation was made by, however it is named; None for another."""
    before, _ = split_head(given)
    if not before.exists():
        return str(before) if str(before) in run_names(db) else None
    whole, runs = before.resolve(), run_folder(db, "x").parent.resolve()
    inside = whole.relative_to(runs).parts if whole.is_relative_to(runs) else ()
    return inside[0] if inside and inside[0] in run_names(db) else None


def foundation_place(db: Database, name: str, *, sha256: str = "") -> str:
    """The file, or the checkpoint folder, of a foundation that a run keeps, with @HEAD where it names one.

    It is what is called so, where that has these weights; else a run, a published file or one in the cache that has
    them. Raises TrainError where nothing has.
    """
    before, head = split_head(name)
    named = _named(db, str(before), needed=not sha256)
    own = None if named is None else fingerprint(named)
    place = named if sha256 in ("", own) else _known_by(db, sha256)
    if place is not None:
        return str(place) if head is None else f"{place}@{head}"
    if own is not None:
        raise TrainError(
            f"the foundation {name!r} has other weights (SHA-256 {own[:12]}) than the run was planned with "
            f"({sha256[:12]}); put the file back, or start another run"
        )
    raise TrainError(
        f"the foundation {name!r} is not there; put it back, or start another run --from a model that exists"
    )


def placed(db: Database, recipe: Recipe) -> Recipe:
    """The recipe with the path of its foundation in place of the name, as it is read on this machine today."""
    tuned = recipe.finetune
    if not tuned.foundation:
        return recipe
    place = foundation_place(db, tuned.foundation, sha256=tuned.sha256)
    return replace(recipe, finetune=replace(tuned, foundation=place))


def _named(db: Database, name: str, *, needed: bool) -> Path | None:
    """The model of that name; None where it is gone or cannot be had, unless it is needed."""
    try:
        place = find_model(run_folder(db, name) if name in run_names(db) else name, db=db)
    except MlipdbError:
        if needed:
            raise
        return None
    return (best_checkpoint(place) or place).resolve() if place.is_dir() else place.resolve()


def _known_by(db: Database, sha256: str) -> Path | None:
    """A run's best checkpoint, a published file or one in the cache that has these weights."""
    bests = [best_checkpoint(run_folder(db, run)) for run in run_names(db)]
    files = sorted(cache_directory().glob("*.nqx"))
    for place in (*bests, *files):
        if place is not None and place.exists() and fingerprint(place) == sha256:
            return place.resolve()
    published = published_name(sha256)
    return None if published is None else find_model(published)
