"""Open exported files with mace-torch's own loaders and compare every number with the database's.

    python -m venv mace && mace/bin/pip install torch mace-torch
    python bench/export_peers.py --mace-python mace/bin/python [FILE.json]

FILE is in MPtrj's layout; without it 300 made-up rock salts are used. mace-torch lives in an environment of its own,
because it pins packages; the part of this program that runs there needs nothing of mlipdb.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CUTOFF = 4.0


def make(path, folder):
    """Export a database three ways, and keep its numbers as plain arrays."""
    import mlipdb
    from mlipdb.export import export
    from mlipdb.ingest import IngestSettings, ingest
    from mlipdb.labels import Method
    from mlipdb.testing.samples import sample_records

    db = mlipdb.create(folder / "db")
    if path is None:
        source = db.open_source("made", reader="none", uri="made here")
        db.append(sample_records(300), source_id=source, method_id=db.method_id(Method(kind="dft", name="PBE")))
    else:
        ingest(db, [path], settings=IngestSettings(reader="mptrj", symprec=None))
    for format, name in (("mace-hdf5", "all.h5"), ("aselmdb", "set"), ("extxyz", "all.extxyz")):
        for report in export(db, "all", format=format, path=folder / name):
            print(f"{format}: {report.written} structures, {report.bytes / 1e6:.1f} MB; lost: ", end="")
            print(", ".join(f"{lost.what} of {lost.structures}" for lost in report.lost) or "nothing")
    kept = {}
    for place, (structure, label) in enumerate(db.read(db.query("all").ids)):
        kept[f"positions_{place}"], kept[f"cell_{place}"] = structure.positions, structure.cell
        kept[f"numbers_{place}"] = structure.atomic_numbers
        kept[f"energy_{place}"] = np.array(label.energy_uncorrected)
        kept[f"forces_{place}"] = label.forces
        if label.stress is not None:
            kept[f"stress_{place}"] = label.stress
    np.savez(folder / "kept.npz", **kept)
    return place + 1


def check(folder):
    """In mace-torch's environment: its loaders give the same numbers."""
    import logging

    import torch
    from mace.data import HDF5Dataset, LMDBDataset
    from mace.data.utils import KeySpecification, load_from_xyz
    from mace.tools import AtomicNumberTable

    logging.disable()
    torch.set_default_dtype(torch.float64)
    kept = dict(np.load(folder / "kept.npz"))
    count = sum(name.startswith("energy_") for name in kept)
    table = AtomicNumberTable(sorted({int(z) for i in range(count) for z in kept[f"numbers_{i}"]}))
    rows = LMDBDataset(str(folder / "set"), r_max=CUTOFF, z_table=table)
    results = {}
    for name, dataset in (
        ("HDF5Dataset", HDF5Dataset(str(folder / "all.h5"), r_max=CUTOFF, z_table=table)),
        ("LMDBDataset (fairchem's layout)", rows),
    ):
        assert len(dataset) == count, (name, len(dataset), count)
        results[name] = sum(compare(dataset[place], kept, place, table, name) for place in range(count))
    natoms = [rows.AseDB.get_metadata("natoms", place) for place in range(count)]
    assert natoms == [len(kept[f"numbers_{place}"]) for place in range(count)]
    results["metadata.npz: natoms"] = count
    keys = KeySpecification(
        info_keys={"energy": "energy", "stress": "stress", "head": "head"}, arrays_keys={"forces": "forces"}
    )
    _, configs = load_from_xyz(str(folder / "all.extxyz"), keys)
    assert len(configs) == count
    for place, config in enumerate(configs):
        assert config.properties["energy"] == kept[f"energy_{place}"]
        assert np.array_equal(config.properties["forces"], kept[f"forces_{place}"])
    results["load_from_xyz"] = count
    return results


def compare(data, kept, place, table, name):
    """Raise unless one graph holds the database's numbers to the bit; stress as far as the format keeps it."""
    numbers = np.array(table.zs)[data.node_attrs.argmax(dim=1).numpy()]
    assert np.array_equal(numbers, kept[f"numbers_{place}"]), (name, place, "atomic numbers")
    assert np.array_equal(data.positions.numpy(), kept[f"positions_{place}"]), (name, place, "positions")
    assert np.array_equal(data.cell.numpy().reshape(3, 3), kept[f"cell_{place}"]), (name, place, "cell")
    assert float(data.energy) == float(kept[f"energy_{place}"]), (name, place, "energy")
    assert np.array_equal(data.forces.numpy(), kept[f"forces_{place}"]), (name, place, "forces")
    stress = kept.get(f"stress_{place}")
    weight = float(data.stress_weight)
    assert weight == float(stress is not None), (name, place, "weight of the stress")
    if stress is not None:
        exact = stress if name.startswith("HDF5") or np.array_equal(stress, stress.T) else (stress + stress.T) / 2
        assert np.array_equal(data.stress.numpy()[0], exact), (name, place, "stress")
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--mace-python", help="Python of an environment with mace-torch.")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.check:
        print(json.dumps(check(chosen.check)))
        return
    if not chosen.mace_python:
        parser.error("--mace-python is needed")
    with tempfile.TemporaryDirectory() as scratch:
        make(chosen.file, Path(scratch))
        done = subprocess.run(
            [chosen.mace_python, __file__, "--check", scratch], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        for name, count in json.loads(done.stdout.splitlines()[-1]).items():
            print(f"mace-torch {name}: {count} structures, every number equal")


if __name__ == "__main__":
    main()
