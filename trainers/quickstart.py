"""The whole of mlipdb on the data that ships with it: ingest, query, label, train, evaluate."""

import time
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import mlipdb
from mlipdb.database import Database
from mlipdb.ingest import IngestSettings, ingest, parse_method
from mlipdb.labelling import label, load_teacher
from mlipdb.subsets import subset as subsets
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.evaluate import evaluate, table
from mlipdb.trainers.progress import Reporter
from mlipdb.trainers.runs import run_names
from mlipdb.trainers.train import resume, train

SAMPLE = "gpaw-pbe-sample.json.gz"
TEACHER = "nequix-demo"
SUBSET = "crystals"
SEED = 1412  # the sample is small: here every element of the held-out crystals is in two crystals trained on
RUN = "quickstart"
QUERIES = ("Y", "Pm-3m", "Y AND gap>=1")

Say = Callable[[str], None]


def quickstart(path: Path, *, say: Say, reporter: Reporter, settings: Sequence[str] = ()) -> None:
    """Run every step on a database at a path; each says the command that does it. Repeating it repeats nothing done.

    settings change the recipe of the training, as --set does.
    """
    start = time.monotonic()
    say(f"mlipdb quickstart: 262 PBE frames of 66 crystals that ship with mlipdb, in the database {path}\n")
    db = mlipdb.create(path)
    _ingest(db, say)
    _query(db, say)
    _label(db, say)
    _train(db, say, reporter, settings)
    _evaluate(db, say)
    say(f"Done in {time.monotonic() - start:.0f} s.\n\n{_next(path)}")


def _ingest(db: Database, say: Say) -> None:
    say(f"$ mlipdb ingest mptrj {SAMPLE} --name gpaw-pbe --method PBE/GPAW")
    settings = IngestSettings(
        reader="mptrj", name="gpaw-pbe", method=parse_method("PBE/GPAW"), licence="CC0", workers=0
    )
    with as_file(files("mlipdb") / "data" / SAMPLE) as sample:
        report = ingest(db, [sample], settings=settings)
    say(f"  {report.taken} frames taken, {report.duplicates} duplicates, {report.quarantined} quarantined\n")


def _query(db: Database, say: Say) -> None:
    for text in QUERIES:
        say(f"$ mlipdb query '{text}' --count\n  {len(db.query(text))}")
    frozen = subsets.freeze(db, SUBSET, filter="all", seed=SEED)
    sizes = ", ".join(f"{len(ids)} {part}" for part, ids in frozen.splits.items())
    say(f"$ mlipdb subset freeze {SUBSET} all --seed {SEED}")
    say(f"  {sizes}; split by material, so no crystal is in two parts\n")


def _label(db: Database, say: Say) -> None:
    say(f"$ mlipdb label --teacher {TEACHER} --subset {SUBSET} --hessian-rows 4")
    say("  (compiling the teacher for this machine takes most of the next minute)")
    report = label(db, load_teacher(TEACHER), ids=subsets.load(db, SUBSET).ids, hessian_rows=4)
    say(f"  {report.labelled} structures labelled, {report.rows} Hessian rows, {report.already} had all already")
    say("  The teacher is a demonstration: a small Nequix trained on this very sample's training part.\n")


def _train(db: Database, say: Say, reporter: Reporter, settings: Sequence[str]) -> None:
    say(f"$ mlipdb train --subset {SUBSET} --recipe quickstart --teacher {TEACHER} --name {RUN}")
    if RUN in run_names(db):
        resume(db, RUN, reporter=reporter)
    else:
        recipe = load_recipe("quickstart", settings=settings)
        train(db, SUBSET, recipe=recipe, reporter=reporter, teacher=TEACHER, name=RUN)
    say("")


def _evaluate(db: Database, say: Say) -> None:
    say(f"$ mlipdb evaluate {RUN} --subset {SUBSET}")
    say(table(evaluate(db, RUN, subset=SUBSET)))
    say("  62 crystals teach little about others: see that every step works, then bring your own data.\n")


def _next(path: Path) -> str:
    """What to try next, with the database that was made."""
    return "\n".join(
        (
            "What to try next (export MLIPDB_DB=" + str(path) + "):",
            "  mlipdb show 1                                         where a structure came from, who labelled it",
            "  mlipdb train --subset Y --recipe nano                 the same without a teacher, and longer",
            "  mlipdb ingest mptrj                                   the published 1.58 million frames (11 GB)",
            "  mlipdb ingest extxyz my.xyz --key energy=REF_energy   your own data",
            "  mlipdb label --teacher nequix-mp-1 --hessian-rows 4   labels of a published model",
        )
    )
