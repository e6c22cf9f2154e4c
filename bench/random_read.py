"""Random reads by id: mlipdb beside aselmdb and ASE db, the same structures in one run.

python bench/random_read.py MPTRJ_FILE --peer-python PEERS/bin/python
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import mlipdb


def ours(path: Path, scratch: Path, repeats: int) -> dict[str, float]:
    command = [sys.executable, "-m", "mlipdb.cli", "--db", str(scratch / "db"), "ingest", "mptrj", str(path)]
    subprocess.run([*command, "--no-symmetry"], check=True, capture_output=True)
    db = mlipdb.open(scratch / "db")
    ids = db.query("all").ids
    order = np.random.default_rng(1).permutation(ids)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        atoms = sum(len(structure) for structure, label in db.read(order) if label.forces is not None)
        rates.append(len(order) / (time.perf_counter() - start))
    shards = sum(file.stat().st_size for file in (db.path / "shards").iterdir())
    db.close()
    catalog = sum(file.stat().st_size for file in db.path.glob("catalog.sqlite*"))
    return {
        "read/s": float(np.median(rates)),
        "B/atom": shards / atoms,
        "B/atom with catalog": (shards + catalog) / atoms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", required=True, help="an environment with ase-db-backends")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = {"mlipdb": ours(options.file, Path(scratch), options.repeats)}
        peer = Path(__file__).with_name("peer_random_read.py")
        command = [options.peer_python, str(peer), str(options.file), scratch, str(options.repeats)]
        results |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for name, values in results.items():
        ratio = results["mlipdb"]["read/s"] / values["read/s"]
        numbers = "  ".join(f"{key} {value:10.1f}" for key, value in values.items())
        print(f"{name:10s} {numbers}  mlipdb is {ratio:.1f}x")


if __name__ == "__main__":
    main()
