"""Ingest of a file shaped like the whole of MPtrj, made by repeating a sample under new ids.

    python bench/ingest_full.py FILE.json [--frames 1580395] [--no-symmetry] [--workers N] [--scratch DIR]

FILE is in MPtrj's layout. The big file has its records again and again, each time under other material and frame ids,
with a coordinate and an energy changed in digits that do not matter, so that no content repeats while the text keeps
its shape. It is made in the scratch folder (about 5 kB a frame for the sample of 2,305), ingested in a process of its
own while the memory of that process and its children is watched, verified, and removed.
"""

import argparse
import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FULL = 1_580_395  # frames of MPtrj 2022.9
STEP = 100_000  # frames between two lines
SPACE = 2.2  # bytes of scratch for one of the file: the file, and the database with its log
COORDINATE = re.compile(r'"xyz": \[(-?\d+\.\d+)')
ENERGY = re.compile(r'"uncorrected_total_energy": (-?\d+\.\d+)')


def templates(path):
    """Each material of the sample as (name, [(frame id, pieces of its record's text between what changes)])."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt") as file:
        content = json.load(file)
    found = []
    for material, records in content.items():
        frames = []
        for frame, fields in records.items():
            text = json.dumps(fields | {"mp_id": "@"})
            coordinate, energy = COORDINATE.search(text), ENERGY.search(text)
            if coordinate and energy:
                cuts = sorted([coordinate.span(1), energy.span(1), _inside(text.index('"mp_id": "@"'))])
                frames.append((frame, text, cuts, coordinate.start(1), energy.start(1)))
        found.append((material, frames))
    return found


def _inside(start):
    return start + len('"mp_id": "'), start + len('"mp_id": "@')


def write_file(path, sample, frames):
    """Write the big file; its size in bytes."""
    written = turn = 0
    with path.open("w", buffering=1 << 22) as file:
        file.write("{")
        while written < frames:
            for material, records in sample:
                name = f"mp-{turn}0{material.partition('-')[2]}"
                group = [
                    f'"{_frame_id(frame, turn)}": {_changed(text, cuts, turn, name, at_coordinate, at_energy)}'
                    for frame, text, cuts, at_coordinate, at_energy in records[: frames - written]
                ]
                file.write(f'{", " if written else ""}"{name}": {{{", ".join(group)}}}')
                written += len(group)
                if written >= frames:
                    break
            turn += 1
        file.write("}")
    return path.stat().st_size


def _frame_id(frame, turn):
    task, calculation, step = frame.rsplit("-", 2)
    return f"{task}{turn:04d}-{calculation}-{step}"


def _changed(text, cuts, turn, name, at_coordinate, at_energy):
    """A record's text with the turn in the last digits of a coordinate (below 1e-5 Å) and of its energy."""
    parts, last = [], 0
    for start, end in cuts:
        old = text[start:end]
        if start in (at_coordinate, at_energy):
            new = f"{old[: old.index('.') + 1]}{old.partition('.')[2][:5]:0<5s}{turn:03d}"
        else:
            new = name
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])


def tree(pid):
    """A process and all that descend from it."""
    found = [pid]
    for process in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def memory(pids):
    """MB that processes hold: resident, and with shared pages counted once among them."""
    resident = shared = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                resident += int(line.split()[1]) if line.startswith("Rss:") else 0
                shared += int(line.split()[1]) if line.startswith("Pss:") else 0
    return resident / 1024, shared / 1024


class Watch:
    """Peak memory of a process tree, looked at five times a second."""

    def __init__(self, pid):
        self.peaks = [0.0, 0.0]
        self.processes = 0
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._end.wait(0.2):
            pids = tree(self._pid)
            self.processes = max(self.processes, len(pids))
            self.peaks = [max(pair) for pair in zip(self.peaks, memory(pids), strict=True)]

    def stop(self):
        self._end.set()
        self._thread.join()


def child(path, directory, *, symprec, workers):
    """Ingest and verify, with a line for every STEP frames."""
    import mlipdb
    from mlipdb.ingest import IngestSettings, ingest

    db = mlipdb.create(directory)
    start = time.perf_counter()
    last = [0, start]

    def tell(report):
        if report.records - last[0] >= STEP:
            now = time.perf_counter()
            print(
                f"{report.records:9d} frames  {(report.records - last[0]) / (now - last[1]):7.0f} frames/s", flush=True
            )
            last[:] = report.records, now

    report = ingest(
        db, [path], settings=IngestSettings(reader="mptrj", symprec=symprec, workers=workers), progress=tell
    )
    seconds = time.perf_counter() - start
    print(f"{report.records} frames in {seconds:.1f} s: {report.records / seconds:.0f} frames/s", flush=True)
    print(f"taken {report.taken}, duplicates {report.duplicates}, quarantined {report.quarantined}")
    print(f"findings: {[finding.check for finding in report.findings]}")
    sizes = {name: sum(f.stat().st_size for f in db.path.glob(name)) / 1e9 for name in ("shards/*", "catalog.sqlite*")}
    print(f"shards {sizes['shards/*']:.2f} GB, catalog {sizes['catalog.sqlite*']:.2f} GB")
    print("done", flush=True)  # the watcher stops here: verify is not a part of ingest
    start = time.perf_counter()
    verified = db.verify()
    print(f"verify: ok {verified.ok}, {verified.shards} shards, {verified.records} records in "
          f"{time.perf_counter() - start:.1f} s; orphans {len(verified.orphans)}")  # fmt: skip
    return 0 if verified.ok and not verified.orphans and verified.records == report.taken else 1


def watch_child(words):
    """Run the child; its exit code and the peaks of its memory until it said that it is done."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    for line in process.stdout:
        if line.strip() == "done":
            watch.stop()
            print(f"peak memory of {watch.processes} processes: {watch.peaks[0]:.0f} MB resident, "
                  f"{watch.peaks[1]:.0f} MB with shared pages counted once", flush=True)  # fmt: skip
        else:
            print(line, end="", flush=True)
    watch.stop()
    return process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--frames", type=int, default=FULL)
    parser.add_argument("--no-symmetry", action="store_true")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        symprec = None if chosen.no_symmetry else 1e-2
        return child(chosen.file, chosen.child, symprec=symprec, workers=chosen.workers)
    sample = templates(chosen.file)
    average = sum(len(text) for _, frames in sample for _, text, *_ in frames) / sum(len(f) for _, f in sample)
    needed, free = SPACE * average * chosen.frames, shutil.disk_usage(chosen.scratch).free
    if needed > free:
        sys.exit(f"{chosen.scratch}: {needed / 1e9:.0f} GB are needed, {free / 1e9:.0f} GB are free; choose --scratch")
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as scratch:
        path = Path(scratch) / "big.json"
        start = time.perf_counter()
        size = write_file(path, sample, chosen.frames)
        print(f"{chosen.frames} frames, {size / 1e9:.2f} GB written in {time.perf_counter() - start:.0f} s", flush=True)
        options = [*(["--no-symmetry"] if chosen.no_symmetry else []),
                   *(["--workers", str(chosen.workers)] if chosen.workers is not None else [])]  # fmt: skip
        words = [sys.executable, __file__, str(path), "--child", str(Path(scratch) / "db"), *options]
        return watch_child(words)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
