"""kill -9 freezing, exports, bundles and copies at random moments, and see that nothing is lost and nothing doubled.

    python bench/kill_export.py [--structures 3000] [--kills 100] [--seed 0]

The kills are shared out among the operations. After each kill nothing lies half at its place; each operation is then
repeated until it is through, and its result is that of an undisturbed run: files to the byte, databases by their rows,
with every record decoded.
"""

import argparse
import hashlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import func, select

import mlipdb
from mlipdb.catalog import LabelRow, Source, StructureRow, SubsetMember
from mlipdb.catalog.copy import copy_catalog
from mlipdb.export import export, make_bundle, open_bundle, take_bundle
from mlipdb.labels import Method
from mlipdb.manifest import read_manifest
from mlipdb.records import NewLabel
from mlipdb.subsets import freeze, load, names
from mlipdb.testing.kill import run_and_kill
from mlipdb.testing.samples import harmonic_label, sample_records

FORMATS = {
    "extxyz": "out.extxyz",
    "aselmdb": "out.aselmdb",
    "asedb": "out.db",
    "mace-hdf5": "out.h5",
    "colabfit": "out.parquet",
}
OPERATIONS = ("freeze", "bundle", "take", *FORMATS, "copy")


def fill(folder, count):
    """A database of two methods with a frozen subset, and a bundle of it."""
    db = mlipdb.create(folder / "db")
    source = db.open_source("made", reader="none", uri="made here")
    dft = db.method_id(Method(kind="dft", name="PBE"))
    ids = []
    for start in range(0, count, 2000):
        records = sample_records(min(2000, count - start), start=start)
        ids += db.append(records, source_id=source, method_id=dft)
    db.close_source(source, state="complete")
    teacher = db.method_id(Method(kind="teacher", name="teacher", weights_sha256="0" * 64))
    structures = zip(ids[::2], db.structures(ids[::2]), strict=True)
    parts = [NewLabel(structure_id=i, part=0, label=harmonic_label(s, seed=i)) for i, s in structures]
    db.append_labels(parts, method_id=teacher)
    freeze(db, "kept", filter="all")
    make_bundle(db, "kept", path=folder / "kept.mlipdb")
    return db


def child(operation, folder, target):
    """One operation in a process that will be killed."""
    db = mlipdb.create(target / "db") if operation == "take" else mlipdb.open(folder / "db")
    print("begin", flush=True)
    run(operation, db, folder, target)


def run(operation, db, folder, target):
    if operation == "freeze":
        freeze(db, f"all-{target.name}", filter="all")
    elif operation == "bundle":
        make_bundle(db, "kept", path=target / "out.mlipdb")
    elif operation == "take":
        with open_bundle(folder / "kept.mlipdb") as bundle:
            take_bundle(db, bundle)
    elif operation == "copy":
        copy_catalog(target / "db", "copy.sqlite")
    else:
        export(db, "kept", format=operation, path=target / FORMATS[operation])


def prepare(operation, db, target):
    """The folder of one try; a copy of the catalog is tried on a copy of the whole database."""
    target.mkdir()
    if operation == "copy":
        db.close()
        shutil.copytree(db.path, target / "db")


def result(operation, db, target):
    """What an operation left, in a form that can be compared; None for nothing."""
    if operation == "freeze":
        name = f"all-{target.name}"
        return (load(db, name).hash, len(load(db, name).ids)) if name in names(db) else None
    if operation == "take":
        return rows(mlipdb.open(target / "db")) if (target / "db" / "mlipdb.toml").exists() else None
    if operation == "copy":
        return rows(mlipdb.open(target / "db")), read_manifest(target / "db").catalog
    shown = [path for path in sorted(target.iterdir()) if not path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shown} or None


def rows(db):
    with db.session() as session:
        columns = (Source.name, StructureRow.external_id, StructureRow.content_hash)
        structures = sorted(tuple(row) for row in session.execute(select(*columns).join(Source)))
        labels = session.execute(select(LabelRow.method_id, LabelRow.part, func.count()).group_by(*KEYS)).all()
        members = session.scalar(select(func.count()).select_from(SubsetMember))
    return structures, sorted(map(tuple, labels)), members


KEYS = (LabelRow.method_id, LabelRow.part)


def half_done(operation, found, expected):
    """Whether something is at its place that is neither nothing nor everything."""
    if found in (None, expected):
        return False
    if operation == "take":  # batches that are whole are there; none twice, none of other content
        structures = found[0]
        return len(set(structures)) != len(structures) or not set(structures) <= set(expected[0])
    if operation == "copy":  # the old catalog is in use, or the new one, and both say the same
        return found[0] != expected[0]
    # what lies beside a file comes to its place just before the file itself
    return not all(expected.get(name) == digest for name, digest in found.items())


def torture(operation, db, folder, *, kills, moments):
    """Kill and repeat; returns how many runs were killed."""
    undisturbed = folder / f"{operation}-undisturbed"
    prepare(operation, db, undisturbed)
    own = mlipdb.create(undisturbed / "db") if operation == "take" else db
    start = time.perf_counter()
    run(operation, own, folder, undisturbed)
    seconds = time.perf_counter() - start
    expected = result(operation, db, undisturbed)
    killed = through = 0
    target = folder / f"{operation}-0"
    prepare(operation, db, target)
    while killed < kills:
        words = [__file__, "--child", operation, str(folder), str(target)]
        if run_and_kill(words, after=moments.uniform(0, 1.1 * seconds), ready="begin"):
            killed += 1
            found = result(operation, db, target)
            if half_done(operation, found, expected):
                sys.exit(f"{operation}: after kill {killed} this is at its place: {found}")
            if found != expected or operation == "take":
                continue
        check(operation, db, folder, target, expected)
        through += 1
        target = folder / f"{operation}-{through}"
        prepare(operation, db, target)
    if result(operation, db, target) != expected or operation == "take":
        own = mlipdb.create(target / "db") if operation == "take" else db
        run(operation, own, folder, target)
    check(operation, db, folder, target, expected)
    print(f"{operation:10s} {killed} kills, {through + 1} through: each equal to an undisturbed run ({seconds:.2f} s)")
    return killed


def check(operation, db, folder, target, expected):
    if result(operation, db, target) != expected:
        sys.exit(f"{operation}: {target} is not what an undisturbed run makes")
    own = mlipdb.open(target / "db") if operation in ("take", "copy") else db
    own.gc()
    verified = own.verify(deep=True)
    if not verified.ok or verified.orphans:
        sys.exit(f"{operation}: {verified}")
    if operation not in ("freeze", "take"):
        shutil.rmtree(target)  # a kept scratch folder would hold a copy of everything


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child[0], *map(Path, chosen.child[1:]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        db = fill(Path(scratch), chosen.structures)
        moments, found = random.Random(chosen.seed), OPERATIONS
        shares = [chosen.kills // len(found) + (place < chosen.kills % len(found)) for place in range(len(found))]
        pairs = zip(found, shares, strict=True)
        total = sum(torture(name, db, Path(scratch), kills=share, moments=moments) for name, share in pairs)
        print(f"{total} kills in all: nothing lost, nothing doubled, nothing half at its place")


if __name__ == "__main__":
    main()
