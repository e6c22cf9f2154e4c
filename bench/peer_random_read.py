"""The peer's side of random_read.py; runs in an environment with ase and ase-db-backends."""

import gzip
import json
import sys
import time
from pathlib import Path

import ase
import ase.db
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator


def frames(path: str) -> list[ase.Atoms]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt") as file:
        materials = json.load(file)
    images = []
    for records in materials.values():
        for record in records.values():
            sites = record["structure"]["sites"]
            atoms = ase.Atoms(
                [site["species"][0]["element"] for site in sites],
                positions=[site["xyz"] for site in sites],
                cell=record["structure"]["lattice"]["matrix"],
                pbc=True,
            )
            stress = np.array(record["stress"])[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] * (-0.1 / 160.21766)
            atoms.calc = SinglePointCalculator(
                atoms, energy=record["uncorrected_total_energy"], forces=np.array(record["force"]), stress=stress
            )
            images.append(atoms)
    return images


def main() -> None:
    images = frames(sys.argv[1])
    atoms = sum(map(len, images))
    order = np.random.default_rng(1).permutation(len(images))
    results = {}
    for name in ("aselmdb", "db"):
        path = Path(sys.argv[2]) / f"peer.{name}"
        with ase.db.connect(str(path)) as db:
            for image in images:
                db.write(image)
        db = ase.db.connect(str(path))
        rates = []
        for _ in range(int(sys.argv[3])):
            start = time.perf_counter()
            for place in order:
                db.get(int(place) + 1).toatoms().get_forces()
            rates.append(len(order) / (time.perf_counter() - start))
        results[name] = {"read/s": float(np.median(rates)), "B/atom": path.stat().st_size / atoms}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
