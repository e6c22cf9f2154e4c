"""What it costs to store structures with labels, step by step, and how large they become.

    python bench/append.py MPTRJ_FILE [--copies 20] [--peer-python PEERS/bin/python]

copies repeats the file under new ids, in appends of 32,768 as an ingest makes them. Hashes are computed anew. One
core: the process pins itself. "store" is encoding and sealing: records on disk, synced, hashed, renamed. "append" is
the whole Database.append of new structures: encoding, sealing, and all rows in one committed transaction. Cycles are
looked for seldom, as append itself has it. Peers write the same file from ASE Atoms that are in memory.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import mlipdb
from mlipdb.collector import patient_collector
from mlipdb.ingest import Frame
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.labels import Method
from mlipdb.records import NewStructure
from mlipdb.store.codec import Encoder, seal_all
from mlipdb.store.facts import ShardFacts, structure_facts
from mlipdb.store.prepared import prepare_all
from mlipdb.store.shard import write_shard

BATCH = 32768


def batches(frames, copies):
    """New records, BATCH at a time; their hashes are not known yet."""
    records = []
    for copy in range(copies):
        for frame in frames:
            structure, label = replace(frame.structure), replace(frame.label)
            name = f"{frame.external_id}-{copy}"
            records.append(NewStructure(structure=structure, label=label, external_id=name, material=frame.material))
            if len(records) == BATCH:
                yield records
                records = []
    if records:
        yield records


class Clock:
    """Adds up wall and process time by step."""

    def __init__(self):
        self.wall, self.cpu = {}, {}

    def time(self, step, call):
        wall, cpu = time.perf_counter(), time.process_time()
        result = call()
        self.wall[step] = self.wall.get(step, 0.0) + time.perf_counter() - wall
        self.cpu[step] = self.cpu.get(step, 0.0) + time.process_time() - cpu
        return result

    def show(self, steps, count, name):
        wall, cpu = (sum(times[step] for step in steps) for times in (self.wall, self.cpu))
        print(
            f"{name:44s} {count / wall:9,.0f} structures/s  {1e6 * wall / count:6.1f} µs, "
            f"{count / cpu:9,.0f} per CPU second"
        )


def store_alone(frames, copies, folder, clock):
    (folder / "alone").mkdir()
    first, encoder, facts = 1, Encoder(), {}
    for records in batches(frames, copies):
        pairs = [(record.structure, record.label) for record in records]
        encoded = clock.time("encode", lambda pairs=pairs: encoder.prepare(pairs))
        items = clock.time(
            "checksums",
            lambda first=first, encoded=encoded: seal_all(range(first, first + len(encoded)), encoded),
        )
        clock.time(
            "LMDB file, synced and hashed",
            lambda items=items: write_shard(
                folder / "alone", items, kind="structures", uuid="bench", facts=ShardFacts(source=facts)
            ),
        )
        first += len(records)
    return sum(file.stat().st_size for file in (folder / "alone" / "shards").iterdir())


def whole(frames, copies, folder, clock):
    db = mlipdb.create(folder / "db", catalog="catalog.sqlite")
    source = db.open_source("mptrj", reader="mptrj", uri="bench")
    method = db.method_id(Method(kind="dft", name="PBE"))
    for records in batches(frames, copies):
        clock.time("append", lambda records=records: db.append(records, source_id=source, method_id=method))
    for records in batches(frames, copies):
        again = [replace(record, external_id=f"{record.external_id}-again") for record in records]
        ready = clock.time("prepare", lambda again=again: prepare_all(again))
        clock.time(
            "facts",
            lambda ready=ready: structure_facts(ready, source={}, methods={method: {}}, method=method, symmetry=None),
        )
        clock.time("append prepared", lambda ready=ready: db.append(ready, source_id=source, method_id=method))
    db.close()
    shards = sum(file.stat().st_size for file in (folder / "db" / "shards").iterdir())
    return shards / 2, (folder / "db" / "catalog.sqlite").stat().st_size / 2


def show_peers(chosen, alone, whole):
    with tempfile.TemporaryDirectory() as scratch:
        command = [chosen.peer_python, str(Path(__file__).with_name("peer_append.py")), str(chosen.file), scratch]
        rates = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for name, rate in rates.items():
        print(f"{name:44s} {rate:9,.0f} structures/s; store alone is {alone / rate:.1f}x, append {whole / rate:.1f}x")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--peer-python", help="an environment with ase-db-backends")
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    frames = [item for item in MptrjReader().frames(chosen.file, {}) if isinstance(item, Frame)]
    count = chosen.copies * len(frames)
    atoms = chosen.copies * sum(len(frame.structure) for frame in frames)
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch, patient_collector():
        alone = store_alone(frames, chosen.copies, Path(scratch), clock)
        shards, catalog = whole(frames, chosen.copies, Path(scratch), clock)
    print(f"{count:,} structures, {atoms:,} atoms")
    steps = ["encode", "checksums", "LMDB file, synced and hashed"]
    for step in steps:
        clock.show([step], count, f"  {step}")
    clock.show(steps, count, "store alone")
    clock.show(["prepare"], count, "  prepare: encode, columns, hashes")
    clock.show(["append prepared"], count, "append of prepared records (one of the workers)")
    clock.show(["append"], count, "append, everything in this process")
    if chosen.peer_python:
        show_peers(chosen, count / sum(clock.wall[step] for step in steps), count / clock.wall["append"])
    sizes = f"{alone / atoms:.1f} B/atom in shards without facts, {shards / atoms:.1f} with them"
    print(f"{sizes}, {catalog / atoms:.1f} in the catalog")


if __name__ == "__main__":
    main()
