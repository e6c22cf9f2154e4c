"""The other side of bench/ingest.py: an MPtrj file into aselmdb with json, pymatgen and ASE, as is usual today.

    python bench/peer_ingest.py FILE.json DIRECTORY

Runs in an environment of its own: pip install ase-db-backends pymatgen
"""

import gzip
import json
import sys
import time
from pathlib import Path

import ase.db
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

GPA = 160.2176634  # in 1 eV/Å³


def atoms_of(record):
    atoms = AseAtomsAdaptor.get_atoms(Structure.from_dict(record["structure"]))
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=record["uncorrected_total_energy"],
        forces=np.array(record["force"]),
        stress=full_3x3_to_voigt_6_stress(np.array(record["stress"]) * (-0.1 / GPA)),
    )
    return atoms


def main():
    source, directory = Path(sys.argv[1]), Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "peer.aselmdb"
    start, cpu = time.perf_counter(), time.process_time()
    frames = natoms = 0
    with (gzip.open if source.suffix == ".gz" else open)(source) as file:
        materials = json.load(file)
    with ase.db.connect(str(target)) as db:
        for mp_id, records in materials.items():
            for key, record in records.items():
                atoms = atoms_of(record)
                db.write(atoms, data={"mp_id": mp_id, "frame_id": key, "bandgap": record.get("bandgap")})
                frames += 1
                natoms += len(atoms)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    size = target.stat().st_size
    result = {
        "frames": frames,
        "atoms": natoms,
        "seconds": seconds,
        "cpu": cpu,
        "shards": size,
        "all": size,
        "peak_mb": int(peak.split()[1]) / 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
