"""Nequix here beside NequIP of the PyPI package mlip in like settings: compile time, steps, Hessian rows, memory.

    taskset -c 0 python bench/mlip_step.py --peer-python mlip/bin/python

Channels, degrees, layers, cutoff, radial network, batch (eight rattled rock salts, 128 atoms), losses and AdamW are
alike (Muon fails on mlip's empty matrices); the networks are not the same: mlip's has weights by element in its
residual connections and no norm. Both sides run in processes of their own, in turns; times are CPU seconds.
"""

import argparse
import json
import sys

from nequix_step import run_side

SETTINGS = {
    "elements": [3, 8, 9, 11, 12, 17, 19, 35],
    "irreps": "128x0e + 64x1o + 32x2e + 32x3o",
    "lmax": 3,
    "n_layers": 4,
    "cutoff": 6.0,
}
UNITS = {"parameters": "", "compile": "s", "step": "s", "evaluate": "s", "memory": "MiB"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="the Python where PyPI mlip is installed")
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    print(f"{'rows':6}{'':12}{'mlipdb':>10}{'mlip':>10}{'ratio':>8}")
    for rows in options.rows:
        arguments = [json.dumps(SETTINGS | {"rows": rows})]
        theirs = run_side(options.peer_python, "peer_mlip_step.py", arguments)
        ours = run_side(sys.executable, "mlip_step_ours.py", arguments)
        for name, unit in UNITS.items():
            if f"time_{name}" in ours:
                mine, peer = (float(side[f"time_{name}"]) for side in (ours, theirs))
                print(f"{rows:<6}{name:9}{unit:3}{mine:10.6g}{peer:10.6g}{peer / mine:8.2f}")


if __name__ == "__main__":
    main()
