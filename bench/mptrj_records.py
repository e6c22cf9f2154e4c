"""What a record of an MPtrj file costs on its way to a frame: parsed into types, and by way of dictionaries.

    taskset -c 0 python bench/mptrj_records.py FILE.json [--rounds 5]

CPU time, the best of some rounds. Frames of both ways are compared first: the program ends where a hash differs.
"""

import argparse
import gc
import sys
import time
from pathlib import Path

from mlipdb.ingest.json_records import parse_record
from mlipdb.ingest.readers import mptrj


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    reader = mptrj.MptrjReader()
    records = list(reader.raw_records(options.file, {}))
    ways = {
        "types": lambda raw: reader.parse(raw, options.file),
        "dictionaries": lambda raw: mptrj._frame(parse_record(raw, options.file), f"byte {raw[2]}"),
    }
    for raw in records:
        frames = [way(raw) for way in ways.values()]
        if len({(frame.structure.content_hash, frame.label.content_hash) for frame in frames}) > 1:
            sys.exit(f"{raw[1]}: the two ways differ")
    for name, way in ways.items():
        best = min(seconds(way, records) for _ in range(options.rounds))
        print(f"{name:13}{best / len(records) * 1e6:7.1f} µs a frame")


def seconds(way, records):
    gc.collect()
    start = time.process_time()
    for raw in records:
        way(raw)
    return time.process_time() - start


if __name__ == "__main__":
    main()
