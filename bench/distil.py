"""Distillation for real: students with no teacher, with Hessian rows, and jointly, with three ways of alignment.

    python bench/distil.py DATA WEIGHTS.nqx --keep FOLDER [--subsets corrected main-group anions acac]
                           [--students painn nequix] [--modes none Hessian joint …] [--seeds 3] [--set key=value …]

DATA is the folder with derived-containers, alexandria-ml-peg, mattersim-benchmarks and botnet-datasets; WEIGHTS are
nequix-mp-1, which labels every train part with energies, forces, atomic energies and four Hessian rows. FOLDER keeps
databases and runs: a run that is finished is not made again, so that the command can be stopped and repeated. Seed 0
of everything comes first, then seed 1. After each seed two tables come out: errors on the test part with their spread
over seeds, and what joint distillation gains over Hessian rows alone. With JAX_COMPILATION_CACHE_DIR set, a repeated
command compiles nothing again.

corrected    Sr, Hf and their oxides of the MPtrj sample, trained on MP2020-corrected energies and split by frame, as
             the paper did; the teacher's energies are uncorrected
main-group   compounds of 29 main-group elements: relaxed ones of Alexandria and 1,000 of MPtrj, split by material;
             uncorrected energies, the teacher's convention
anions       relaxed compounds of O, F, Cl, Br, I, S, N, Se and Te of Alexandria with any other elements, split by
             material, trained on Alexandria's corrected energies, three in ten of which differ from the uncorrected
acac         acetylacetone at 300 K (PBE, total energies), split by frame, as its authors did

Four tenths train, a tenth validates, half tests: few structures to train on are where a teacher is wanted, and a large
test part keeps the errors' own scatter small.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax

import mlipdb
from mlipdb.errors import MlipdbError
from mlipdb.ingest import IngestSettings, ingest, parse_method
from mlipdb.labelling import TeacherOptions, label, load_teacher
from mlipdb.subsets import subset as subsets
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.evaluate import evaluate
from mlipdb.trainers.progress import PlainReporter
from mlipdb.trainers.runs import run_names
from mlipdb.trainers.train import resume, train

MODES = {
    "none": "plain",
    "Hessian": "hessian",
    "joint": "joint",
    "joint, not aligned": "joint",
    "joint, by structure": "joint",
}
WAYS = {"not aligned": "none", "by structure": "structure"}
TEACHER, ROWS = "nequix-mp-1", 4
ENERGY, FORCES = "energy_mae", "forces_mae"  # meV/atom, meV/Å
MAIN_GROUP = "Li,Na,K,Mg,Ca,Sr,Ba,Zn,Cd,Al,Ga,In,Si,Ge,Sn,Pb,N,P,As,Sb,Bi,O,S,Se,Te,F,Cl,Br,I".replace(",", '","')
# Forces are next to 0, and at full weight the first epoch, which moves nothing, is the best.
RELAXED = ("loss.forces_l2=2", "distillation.loss.hessian_rows=1")
UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where the data of a subset are, how they are split, and which energy is learnt."""

    files: tuple[str, ...]
    readers: tuple[str, ...]  # one a file
    filter: str = "all"
    method: str | None = "PBE/VASP"
    split_by: str = "material"
    energy: str = "energy_uncorrected"
    nequix: tuple[str, ...] = ()  # what this student does otherwise here


PARTS = {
    "corrected": Part(
        files=("derived-containers/MPtrj_2022.9_sample.json.gz",),
        readers=("mptrj",),
        filter='elements HAS ONLY "O","Sr","Hf" AND nsites<=12 AND NOT elements HAS ONLY "O"',
        method=None,
        split_by="frame",
        energy="energy_corrected",
    ),
    "main-group": Part(
        files=("alexandria-ml-peg/P000.json.bz2", "mattersim-benchmarks/mptrj-random-1k.xyz"),
        readers=("alexandria", "extxyz"),
        filter=f'elements HAS ONLY "{MAIN_GROUP}" AND nsites<=12',
        nequix=RELAXED,
    ),
    "anions": Part(
        files=("alexandria-ml-peg/P000.json.bz2",),
        readers=("alexandria",),
        filter='elements HAS ANY "O","F","Cl","Br","I","S","N","Se","Te" AND nsites<=12',
        method=None,
        energy="energy_corrected",
        nequix=RELAXED,
    ),
    "acac": Part(
        files=("botnet-datasets/dataset_acac/train_300K.xyz",),
        readers=("extxyz",),
        method="PBE/ORCA",
        split_by="frame",
        nequix=("epochs=40",),
    ),
}
COMMON = ("distillation.rows_per_structure=1", "batch.graphs=8", "model.cutoff=4.0", "optimizer.ema_decay=0.99")
COMMON += ("distillation.loss.hessian_rows=20", "validate_every=5", "log.tensorboard=false", "data.threads=1")
STUDENTS = {  # small enough for a minute or two a run on a core
    "painn": (
        *COMMON,
        "epochs=25",
        "model.hidden_size=32",
        "model.n_layers=2",
        "model.n_radial=16",
        "model.max_neighbours=12",
        "model.scale_factors=[1.4, 1.2]",  # not fitted, so that all seeds share a compiled program
        'optimizer.name="muon"',
        "optimizer.amsgrad=false",
        'optimizer.schedule="cosine"',
        "optimizer.learning_rate=0.01",
    ),
    "nequix": (
        *COMMON,
        "epochs=75",
        'model.hidden_irreps="32x0e + 8x1o"',
        "optimizer.learning_rate=0.03",
        "loss.energy_mae=20",  # energies have no output of their own; beside 100 for forces they are hardly learnt
        "loss.forces_l2=20",
        "distillation.loss.hessian_rows=4",
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--subsets", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    chosen = parser.parse_args()
    for name in chosen.subsets:
        prepare(chosen, name)
    results = []
    for seed in range(chosen.seeds):
        plan = itertools.product(chosen.subsets, chosen.students, chosen.modes)
        results += [found for words in plan if (found := finished(chosen, *words, seed))]
        print(f"{seed + 1} of {chosen.seeds} seeds", table(results), gains(results), sep="\n\n", flush=True)
    return 0


def prepare(chosen, name):
    """The database of a subset: structures, split and the teacher's labels; what is there is not made again."""
    part, folder = PARTS[name], chosen.keep / name
    chosen.keep.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(mlipdb.open(folder) if folder.exists() else mlipdb.create(folder)) as db:
        for file, reader in zip(part.files, part.readers, strict=True):
            ingest(db, [chosen.data / file], settings=ingest_settings(part, Path(file), reader))
        frozen = subsets.freeze(db, name, filter=part.filter, split_by=part.split_by, fractions=(40, 10, 50))
        teacher = load_teacher("nequix", TeacherOptions(weights=chosen.weights))
        label(db, teacher, ids=frozen.splits["train"], hessian_rows=ROWS)
        label(db, teacher, ids=frozen.splits["validation"])  # whose forces say when Hessian rows count half
        sizes = {split: len(ids) for split, ids in frozen.splits.items()}
        print(f"{name}: {sizes}", file=sys.stderr, flush=True)


def ingest_settings(part, file, reader):
    method = parse_method(part.method) if part.method else None
    units = UNITS if reader == "extxyz" else {}
    return IngestSettings(reader=reader, name=file.name.partition(".")[0], method=method, units=units, symprec=None)


def run_name(name, student, mode, seed):
    words = mode.replace(", ", "-").replace(" ", "-").lower()
    return f"{name}-{student}-{words}-{seed}"


def finished(chosen, name, student, mode, seed):
    """A run's errors on the test part, trained now unless it is finished; None where it went wrong."""
    stem = run_name(name, student, mode, seed)
    file = chosen.keep / "results" / f"{stem}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        begun = time.process_time()
        try:
            with file.with_suffix(".log").open("a") as log:
                row, e0 = trained(chosen, name, recipe_of(chosen, name, student, mode, seed), stem, log)
        except MlipdbError as error:
            print(f"{stem} failed: {error}", file=sys.stderr, flush=True)
            return None
        found = {"subset": name, "student": student, "mode": mode, "seed": seed, **row, "e0": e0}
        file.write_text(json.dumps(found | {"seconds": time.process_time() - begun}))
        jax.clear_caches()  # else the programs of so many runs reach the kernel's bound on memory maps
        print(f"{stem}: {row[ENERGY]:.1f} meV/atom, {row[FORCES]:.1f} meV/Å", file=sys.stderr, flush=True)
    return json.loads(file.read_text())


def recipe_of(chosen, name, student, mode, seed):
    part = PARTS[name]
    settings = [f"seed={seed}", f'data.energy="{part.energy}"', *STUDENTS[student]]
    settings += part.nequix if student == "nequix" else ()
    settings += [f'distillation.alignment="{way}"' for words, way in WAYS.items() if mode.endswith(words)]
    return load_recipe(f"{MODES[mode]}/{student}", settings=[*settings, *chosen.settings])


def trained(chosen, name, recipe, stem, log):
    """The errors of a run on the test part and those of E0 alone; a run that was stopped on the way goes on."""
    with contextlib.closing(mlipdb.open(chosen.keep / name)) as db:
        if stem in run_names(db):
            resume(db, stem, reporter=PlainReporter(log))
        else:
            teacher = None if "-none-" in stem else TEACHER
            train(db, name, recipe=recipe, reporter=PlainReporter(log), teacher=teacher, name=stem, accept_labels=True)
        by = {row["predicted_by"]: row for row in evaluate(db, stem, subset=name, splits=["test"]).rows}
    return by[stem], by["E0 only"]


def table(results):
    """Mean and, in brackets, standard deviation over seeds; meV/atom and meV/Å."""
    lines = [
        "| subset | student | distillation | seeds | energy MAE | force MAE | CPU seconds a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, found in grouped(results).items():
        cells = [spread([row[column] for row in found]) for column in (ENERGY, FORCES)]
        seconds = statistics.median(row["seconds"] for row in found)
        lines.append(f"| {' | '.join(key)} | {len(found)} | {' | '.join(cells)} | {seconds:.0f} |")
    e0 = {row["subset"]: row["e0"] for row in results}
    lines += [f"| {name} | E0 only | | | {row[ENERGY]:.1f} | {row[FORCES]:.1f} | |" for name, row in e0.items()]
    return "\n".join(lines)


def gains(results):
    """What joint distillation changes over Hessian rows alone, seed by seed; less is better."""
    lines = ["| subset | student | joint over Hessian | energy MAE | force MAE |", "|---|---|---|---|---|"]
    by = {(row["subset"], row["student"], row["mode"], row["seed"]): row for row in results}
    for mode in [mode for mode in MODES if mode.startswith("joint")]:
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
