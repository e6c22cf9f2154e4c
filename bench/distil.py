"""Distillation for real: students with no teacher, with Hessian rows, jointly, and jointly with alignment off.

    python bench/distil.py DATA WEIGHTS.nqx --keep FOLDER [--subsets corrected oxides acac] [--students painn nequix]
                           [--seeds 3] [--epochs 60] [--largest 40] [--set key=value …]

DATA is the folder with derived-containers, mattersim-benchmarks and botnet-datasets; WEIGHTS are nequix-mp-1, which
labels every train part with energies, forces, atomic energies and four Hessian rows. FOLDER keeps databases and runs: a
run that is finished is not made again, so that the command can be stopped and repeated. Two tables come out: errors on
the test part with their spread over seeds, and what joint distillation gains over Hessian rows alone.

corrected   the MPtrj sample, trained on MP2020-corrected energies as the paper did; the teacher's are uncorrected
oxides      structures with oxygen of 1,000 MPtrj and 1,000 Alexandria structures, uncorrected energies
acac        acetylacetone at 300 K (PBE), 500 frames, split by frame, as its authors did
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlipdb
from mlipdb.ingest import IngestSettings, ingest, parse_method
from mlipdb.labelling import TeacherOptions, label, load_teacher
from mlipdb.subsets import subset as subsets

MODES = {"none": "plain", "Hessian": "hessian", "joint": "joint", "joint, not aligned": "joint"}
TEACHER, ROWS = "nequix-mp-1", 4
ENERGY, FORCES = "energy_mae", "forces_mae"  # meV/atom, meV/Å
UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where the data of a subset are, how they are split, and which energy is learnt."""

    files: tuple[str, ...]
    reader: str
    filter: str = "all"
    method: str | None = "PBE/VASP"
    split_by: str = "material"
    energy: str = "energy_uncorrected"


PARTS = {
    "corrected": Part(
        files=("derived-containers/MPtrj_2022.9_sample.json.gz",),
        reader="mptrj",
        method=None,
        energy="energy_corrected",
    ),
    "oxides": Part(
        files=("mattersim-benchmarks/mptrj-random-1k.xyz", "mattersim-benchmarks/alexandria-random-1k.xyz.gz"),
        reader="extxyz",
        filter='elements HAS "O"',
    ),
    "acac": Part(
        files=("botnet-datasets/dataset_acac/train_300K.xyz",), reader="extxyz", method="PBE/ORCA", split_by="frame"
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--subsets", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--students", nargs="+", default=["painn", "nequix"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--largest", type=int, default=40, help="atoms of the largest structure")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)  # a run, in a process of its own
    chosen = parser.parse_args()
    if chosen.one:
        return one(chosen, *chosen.one[:3], int(chosen.one[3]))
    results = []
    for name in chosen.subsets:
        prepare(chosen, name)
        for student in chosen.students:
            for seed in range(chosen.seeds):
                results += [found for mode in MODES if (found := in_a_process(chosen, name, student, mode, seed))]
    print(table(results), gains(results), sep="\n\n")
    return 0


def prepare(chosen, name):
    """The database of a subset: structures, split and the teacher's labels; what is there is not made again."""
    part, folder = PARTS[name], chosen.keep / name
    chosen.keep.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(mlipdb.open(folder) if folder.exists() else mlipdb.create(folder)) as db:
        method = parse_method(part.method) if part.method else None
        units = UNITS if part.reader == "extxyz" else {}
        for file in part.files:
            settings = IngestSettings(
                reader=part.reader, name=Path(file).name.partition(".")[0], method=method, units=units, symprec=None
            )
            ingest(db, [chosen.data / file], settings=settings)
        filter = f"({part.filter}) AND nsites<={chosen.largest}"
        frozen = subsets.freeze(db, name, filter=filter, split_by=part.split_by, fractions=(80, 10, 10))
        teacher = load_teacher("nequix", TeacherOptions(weights=chosen.weights))
        label(db, teacher, ids=frozen.ids, hessian_rows=ROWS)
        sizes = {split: len(ids) for split, ids in frozen.splits.items()}
        print(f"{name}: {sizes}", file=sys.stderr, flush=True)


def run_name(name, student, mode, seed):
    words = mode.replace(", ", "-").replace(" ", "-").lower()
    return f"{name}-{student}-{words}-{seed}"


def in_a_process(chosen, name, student, mode, seed):
    """A run's errors on the test part, trained now unless it is finished; None where it went wrong."""
    file = chosen.keep / "results" / f"{run_name(name, student, mode, seed)}-{chosen.epochs}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        words = [sys.executable, __file__, *sys.argv[1:], "--one", name, student, mode, str(seed)]
        with file.with_suffix(".log").open("w") as log:
            if subprocess.run(words, stdout=log, stderr=log, check=False).returncode:
                print(f"{file.stem} failed, see {file.with_suffix('.log')}", file=sys.stderr, flush=True)
                return None
    return json.loads(file.read_text())


def one(chosen, name, student, mode, seed):
    """Train and evaluate one student, and write what came out."""
    from mlipdb.trainers.cookbook import load_recipe
    from mlipdb.trainers.evaluate import evaluate
    from mlipdb.trainers.progress import make_reporter
    from mlipdb.trainers.runs import run_names
    from mlipdb.trainers.train import resume, train

    settings = [f"epochs={chosen.epochs}", f"seed={seed}", f'data.energy="{PARTS[name].energy}"', *chosen.settings]
    if mode.endswith("not aligned"):
        settings.append('distillation.alignment="none"')
    recipe = load_recipe(f"{MODES[mode]}/{student}", settings=settings)
    stem, begun = f"{run_name(name, student, mode, seed)}-{chosen.epochs}", time.monotonic()
    with contextlib.closing(mlipdb.open(chosen.keep / name)) as db:
        reporter, teacher = make_reporter(sys.stderr), None if mode == "none" else TEACHER
        if stem in run_names(db):
            resume(db, stem, reporter=reporter)  # it was stopped on the way
        else:
            train(db, name, recipe=recipe, reporter=reporter, teacher=teacher, name=stem, accept_labels=True)
        seconds = time.monotonic() - begun
        rows = evaluate(db, stem, subset=name, splits=["test"]).rows
    by = {row["predicted_by"]: row for row in rows}
    found = {"subset": name, "student": student, "mode": mode, "seed": seed, "seconds": seconds, **by[stem]}
    found["e0"] = by["E0 only"]
    (chosen.keep / "results" / f"{stem}.json").write_text(json.dumps(found))
    return 0


def table(results):
    """Mean and, in brackets, standard deviation over seeds; meV/atom and meV/Å."""
    lines = [
        "| subset | student | distillation | seeds | energy MAE | force MAE | minutes a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, found in grouped(results).items():
        cells = [spread([row[column] for row in found]) for column in (ENERGY, FORCES)]
        minutes = statistics.mean(row["seconds"] for row in found) / 60
        lines.append(f"| {' | '.join(key)} | {len(found)} | {' | '.join(cells)} | {minutes:.1f} |")
    e0 = {row["subset"]: row["e0"] for row in results}
    lines += [f"| {name} | E0 only | | | {row[ENERGY]:.1f} | {row[FORCES]:.1f} | |" for name, row in e0.items()]
    return "\n".join(lines)


def gains(results):
    """What joint distillation changes over Hessian rows alone, seed by seed; less is better."""
    lines = ["| subset | student | joint over Hessian | energy MAE | force MAE |", "|---|---|---|---|---|"]
    by = {(row["subset"], row["student"], row["mode"], row["seed"]): row for row in results}
    for mode in ("joint", "joint, not aligned"):
        for name, student in dict.fromkeys((row["subset"], row["student"]) for row in results):
            seeds = [
                seed for *key, seed in by if key == [name, student, mode] and (name, student, "Hessian", seed) in by
            ]
            if not seeds:
                continue
            cells = []
            for column in (ENERGY, FORCES):
                change = [
                    by[name, student, mode, s][column] / by[name, student, "Hessian", s][column] - 1 for s in seeds
                ]
                cells.append(spread([100 * value for value in change], sign="+") + " %")
            lines.append(f"| {name} | {student} | {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def grouped(results):
    found = {}
    for row in results:
        found.setdefault((row["subset"], row["student"], row["mode"]), []).append(row)
    return found


def spread(values, sign=""):
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.1f} ({deviation:.1f})"


if __name__ == "__main__":
    sys.exit(main())
