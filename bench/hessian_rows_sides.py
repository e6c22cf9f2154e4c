"""The sides of bench/hessian_rows.py: one a process, in the environment of its package; the last line is its report."""

import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import ase.build
import ase.io
import numpy as np


def crystals(settings):
    """Periodic structures whose sizes are spread evenly from the smallest to the largest that is allowed."""
    found = [
        atoms
        for atoms in ase.io.iread(settings["structures"])
        if 2 <= len(atoms) <= settings["largest"] and atoms.pbc.all()
    ]
    found.sort(key=len)
    places = np.linspace(0, len(found) - 1, settings["count"]).round().astype(int)
    return [found[place] for place in places]


def timed(function, repeats):
    """Median CPU seconds of warm runs on one core; the first run, which compiles, does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return float(np.median(times))


def teacher(name, settings):
    from mlipdb.labelling.load import load_teacher
    from mlipdb.labelling.teacher import TeacherOptions

    weights = Path(settings[name])
    return load_teacher(name, TeacherOptions(weights=weights, trust_weights=True, offline=True, device=None))


def label_rows(loaded, structures, numbers):
    """Rows only, in the batches that the runner would make."""
    from mlipdb.labelling.batches import Task, pack
    from mlipdb.labelling.teacher import LabelRequest

    tasks = [
        Task(id=place, structure=structure, base=False, rows=rows, part=0, edges=loaded.edges(structure))
        for place, (structure, rows) in enumerate(zip(structures, numbers, strict=True))
    ]
    for batch in pack(tasks, loaded.batch_limits):
        request = LabelRequest(base=False, hessian_row_numbers=[task.rows for task in batch])
        loaded.label([task.structure for task in batch], request)


def structures_of(found):
    from mlipdb.structures import make_structure

    return [make_structure(atoms.numbers, atoms.positions, cell=atoms.cell[:], pbc=(True,) * 3) for atoms in found]


def ours(name, settings):
    structures, loaded = structures_of(crystals(settings)), teacher(name, settings)
    rng = np.random.default_rng(0)
    numbers = [rng.permutation(3 * len(item))[: settings["rows"]].astype(np.int32) for item in structures]
    seconds = timed(lambda: label_rows(loaded, structures, numbers), settings["repeats"])
    return {"seconds": seconds, "rows": sum(map(len, numbers))}


def theirs(calculator, settings):
    found = crystals(settings)
    seconds = timed(lambda: [np.asarray(calculator.get_hessian(atoms)) for atoms in found], settings["repeats"])
    return {"seconds": seconds, "rows": 3 * sum(map(len, found))}


def save(calculator, settings):
    """Writes get_hessian of the first, smallest crystals."""
    found = crystals(settings)[: settings["compared"]]
    whole = [by_rows(np.asarray(calculator.get_hessian(atoms)), atoms=len(atoms)) for atoms in found]
    np.savez(settings["hessians"], *whole)
    return {"crystals": len(found)}


def by_rows(hessian, *, atoms):
    """A package's Hessian as rows: nequix has both atoms before both axes, MACE each row as it is."""
    if hessian.shape == (atoms, atoms, 3, 3):
        hessian = hessian.transpose(0, 2, 1, 3)
    return hessian.reshape(3 * atoms, atoms, 3)


def agree(name, settings):
    """The largest difference of any of our rows from those that were written, in eV/Å², and the largest entry."""
    from mlipdb.labelling.teacher import LabelRequest

    found = structures_of(crystals(settings)[: settings["compared"]])
    numbers = [np.arange(3 * len(item), dtype=np.int32) for item in found]
    labels = teacher(name, settings).label(found, LabelRequest(base=False, hessian_row_numbers=numbers))
    written = np.load(settings["hessians"])
    pairs = [(label.hessian_rows, written[f"arr_{place}"]) for place, label in enumerate(labels)]
    return {
        "rows": sum(map(len, numbers)),
        "difference": max(float(np.abs(mine - package).max()) for mine, package in pairs),
        "largest": max(float(np.abs(package).max()) for _, package in pairs),
    }


def memory(name, settings):
    """Peak and present memory in MiB of labelling one cell with so many rows."""
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (settings["memory_atoms"] // 8, 1, 1)
    atoms.rattle(0.05, seed=3)
    (structure,), loaded = structures_of([atoms]), teacher(name, settings)
    loaded.edges(structure)
    before = peak()
    numbers = np.arange(settings["rows"], dtype=np.int32)
    label_rows(loaded, [structure], [numbers])
    return {"peak": peak(), "before": before, "rows": len(numbers)}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def nequix_calculator(settings):
    from nequix.calculator import NequixCalculator

    return NequixCalculator(model_path=settings["nequix"], use_kernel=False)


def mace_calculator(settings):
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=settings["mace"], device="cpu", default_dtype="float64")


def make_mace(path, channels):
    """A model of the shape of mace-mp-small with random weights, for all elements up to actinium."""
    import torch
    from mace import modules

    from e3nn import o3  # isort: skip - mace makes a setting that its import needs

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    model = modules.ScaleShiftMACE(
        r_max=6.0,
        num_bessel=10,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=89,
        hidden_irreps=o3.Irreps(f"{channels}x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=-np.arange(1.0, 90.0),
        avg_num_neighbors=60.0,
        atomic_numbers=list(range(1, 90)),
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=0.8,
        atomic_inter_shift=0.1,
    )
    torch.save(model, path)


def main():
    side, settings = sys.argv[1], json.loads(sys.argv[2])
    warnings.simplefilter("ignore")
    if side == "make_mace":
        make_mace(*settings)
        return
    if "MLIPDB_BENCH_CORE" in os.environ:
        os.sched_setaffinity(0, {int(os.environ["MLIPDB_BENCH_CORE"])})
    kind, _, name = side.partition("_")
    if kind in ("theirs", "save"):
        calculator = {"nequix": nequix_calculator, "mace": mace_calculator}[name](settings)
        report = {"theirs": theirs, "save": save}[kind](calculator, settings)
    else:
        report = {"ours": ours, "memory": memory, "agree": agree}[kind](name, settings)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
