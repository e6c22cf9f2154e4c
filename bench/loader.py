"""How full batches are and how fast records become padded batches, neighbour lists included, on one core.

    python bench/loader.py --structures mptrj-random-1k.xyz [--cutoff 6] [--graphs 16]

The structures are stored in a database of a temporary folder. Then each of --rounds passes makes all batches of one
epoch, with one thread and no more than one core: read, list neighbours, pad. A pass is cold when no neighbour list is
kept in memory, warm when all are, as from the second epoch on where they fit into data.cache_gib. The median of the
processor time counts, since other work of the machine does not change it much; the time of each part stands beside it.
Edge fill is the mean over --epochs epochs. Exits 1 below 97% of the edges or 3,000 structures a second, cold.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}

import ase.io
import numpy as np

from mlipdb.database import create_database
from mlipdb.labels import Label, Method
from mlipdb.records import NewStructure
from mlipdb.structures import make_structure
from mlipdb.trainers.batching.feed import Feed
from mlipdb.trainers.batching.neighbours import neighbours
from mlipdb.trainers.batching.packing import Sizes, choose_shapes, fill_of, plan_epoch
from mlipdb.trainers.batching.records import RecordSource
from mlipdb.trainers.batching.targets import Convention

FILL, SPEED = 0.97, 3000.0


def stored(path, folder):
    """A database of the structures with their labels, and their ids."""
    records = []
    for number, atoms in enumerate(ase.io.iread(path, ":")):
        structure = make_structure(
            atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=tuple(map(bool, atoms.pbc))
        )
        results = atoms.calc.results if atoms.calc else {}
        label = Label(energy_uncorrected=float(results.get("energy", 0.0)), forces=results.get("forces"))
        records.append(NewStructure(structure=structure, label=label, external_id=str(number), material=str(number)))
    db = create_database(folder)
    source = db.open_source("bench", reader="none", uri=str(path))
    ids = db.append(records, source_id=source, method_id=db.method_id(Method(kind="dft", name="labels")))
    return db, np.array(ids)


def timed(task):
    """Seconds of processor and of wall time."""
    processor, wall = time.process_time(), time.perf_counter()
    task()
    return time.process_time() - processor, time.perf_counter() - wall


def median(task, rounds):
    return np.median([timed(task) for _ in range(rounds)], axis=0)


def parts(db, ids, cutoff, rounds):
    """Microseconds of processor time a structure for reading and for listing neighbours."""
    structures = [structure for structure, _ in db.read(ids)]
    reading = median(lambda: [None for _ in db.read(ids)], rounds)[0]
    listing = median(lambda: [neighbours(structure, cutoff) for structure in structures], rounds)[0]
    return 1e6 * reading / len(ids), 1e6 * listing / len(ids)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--cutoff", type=float, default=6.0)
    parser.add_argument("--graphs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db, ids = stored(options.structures, Path(folder) / "db")
        structures = [structure for structure, _ in db.read(ids)]
        sizes = Sizes(
            atoms=np.array([len(structure) for structure in structures]),
            edges=np.array([len(neighbours(structure, options.cutoff)) for structure in structures]),
        )
        shapes = choose_shapes(sizes, graphs=options.graphs)
        plans = [plan_epoch(sizes, shapes, seed=0, epoch=epoch) for epoch in range(options.epochs)]
        fill = float(np.mean([fill_of(sizes, plan) for plan in plans]))
        known = {number: 0.0 for structure in structures for number in structure.atomic_numbers.tolist()}
        convention = Convention(energy="energy_uncorrected", e0=known)

        def epoch(source):
            feed = Feed(source=source, ids=ids, convention=convention, threads=1)
            return lambda: [None for _ in feed.batches(plans[0])]

        cold = median(epoch(RecordSource(db, cutoff=options.cutoff, budget=0)), options.rounds)
        kept = RecordSource(db, cutoff=options.cutoff, budget=8 * 1024**3)
        epoch(kept)()
        warm = median(epoch(kept), options.rounds)
        reading, listing = parts(db, ids, options.cutoff, options.rounds)
    count = len(ids)
    print(
        f"{count} structures, {sizes.edges.mean():.0f} edges each within {options.cutoff} Å, {len(plans[0])} batches of"
    )
    print(f"{len(shapes)} shape(s) {', '.join(str(shape.edges) for shape in shapes)} edges: {100 * fill:.1f}% are real")
    for name, (processor, wall) in (("cold", cold), ("warm", warm)):
        print(f"{name}: {count / processor:,.0f} structures/s of processor time, {count / wall:,.0f} of wall time")
    print(f"of {1e6 * cold[0] / count:.0f} µs cold: {reading:.0f} reading, {listing:.0f} neighbours, ", end="")
    print(f"{1e6 * warm[0] / count:.0f} padding")
    sys.exit(fill < FILL or count / cold[0] < SPEED)


if __name__ == "__main__":
    main()
