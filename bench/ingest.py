"""Ingest of an MPtrj file, beside json + pymatgen + ASE into aselmdb (bench/peer_ingest.py), in one run.

    python bench/ingest.py FILE.json --peer-python peers/bin/python [--times 12]

A small file is ingested in one process; with --times the file is repeated that often under new ids (as
bench/ingest_full.py does), so that worker processes are worth starting. Each figure is the median of three runs in
processes of their own, taken in turns, so that a busy hour hits all alike.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import moyopy
import numpy as np
import orjson
from ingest_full import templates, write_file
from sqlalchemy import func, select

import mlipdb
from mlipdb.catalog import StructureRow
from mlipdb.ingest import Frame, IngestSettings, ingest
from mlipdb.ingest.json_records import raw_records
from mlipdb.ingest.readers.mptrj import MptrjReader
from mlipdb.ingest.stream import ByteStream

HERE = Path(__file__).parent


def measure(path, directory, *, symprec, workers):
    """One ingest in this process."""
    db = mlipdb.create(directory / "db")  # once in a database's life, about 0.05 s: not part of a rate
    settings = IngestSettings(reader="mptrj", symprec=symprec, workers=workers)
    start, cpu = time.perf_counter(), time.process_time()
    report = ingest(db, [path], settings=settings)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    children = os.times().children_user + os.times().children_system  # the workers have ended
    with db.session() as session:
        natoms = session.scalar(select(func.sum(StructureRow.nsites)))
    db.close()  # and with it SQLite's log, whose rows are in the catalog
    shards = sum(file.stat().st_size for file in (db.path / "shards").iterdir())
    catalog = sum(file.stat().st_size for file in db.path.glob("catalog.sqlite*"))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {
        "frames": report.records,
        "taken": report.taken,
        "atoms": natoms,
        "seconds": seconds,
        "cpu": cpu + children,
        "shards": shards,
        "all": shards + catalog,
        "peak_mb": int(peak.split()[1]) / 1024,
    }


def symmetry_alone(path, processes):
    """moyopy on every structure of the file, shared among processes, and nothing else timed."""
    context = multiprocessing.get_context("spawn")
    start, times = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=search_part, args=(path, slice(part, None, processes), start, times))
        for part in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = [times.get() for _ in workers]
    return {"frames": sum(count for count, _ in found), "seconds": max(seconds for _, seconds in found)}


def search_part(path, part, start, times):
    """A share of the structures, once all processes have read theirs."""
    logging.getLogger("moyo").setLevel(logging.ERROR)
    frames = islice(MptrjReader().frames(path, {}), part.start, None, part.step)
    structures = [item.structure for item in frames if isinstance(item, Frame)]
    start.wait()
    begun = time.perf_counter()
    for item in structures:
        fractional = np.linalg.solve(item.cell.T, item.positions.T).T
        cell = moyopy.Cell(item.cell.tolist(), fractional.tolist(), item.atomic_numbers.tolist())
        moyopy.MoyoDataset(cell, symprec=1e-2)
    times.put((len(structures), time.perf_counter() - begun))


def parsing_alone(path):
    """orjson on every record of the file, already cut out: a measure of the machine and the hour."""
    with ByteStream(path, None) as stream:
        records = [record[3] for record in raw_records(stream)]
    start = time.perf_counter()
    for record in records:
        orjson.loads(record)
    return {"frames": len(records), "seconds": time.perf_counter() - start}


def child(kind, path, directory):
    if kind == "orjson":
        return parsing_alone(path)
    if kind.startswith("moyopy"):
        return symmetry_alone(path, int(kind.partition("-")[2]))
    return measure(path, directory, symprec=1e-2 if kind == "symmetry" else None, workers=None)


def run(command):
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run([*command, directory], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_rate(results):
    """Frames per second of processor time, workers included: steady where other programs use the machine, too."""
    return statistics.median(result["frames"] / result["cpu"] for result in results)


def show(name, results):
    rates = sorted(result["frames"] / result["seconds"] for result in results)
    text = f"{name:32s} {statistics.median(rates):6.0f} frames/s ({rates[0]:.0f} to {rates[-1]:.0f})"
    if "cpu" in results[0]:
        text += f", {cpu_rate(results):.0f} per CPU second"
    if "shards" in results[0]:
        first = results[0]
        per_atom = (first["shards"] / first["atoms"], first["all"] / first["atoms"])
        text += f"; {per_atom[0]:.1f} B/atom arrays, {per_atom[1]:.1f} with the catalog"
        text += f"; peak {max(result['peak_mb'] for result in results):.0f} MB"
    print(text)
    return statistics.median(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", help="Python of an environment with ase-db-backends and pymatgen.")
    parser.add_argument("--times", type=int, default=1, help="How often the file is repeated under new ids.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(child(chosen.child[0], chosen.file, Path(chosen.child[1]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(chosen, repeated(chosen.file, chosen.times, Path(scratch)))


def repeated(path, times, scratch):
    """The file, or one in the scratch folder that holds it several times."""
    if times == 1:
        return path
    sample = templates(path)
    write_file(scratch / "repeated.json", sample, times * sum(len(frames) for _, frames in sample))
    return scratch / "repeated.json"


def compare(chosen, path):
    own = [sys.executable, __file__, str(path), "--child"]
    cores = len(os.sched_getaffinity(0))
    commands = {
        "mlipdb": [*own, "plain"],
        "mlipdb with space groups": [*own, "symmetry"],
        "orjson alone, one process": [*own, "orjson"],
        "moyopy alone, one process": [*own, "moyopy-1"],
        f"moyopy alone, {cores} processes": [*own, f"moyopy-{cores}"],
    }
    if chosen.peer_python:
        commands["json + pymatgen + ASE, aselmdb"] = [chosen.peer_python, str(HERE / "peer_ingest.py"), str(path)]
    results = {name: [] for name in commands}
    for _ in range(chosen.repeats):
        for name, command in commands.items():
            results[name].append(run(command))
    medians = {name: show(name, found) for name, found in results.items()}
    print(f"no symmetry: {medians['mlipdb'] / medians['orjson alone, one process']:.2f} of what orjson alone parses")
    for processes in dict.fromkeys(("one process", f"{cores} processes")):
        ratio = medians["mlipdb with space groups"] / medians[f"moyopy alone, {processes}"]
        print(f"with space groups: {ratio:.2f} of what moyopy alone reaches in {processes}")
    if chosen.peer_python:
        beside_peer(medians, results)


def beside_peer(medians, results):
    name = "json + pymatgen + ASE, aselmdb"
    ours, theirs = results["mlipdb"][0], results[name][0]
    bytes_ratio = (ours["shards"] / ours["atoms"]) / (theirs["all"] / theirs["atoms"])
    all_ratio = (ours["all"] / ours["atoms"]) / (theirs["all"] / theirs["atoms"])
    busy = cpu_rate(results["mlipdb"]) / cpu_rate(results[name])
    print(f"rate {medians['mlipdb'] / medians[name]:.1f}x the peer's, {busy:.1f}x by CPU time")
    print(f"bytes {bytes_ratio:.2f} of the peer's, {all_ratio:.2f} with the catalog")


if __name__ == "__main__":
    main()
