"""Export of a subset to every format, beside ASE and ase-db-backends writing the same structures, in one run.

    python bench/export.py FILE.json [--repeats 3]

FILE is in MPtrj's layout. The peers write the same structures and labels from ASE Atoms that are in memory already;
ours reads them from the database as well. Each figure is the median of the repeats, taken in turns.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import ase
import ase.db
import ase.io
from ase.calculators.singlepoint import SinglePointCalculator

import mlipdb
from mlipdb.export import export, make_bundle, open_bundle, take_bundle
from mlipdb.ingest import IngestSettings, ingest
from mlipdb.subsets import freeze

OURS = {
    "extxyz": "ours.extxyz",
    "aselmdb": "ours.aselmdb",
    "asedb": "ours.db",
    "mace-hdf5": "ours.h5",
    "colabfit": "ours.parquet",
}


def images_of(db, ids):
    found = []
    for structure, label in db.read(ids):
        atoms = ase.Atoms(
            numbers=structure.atomic_numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc
        )
        values = {"energy": label.energy_uncorrected, "forces": label.forces, "magmoms": label.magmoms}
        if label.stress is not None:
            values["stress"] = label.stress.ravel()[[0, 4, 8, 5, 2, 1]]
        atoms.calc = SinglePointCalculator(
            atoms, **{name: value for name, value in values.items() if value is not None}
        )
        found.append((atoms, db.entry(structure.id).external_id, dict(label.properties)))
    return found


def peer_extxyz(images, folder):
    ase.io.write(folder / "peer.extxyz", [atoms for atoms, _, _ in images], format="extxyz")
    return folder / "peer.extxyz"


def peer_database(images, folder, name):
    with ase.db.connect(folder / name) as database:
        for atoms, external, properties in images:
            database.write(atoms, data={"external_id": external, **properties})
    return folder / name


PEERS = {
    "ASE, extxyz": lambda images, folder: peer_extxyz(images, folder),
    "ase-db-backends, aselmdb": lambda images, folder: peer_database(images, folder, "peer.aselmdb"),
    "ASE, SQLite": lambda images, folder: peer_database(images, folder, "peer.db"),
}


def timed(work):
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        path = work(Path(scratch))
        seconds = time.perf_counter() - start
        return seconds, path.stat().st_size


def taken(file, folder):
    db = mlipdb.create(folder / "db")
    with open_bundle(file) as bundle:
        take_bundle(db, bundle)
    db.close()
    return file


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        db = mlipdb.create(Path(scratch) / "db")
        ingest(db, [chosen.file], settings=IngestSettings(reader="mptrj", symprec=None))
        ids = freeze(db, "everything", filter="all").ids
        images = images_of(db, ids.tolist())
        natoms = sum(len(atoms) for atoms, _, _ in images)
        shards = sum(file.stat().st_size for file in (db.path / "shards").iterdir())
        print(f"{len(ids)} structures, {natoms} atoms; {shards / natoms:.1f} B/atom in the database's shards")
        bundle = Path(scratch) / "kept.mlipdb"
        make_bundle(db, "everything", path=bundle)
        work = {}
        for format, name in OURS.items():
            work[f"mlipdb, {format}"] = lambda to, format=format, name=name: Path(
                export(db, "everything", format=format, path=to / name)[0].path
            )
        for name, write in PEERS.items():
            work[name] = lambda to, write=write: write(images, to)
        work["mlipdb, bundle made"] = lambda to: Path(make_bundle(db, "everything", path=to / "b.mlipdb").path)
        work["mlipdb, bundle taken"] = lambda to: taken(bundle, to)
        results = {name: [] for name in work}
        for _ in range(chosen.repeats):
            for name, function in work.items():
                results[name].append(timed(function))
        for name, found in sorted(results.items(), key=lambda item: item[0].rpartition(" ")[2]):
            rate = len(ids) / statistics.median(seconds for seconds, _ in found)
            print(f"{name:28s} {rate:8.0f} structures/s  {found[0][1] / natoms:7.1f} B/atom")


if __name__ == "__main__":
    main()
