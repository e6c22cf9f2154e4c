"""Random reads by id: mlipdb beside LMDB with zstd alone, aselmdb and ASE db, the same structures in one run.

    python bench/random_read.py MPTRJ_FILE --peer-python PEERS/bin/python [--copies 20]

Ours in two ways: flat arrays, some thousand ids at a time (Database.read_arrays), and one structure and label after
another (Database.read). "LMDB and zstd alone" gets and decompresses the same number of records of raw arrays and makes
nothing of them: a bound, not a peer. copies repeats the file under new ids, for a set beyond the cache. One core: the
process pins itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import zstandard

import mlipdb
from mlipdb.ingest import Frame
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.labels import Method
from mlipdb.records import NewStructure

BATCH = 4096


def records_of(path, copies):
    frames = [item for item in MptrjReader().frames(path, {}) if isinstance(item, Frame)]
    for copy in range(copies):
        yield [
            NewStructure(
                structure=replace(frame.structure),
                label=replace(frame.label),
                external_id=f"{frame.external_id}-{copy}",
                material=frame.material,
            )
            for frame in frames
        ]


def fill(path, folder, copies):
    db = mlipdb.create(folder, catalog="catalog.sqlite")
    source = db.open_source("mptrj", reader="mptrj", uri=path.name)
    method = db.method_id(Method(kind="dft", name="PBE"))
    for records in records_of(path, copies):
        db.append(records, source_id=source, method_id=method)
    db.close()


def rates(read, count, repeats):
    """Records per second: wall clock and this process's own time, the median of each."""
    walls, busy = [], []
    for _ in range(repeats):
        start, cpu = time.perf_counter(), time.process_time()
        read()
        walls.append(count / (time.perf_counter() - start))
        busy.append(count / (time.process_time() - cpu))
    return {"read/s": float(np.median(walls)), "per CPU second": float(np.median(busy))}


def ours(folder, repeats):
    db = mlipdb.open(folder)
    ids = db.query("all").ids
    order = np.random.default_rng(1).permutation(ids)
    db.read_arrays(order)  # each shard is compared with its hash once
    atoms = sum(len(structure) for structure in db.structures(ids))

    def flat():
        for start in range(0, len(order), BATCH):
            batch = db.read_arrays(order[start : start + BATCH])
            assert batch.present["forces"].all()

    def singly():
        for _, label in db.read(order):
            assert label.forces is not None

    shards = sum(file.stat().st_size for file in (folder / "shards").iterdir())
    catalog = sum(file.stat().st_size for file in folder.glob("catalog.sqlite*"))
    sizes = {"B/atom": shards / atoms, "with catalog": (shards + catalog) / atoms}
    return {
        "mlipdb, flat arrays": rates(flat, len(order), repeats) | sizes,
        "mlipdb, one by one": rates(singly, len(order), repeats) | sizes,
    }


def alone(path, scratch, copies, repeats):
    """Raw arrays as they are, zstd of level 3, LMDB: no numpy, no checksum, of labels forces and stress."""
    compress = zstandard.ZstdCompressor(level=3).compress
    frames = [item for item in MptrjReader().frames(path, {}) if isinstance(item, Frame)]
    blobs = []
    for frame in frames:
        structure, label = frame.structure, frame.label
        arrays = (structure.atomic_numbers, structure.positions, structure.cell, label.forces, label.stress)
        blobs.append(compress(b"".join(array.tobytes() for array in arrays if array is not None)))
    environment = lmdb.open(str(scratch / "alone.lmdb"), subdir=False, map_size=1 << 34, lock=False, sync=False)
    with environment.begin(write=True) as transaction:
        for number in range(copies * len(blobs)):
            transaction.put(number.to_bytes(8), blobs[number % len(blobs)], append=True)
    order = np.random.default_rng(1).permutation(copies * len(blobs)).tolist()
    decompress = zstandard.ZstdDecompressor().decompress

    def read():
        with environment.begin() as transaction:
            for number in order:
                decompress(transaction.get(number.to_bytes(8)))

    atoms = sum(len(frame.structure) for frame in frames)
    return {"LMDB and zstd alone": rates(read, len(order), repeats) | {"B/atom": sum(map(len, blobs)) / atoms}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", help="an environment with ase-db-backends")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        fill(options.file, scratch / "db", options.copies)
        results = ours(scratch / "db", options.repeats)
        results |= alone(options.file, scratch, options.copies, options.repeats)
        if options.peer_python:
            peer = Path(__file__).with_name("peer_random_read.py")
            command = [options.peer_python, str(peer), str(options.file), name, str(options.repeats)]
            results |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    first = results["mlipdb, flat arrays"]["read/s"]
    for name, values in results.items():
        numbers = "  ".join(f"{key} {value:10,.1f}" for key, value in values.items())
        print(f"{name:22s} {numbers}  flat arrays are {first / values['read/s']:.1f}x", file=sys.stdout)


if __name__ == "__main__":
    main()
