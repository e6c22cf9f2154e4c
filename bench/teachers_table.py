"""Teachers against DFT on 1,000 MPtrj and 1,000 Alexandria structures, before and after alignment, as markdown.

    python bench/teachers_table.py DATA --teacher nequix-mp-1,weights=FILE.nqx --teacher chgnet,python=PYTHON
                                   [--keep DB] [--structures 1000]

DATA holds mptrj-random-1k.xyz and alexandria-random-1k.xyz.gz of microsoft/mattersim's benchmarks (uncorrected PBE(+U)
energies). After the name of a teacher come weights=PATH, python=PATH (the interpreter of another environment), dtype=,
device=, trust (for weights that run code), each after a comma. A teacher that cannot run here is a line with the
reason. With --keep the database stays, and what it has is not labelled again.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

import mlipdb
from mlipdb.errors import MlipdbError
from mlipdb.ingest import IngestSettings, ingest, parse_method
from mlipdb.labelling import TeacherOptions, label, load_teacher
from mlipdb.labelling.comparison import compare_labels
from mlipdb.units import convert

FILES = {"MPtrj": "mptrj-random-1k.xyz", "Alexandria": "alexandria-random-1k.xyz.gz"}
UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
HEADS = (
    "teacher", "set", "structures", "E as stored, MAE", "E aligned, MAE", "E aligned, RMS", "F, MAE", "F, RMS",
    "F, slope", "stress, MAE", "stress, slope", "verdicts other than good", "structures/s",
)  # fmt: skip
UNITS_LINE = ("", "", "of DFT", "meV/atom", "meV/atom", "meV/atom", "meV/Å", "meV/Å", "", "GPa", "", "", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--teacher", action="append", required=True, metavar="NAME[,KEY=VALUE…]")
    parser.add_argument("--structures", type=int, default=1000, help="of each set, the first so many")
    parser.add_argument("--keep", type=Path, help="the database, which then stays")
    chosen = parser.parse_args()
    with contextlib.ExitStack() as stack:
        path = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "db"
        db = mlipdb.create(path)
        stack.callback(db.close)
        ids = {name: filled(db, chosen.data / file, name, count=chosen.structures) for name, file in FILES.items()}
        print(row(HEADS), row(["---"] * len(HEADS)), row(UNITS_LINE), sep="\n", flush=True)
        for text in chosen.teacher:
            for line in lines_of(db, text, ids, count=chosen.structures):
                print(row(line), flush=True)
    return 0


def filled(db, file, name, *, count):
    """The ids of a set, which is ingested first where it is not there."""
    settings = IngestSettings(
        reader="extxyz", name=name, method=parse_method("PBE/VASP"), units=UNITS, symprec=None, workers=0
    )
    report = ingest(db, [file], settings=settings)
    ids = db.query(f'_mlipdb_source="{name}"').ids[:count]
    print(f"{name}: {report.structures} structures, {report.quarantined} quarantined", file=sys.stderr)
    return ids


def lines_of(db, text, ids, *, count):
    name, options = parsed(text)
    try:
        teacher = load_teacher(name, options)
        for part, chosen in ids.items():
            begun = time.perf_counter()
            report = label(db, teacher, ids=chosen)
            seconds = time.perf_counter() - begun
            yield line(db, name, part, report, count=count, rate=report.labelled / seconds)
    except (MlipdbError, ImportError, OSError) as error:
        yield [name, "–", f"did not run: {str(error).splitlines()[0]}", *[""] * (len(HEADS) - 3)]


def parsed(text):
    """A teacher's name and its options."""
    name, *words = text.split(",")
    given = dict(word.partition("=")[::2] for word in words)
    unknown = set(given) - {"weights", "python", "dtype", "device", "trust"}
    if unknown:
        sys.exit(f"{text!r}: {sorted(unknown)} unknown; known are weights=, python=, dtype=, device= and trust")
    options = TeacherOptions(
        weights=Path(given["weights"]) if "weights" in given else None,
        worker_python=Path(given["python"]) if "python" in given else None,
        dtype=given.get("dtype"),
        device=given.get("device"),
        trust_weights="trust" in given,
    )
    return name, options


def line(db, name, part, report, *, count, rate):
    """A row of the table, from the comparison of a method with the labels that came with a set."""
    chosen = f'_mlipdb_source="{part}"'
    found = compare_labels(db, "source", str(report.method_id), filter=chosen, sample=count)
    by_name = {each.quantity: each for each in found.lines}
    stored, aligned = by_name["energy as stored"], by_name["energy, aligned by element"]
    forces, stress = by_name["forces"], by_name.get("stress")
    others = [f"{each.quantity}: {each.verdict}" for each in found.lines if each.verdict != "good"]
    left_out = f" ({report.failed} failed)" if report.failed else ""
    return [
        name, part, f"{found.sampled}{left_out}", *(milli(e) for e in (stored.mae, aligned.mae, aligned.rmse)),
        milli(forces.mae), milli(forces.rmse), number(forces.slope, 3),
        "" if stress is None else number(stress.mae / convert(1.0, "GPa"), 2), number(stress and stress.slope, 3),
        "; ".join(others) or "none", f"{rate:.1f}" if report.labelled else "stored before",
    ]  # fmt: skip


def milli(value):
    return number(None if value is None else 1e3 * value, 1)


def number(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def row(cells):
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
