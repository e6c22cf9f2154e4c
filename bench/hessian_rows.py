"""Rows of the Hessian here beside get_hessian of PyPI nequix and of MACE, and the memory that many rows take.

    python bench/hessian_rows.py --structures mptrj-random-1k.xyz --nequix WEIGHTS.nqx --peer-python peers/bin/python \\
        --mace-python torch/bin/python [--mace FILE.model]

Each side runs in a process of its own on one core, in turns, on the same crystals of mixed sizes, warm. mlipdb makes
some rows of each structure in batches; get_hessian has no way to be asked for fewer than all, structure by structure.
So two ratios are shown: per row that was asked for, and per row that get_hessian computed. Without --mace a model as
large as mace-mp-small is made with random weights. The memory is the peak of a process that labels a 200-atom cell
with all rows, and with one. All rows of a few crystals are held against get_hessian first. Exits 1 where they differ,
below 5 times per row asked for, or above 1.5 times the memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIDES = Path(__file__).parent / "hessian_rows_sides.py"
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "MLIPDB_BENCH_CORE": "0",
}
SPEED, MEMORY = 5.0, 1.5
SAME = 1e-3  # of the largest entry: float32 on both sides


def run(python, side, options, *, rows):
    """What one side reports, from a process of its own."""
    settings = {
        "structures": str(options.structures),
        "count": options.count,
        "largest": options.largest,
        "rows": rows,
        "repeats": options.repeats,
        "nequix": str(options.nequix),
        "mace": str(options.mace),
        "memory_atoms": options.memory_atoms,
        "compared": options.compared,
        "hessians": str(options.hessians),
    }
    program = [python, str(SIDES), side, json.dumps(settings)]
    child = subprocess.run(program, env={**os.environ, **ONE_CORE}, stdout=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        sys.exit(f"{side} failed with status {child.returncode}; is its environment complete?")
    return json.loads(child.stdout.splitlines()[-1])


def compare(family, ours_python, theirs_python, options):
    """Prints one line a family; the ratio per row that was asked for."""
    rounds = [
        (
            run(theirs_python, f"theirs_{family}", options, rows=options.rows),
            run(ours_python, f"ours_{family}", options, rows=options.rows),
        )
        for _ in range(options.rounds)
    ]
    theirs, ours = (float(np.median([side["seconds"] for side in sides])) for sides in zip(*rounds, strict=True))
    asked, computed = rounds[0][1]["rows"], rounds[0][0]["rows"]
    asked_ratio = theirs / ours
    computed_ratio = (theirs / computed) / (ours / asked)
    print(
        f"{family:7} mlipdb {asked} rows in {ours:.2f} s ({asked / ours:.1f}/s); get_hessian {computed} rows in "
        f"{theirs:.2f} s ({computed / theirs:.1f}/s): {asked_ratio:.1f}x per row asked for, "
        f"{computed_ratio:.2f}x per row computed"
    )
    return asked_ratio


def agreement(family, ours_python, theirs_python, options):
    """Prints one line a family: all rows of a few crystals beside the package's own; whether they agree."""
    run(theirs_python, f"save_{family}", options, rows=options.rows)
    found = run(ours_python, f"agree_{family}", options, rows=options.rows)
    bound = SAME * found["largest"]
    print(
        f"{family:7} all {found['rows']} rows of {options.compared} crystals: at most {found['difference']:.1e} eV/Å² "
        f"from get_hessian (asked: {bound:.1e}, a thousandth of the largest entry)"
    )
    return found["difference"] <= bound


def memory(family, python, options):
    """Prints one line a family; the ratio of the peaks."""
    one, every = (run(python, f"memory_{family}", options, rows=rows) for rows in (1, 3 * options.memory_atoms))
    ratio = every["peak"] / one["peak"]
    grown = (every["peak"] - every["before"]) / (one["peak"] - one["before"])
    print(
        f"{family:7} {options.memory_atoms} atoms: one row {one['peak']:.0f} MiB, all {every['rows']} rows "
        f"{every['peak']:.0f} MiB: {ratio:.2f}x; without what the process held before labelling {grown:.2f}x"
    )
    return ratio


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=Path, required=True, help="extended XYZ with crystals of mixed sizes")
    parser.add_argument("--nequix", type=Path, help=".nqx weights; without them nequix is left out")
    parser.add_argument("--peer-python", help="the Python where PyPI nequix is installed; without it left out")
    parser.add_argument("--mace-python", help="the Python with mlipdb and mace-torch; without it MACE is left out")
    parser.add_argument("--mace", type=Path, help=".model file; without it one with random weights is made")
    parser.add_argument("--count", type=int, default=16, help="crystals")
    parser.add_argument("--largest", type=int, default=24, help="atoms of the largest")
    parser.add_argument("--rows", type=int, default=4, help="of each structure")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-atoms", type=int, default=200, help="a multiple of 8; 0 leaves the memory out")
    parser.add_argument("--compared", type=int, default=4, help="crystals, the smallest, whose rows are compared; or 0")
    parser.add_argument("--channels", type=int, default=128, help="of the MACE model that is made")
    return parser.parse_args()


def main():
    options = arguments()
    made = tempfile.TemporaryDirectory()
    families = []
    if options.nequix and options.peer_python:
        families.append(("nequix", sys.executable, options.peer_python))
    if options.mace_python:
        families.append(("mace", options.mace_python, options.mace_python))
        if options.mace is None:
            options.mace = Path(made.name) / "random.model"
            making = [options.mace_python, str(SIDES), "make_mace", json.dumps([str(options.mace), options.channels])]
            subprocess.run(making, check=True)
    options.hessians = Path(made.name) / "hessians.npz"
    same = [agreement(*family, options) for family in families] if options.compared else []
    speeds = [compare(family, ours, theirs, options) for family, ours, theirs in families]
    peaks = [memory(family, ours, options) for family, ours, _ in families] if options.memory_atoms else []
    made.cleanup()
    sys.exit(0 if families and all(same) and min(speeds) >= SPEED and max(peaks, default=0.0) <= MEMORY else 1)


if __name__ == "__main__":
    main()
