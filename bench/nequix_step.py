"""Nequix here beside the PyPI package: compile time, a training step, evaluation, Hessian rows, and agreement.

    taskset -c 0 python bench/nequix_step.py WEIGHTS.nqx --structures mptrj-random-1k.xyz --peer-python peers/bin/python

Both sides run in processes of their own, in turns, on the same batch with the same optimizer; times are CPU seconds,
medians over the rounds, so that other work on the machine hardly changes them. Exits 1 where results differ by more
than 1e-4 eV, 1e-3 eV/Å or 1e-5 eV/Å³ on 50 crystals, with the activation's norm that the package finds on this machine.
It integrates that norm numerically and finds another fifth digit than the one that its own reference energies were made
with, which is ours (0.596460); the differences with ours are shown as "shipped".
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LIMITS = {"energy": 1e-4, "forces": 1e-3, "stress": 1e-5}


def run_side(python, program, arguments):
    """One process; what it measured, and its peak memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.npz"
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # every round compiles
        child = subprocess.Popen([python, str(HERE / program), *map(str, arguments), str(output)], env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"{program} failed with status {status}; is its environment complete?")
        return dict(np.load(output)) | {"time_memory": np.float64(usage.ru_maxrss / 1024)}


def compare(ours, theirs):
    """Largest differences over all crystals; whether they are within the limits."""
    fine = True
    for quantity, limit in LIMITS.items():
        names = [name for name in theirs if name.startswith(f"{quantity}_")]
        worst, shipped = (
            max(float(np.abs(ours[prefix + name] - theirs[name]).max()) for name in names)
            for prefix in ("", "shipped-")
        )
        print(f"{quantity:9}{len(names)} crystals: {worst:.2e} (limit {limit:.0e}), shipped {shipped:.2e}")
        fine &= worst <= limit
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--structures", type=Path, required=True, help="extended XYZ with at least 50 small crystals")
    parser.add_argument("--peer-python", required=True, help="the Python where PyPI nequix is installed")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    arguments = (options.weights, options.structures)
    rounds = []
    for _ in range(options.rounds):
        theirs = run_side(options.peer_python, "peer_nequix_step.py", arguments)
        rounds.append((run_side(sys.executable, "nequix_step_ours.py", (*arguments, theirs["time_norm"])), theirs))
    units = {"compile": "s", "step": "s", "evaluate": "s", "hessian": "s", "memory": "MiB", "loss": "", "norm": ""}
    print(f"{'':12}{'mlipdb':>10}{'nequix':>10}{'ratio':>8}")
    for name, unit in units.items():
        mine, peer = (float(np.median([side[f"time_{name}"] for side in sides])) for sides in zip(*rounds, strict=True))
        print(f"{name:9}{unit:3}{mine:10.6g}{peer:10.6g}{peer / mine:8.2f}")
    sys.exit(0 if compare(*rounds[0]) else 1)


if __name__ == "__main__":
    main()
