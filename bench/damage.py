"""Random single-bit flips and truncations of the shards of a small database: is each found, and does none kill?

python bench/damage.py --flips 1000 --cuts 200
"""

import argparse
import tempfile
import time
from pathlib import Path

import mlipdb
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.testing.damage import outcomes
from mlipdb.testing.samples import harmonic_label, sample_records


def fill(folder):
    """Six shards of structures, two of labels."""
    db = mlipdb.create(folder)
    source = db.open_source("sample", reader="none", uri="bench/damage.py")
    dft, teacher = db.method_id(Method(kind="dft", name="PBE")), db.method_id(Method(kind="teacher", name="toy"))
    for start in range(0, 240, 40):
        db.append(sample_records(40, start=start), source_id=source, method_id=dft)
    for part in range(2):
        labels = [harmonic_label(db.structure(identity), seed=identity) for identity in range(1, 41)]
        db.append_labels(
            [NewLabel(structure_id=n, part=part, label=label) for n, label in enumerate(labels, start=1)],
            method_id=teacher,
        )
    db.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "db"
        fill(folder)
        for name, flips, cuts in (("bit flips", chosen.flips, 0), ("truncations", 0, chosen.cuts)):
            start = time.perf_counter()
            counts = outcomes(folder, flips=flips, cuts=cuts, seed=chosen.seed, scratch=Path(scratch))
            told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
            print(f"{flips + cuts} {name}: {told} ({time.perf_counter() - start:.0f} s)")
        report = mlipdb.open(folder).verify(deep=True)
        print(f"afterwards: {'all well' if report.ok else report.problems}")


if __name__ == "__main__":
    main()
