"""Fine-tuning for real: seven strategies from nequix-mp-1 and a student from scratch, on molecules and on oxides.

    python bench/finetune.py DATA WEIGHTS.nqx --keep FOLDER [--targets acac oxides] [--sizes 20 80] [--seeds 1]
                             [--only 80] [--strategies …] [--passes 800] [--wide N] [--tag T --set key=value …]

DATA is the folder with botnet-datasets, fairchem and mattersim-benchmarks. Each run passes over --passes target
structures, whatever the size of its train part. FOLDER keeps databases and results: what is finished is not made again,
so that the command can be stopped and repeated. The table has errors on the target's test part, errors on structures
such as the foundation was trained on, and faults at short range, before and after.

acac     acetylacetone at 300 K (PBE, ORCA), energies of all electrons
oxides   equations of state of MO2 polymorphs, M = Sn, Ti, V, Ru, Ir, at most 12 atoms (LDA, VASP)

What is replayed are MPtrj structures, as many as the target has, at most 60. With --wide N it is N of those that need
no DFT labels: larger ones of MPtrj and relaxed ones of Alexandria, whose labels are not looked at; for pseudo-replay
only. As many target structures are passed as without it, in as many steps more as there is more to replay.
"""

import argparse
import contextlib
import gzip
import itertools
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

import mlipdb
from mlipdb.errors import MlipdbError
from mlipdb.ingest import IngestSettings, ingest, parse_method
from mlipdb.subsets import subset as subsets
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.finetune import FinetuneWish, ReplayChoice, finetune, strategy_recipe
from mlipdb.trainers.forgetting import Extent, forgetting
from mlipdb.trainers.live import make_reporter
from mlipdb.trainers.replay_data import repeats
from mlipdb.trainers.runs import run_names
from mlipdb.trainers.train import resume, train

STRATEGIES = ("naive", "freeze-conv", "freeze-backbone", "lora", "replay", "pseudo-replay", "replay-lora", "scratch")
REPLAYING = {"replay", "pseudo-replay", "replay-lora"}
UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
VALIDATION, TEST = 20, 80
REPLAY = 60  # structures at most; else as many as the target has
KBAR = -0.1 / 160.21766208  # VASP's kbar, positive under compression, to eV/Å³, positive under tension
KNOWN = 'source="mptrj" AND nsites<=6'  # what the foundation was trained on, small enough for two cores
WIDE = '(source="mptrj" AND nsites>6 AND nsites<=12) OR (source="alexandria" AND nsites<=6)'


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is fine-tuned for: frames, method, energy convention, and elements whose dimers are looked at."""

    method: str
    elements: tuple[int, ...]


TARGETS = {
    "acac": Target(method="PBE/ORCA", elements=(1, 6, 8)),
    "oxides": Target(method="LDA/VASP", elements=(8, 22, 50)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[20, 80])
    parser.add_argument("--only", nargs="+", type=int, help="of the sizes, those to run now; all decide what is drawn")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--passes", type=int, default=800, help="target structures that a run passes over")
    parser.add_argument("--wide", type=int, default=0, help="replay so many structures without DFT labels")
    parser.add_argument("--tag", default="", help="of runs with other settings: part of their names, and of the table")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        databases = {name: stack.enter_context(contextlib.closing(prepared(chosen, name))) for name in chosen.targets}
        plan = [
            (name, size, strategy, seed)
            for seed in range(chosen.seeds)
            for size in sorted(chosen.only or chosen.sizes, reverse=True)
            for name in chosen.targets
            for strategy in chosen.strategies
        ]
        found = [row for each in plan if (row := result(chosen, databases[each[0]], *each))]
    print(table(found))
    return 0


def acac(data):
    return ase.io.read(data / "botnet-datasets/dataset_acac/train_300K.xyz", ":")


def oxides(data):
    """The LDA part of the supporting information of Mehta, Salvador and Kitchin (2014)."""
    with gzip.open(data / "fairchem/oxides_4functionals_supporting-information.json.gz") as file:
        tables = json.load(file)
    points = [
        point
        for oxide in tables.values()
        for polymorph in oxide.values()
        for point in polymorph["LDA"]["EOS"]["calculations"]
        if len(point["atoms"]["symbols"]) <= 12
    ]
    return [with_labels(point) for point in points]


def with_labels(point):
    made = {key: point["atoms"][key] for key in ("symbols", "positions", "cell", "pbc")}
    atoms, found = Atoms(**made), point["data"]
    labels = {
        "energy": found["total_energy"],
        "forces": np.array(found["forces"]),
        "stress": KBAR * np.array(found["stress"]),
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


FRAMES = {"acac": acac, "oxides": oxides}


def prepared(chosen, name):
    """The database of a target: its frames in parts, MPtrj structures, and frozen subsets; made once."""
    folder = chosen.keep / name
    chosen.keep.mkdir(parents=True, exist_ok=True)
    db = mlipdb.open(folder) if folder.exists() else mlipdb.create(folder)
    take(db, chosen.data / "mattersim-benchmarks/mptrj-random-1k.xyz", name="mptrj", method="PBE/VASP")
    frames = FRAMES[name](chosen.data)
    order = np.random.default_rng(0).permutation(len(frames))
    ends = [0, VALIDATION, VALIDATION + TEST, *(VALIDATION + TEST + size for size in sorted(chosen.sizes))]
    sources = []
    for start, end in itertools.pairwise(ends):
        sources.append(f"{name}-{start}-{end}")
        part = "validation" if not start else "test" if start == VALIDATION else "train"
        file = write(chosen.keep / f"{sources[-1]}.xyz", [frames[place] for place in order[start:end]], part=part)
        take(db, file, name=sources[-1], method=TARGETS[name].method)
    for count, size in enumerate(sorted(chosen.sizes), start=3):
        filter = " OR ".join(f'source="{source}"' for source in sources[:count])
        subsets.freeze(db, f"{name}-{size}", filter=filter, split_by="tag:split")
    subsets.freeze(db, "pretrained", filter=KNOWN, fractions=(60, 10, 30))
    if chosen.wide:
        freeze_wide(chosen, db)
    return db


def freeze_wide(chosen, db):
    """The subset of what can be replayed without DFT labels."""
    take(db, chosen.data / "mattersim-benchmarks/alexandria-random-1k.xyz.gz", name="alexandria", method="PBE/VASP")
    subsets.freeze(db, "wide-mixed", filter=WIDE, fractions=(90, 10, 0))


def write(path, frames, *, part):
    if not path.exists():
        for atoms in frames:
            atoms.info["split"] = part
        ase.io.write(path, frames, format="extxyz")
    return path


def take(db, file, *, name, method):
    units = UNITS if name != "acac" else {}
    settings = IngestSettings(reader="extxyz", name=name, method=parse_method(method), units=units, symprec=None)
    ingest(db, [file], settings=settings)


def result(chosen, db, name, size, strategy, seed):
    """What came out of one run, made now unless it is finished; None where it went wrong."""
    wide = f"-wide-{chosen.wide}" if chosen.wide else ""
    stem = f"{name}-{size}-{strategy}-{seed}-{chosen.passes}{wide}{chosen.tag and f'-{chosen.tag}'}"
    file = chosen.keep / "results" / f"{stem}.json"
    file.parent.mkdir(exist_ok=True)
    if not file.exists():
        try:
            begun = time.monotonic()
            trained(chosen, db, stem, name, size, strategy, seed)
            numbers = measured(chosen, db, stem, name, size)
        except MlipdbError as error:
            print(f"{stem} failed: {error}", file=sys.stderr, flush=True)
            return None
        head = {"on": name, "size": size, "strategy": " ".join([strategy + wide, chosen.tag]).strip(), "seed": seed}
        file.write_text(json.dumps({**numbers, **head, "seconds": time.monotonic() - begun}))
    return json.loads(file.read_text())


def trained(chosen, db, stem, name, size, strategy, seed):
    reporter = make_reporter(sys.stderr)
    replayed = chosen.wide - chosen.wide // 10 if strategy in REPLAYING else 0  # a tenth is held back
    epochs = max(1, chosen.passes // (size * (1 + repeats(size, replayed))))
    settings = [f"epochs={epochs}", f"seed={seed}", "batch.graphs=5"]
    settings += ["loss.stress_mae=0"] if name == "acac" else []
    settings += chosen.settings
    if stem in run_names(db):
        resume(db, stem, reporter=reporter)
    elif strategy == "scratch":
        recipe = load_recipe("nequix-mp", settings=settings)
        train(db, f"{name}-{size}", recipe=recipe, reporter=reporter, name=stem)
    else:
        replay = replay_choice(chosen, size, seed) if strategy in REPLAYING else None
        wish = FinetuneWish(foundation=str(chosen.weights), subset=f"{name}-{size}", replay=replay, name=stem)
        finetune(db, wish, recipe=strategy_recipe(strategy, settings=settings), reporter=reporter)


def replay_choice(chosen, size, seed):
    if chosen.wide:
        return ReplayChoice(source="wide-mixed", size=chosen.wide, seed=seed)
    return ReplayChoice(source="pretrained", size=min(size, REPLAY), seed=seed)


def measured(chosen, db, stem, name, size):
    """Errors on the test part and on what the foundation knew, and faults of dimers and pressed cells."""
    extent = Extent(sample=TEST, elements=TARGETS[name].elements, cells=2, cell_atoms=12, steps=100)
    known = {"foundation_subset": "pretrained", "against": str(chosen.weights)}
    return forgetting(db, stem, subset=f"{name}-{size}", extent=extent, **known).numbers()


HEADS = (
    "target", "train", "strategy", "seeds", "energy, meV/atom", "forces, meV/Å", "known: energy", "known: forces",
    "known, by the kept readout", "dimers", "pressed cells", "drift, meV/atom/ps", "minutes",
)  # fmt: skip
COLUMNS = (
    ("target", "energy_aligned_mae"),
    ("target", "forces_mae"),
    ("foundation", "energy_aligned_mae"),
    ("foundation", "forces_mae"),
)


def table(found):
    """Means over seeds; the foundation itself is the first row of each target."""
    groups = {}
    for row in found:
        groups.setdefault((row["on"], row["size"], row["strategy"]), []).append(row)
    lines = [HEADS, ["---"] * len(HEADS)]
    for name in dict.fromkeys(key[0] for key in groups):
        before = [row for row in found if row["on"] == name][:1]
        lines.append([name, "", "the foundation", "", *cells(before, "before"), ""])
        for key, rows in groups.items():
            if key[0] == name:
                minutes = statistics.mean(row["seconds"] for row in rows) / 60
                lines.append([*map(str, key), str(len(rows)), *cells(rows, "after"), f"{minutes:.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(rows, when):
    found = [row[when] for row in rows]
    errors = [spread([one[part][column] for one in found]) for part, column in COLUMNS]
    drifts = [one["drift"] for one in found]
    drift = "exploded" if any(each["exploded"] for each in drifts) else spread([each["drift"] for each in drifts])
    kept = [row["kept"] for row in rows if when == "after" and row["kept"]]
    by_kept = " / ".join(spread([one[column] for one in kept]) for _, column in COLUMNS[2:]) if kept else ""
    return [*errors, by_kept, faults(found, "dimers"), faults(found, "cells"), drift]


def spread(values):
    """The mean, and the standard deviation where there is one."""
    if any(value is None for value in values):
        return "–"
    deviation = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def faults(found, kind):
    """Of all curves of all seeds: those that rise all the way in, how far in they rise, holes, and changes of sign."""
    sums = {key: sum(one[kind][key] for one in found) for key in ("curves", "walls", "holes", "flips")}
    reach = statistics.mean(one[kind]["reach"] for one in found)
    walls = f"{sums['walls']} of {sums['curves']} walls, reach {reach:.2f}"
    return f"{walls}, {sums['holes']} holes, {sums['flips']} flips"


if __name__ == "__main__":
    sys.exit(main())
