"""Damage samples of everything that mlipdb reads, for as long as wanted, and report what is not an mlipdb error.

    python bench/fuzz.py --count 2000 --seed 0 [--only spice --only records]

Each target runs in a process of its own with bounded memory, so that a crash or an allocation without end is found and
named with the damage that made it. The same seed and count give the same damage. Exit 1 where anything was found.
"""

import argparse
import faulthandler
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import mlipdb
from mlipdb.labels import Method
from mlipdb.store.codec import Encoder
from mlipdb.testing import fuzz_records, fuzzing
from mlipdb.testing.mutations import mutated, random_mutations
from mlipdb.testing.samples import harmonic_label, rock_salt, sample_records, water

TESTS = Path(__file__).resolve().parent.parent / "tests" / "ingest"
MEMORY = 6 << 30
SLOW = 5.0  # seconds for one damaged sample of a few kilobytes


def records(_folder):
    """Calls that decode a damaged record whose checksum was made right for it, alone and beside a good one."""
    pairs = [(s, harmonic_label(s)) for s in (rock_salt(), water(), rock_salt(shift=0.01))]
    whole, good = fuzz_records.payload(pairs), Encoder().encode(8, *pairs[0])

    def one(source):
        raw, flags = mutated(source.choice(whole), random_mutations(source)), source.randrange(256)
        data = fuzz_records.sealed(7, raw, flags=flags)

        def call():
            fuzz_records.decode(7, data)
            fuzz_records.decode_together([7, 8], [data, good])

        return call, f"payload {raw.hex()}, flags {flags}"

    return one


def filters(folder):
    """Calls that ask a small database with a damaged filter."""
    db = mlipdb.create(folder / "db")
    source_id = db.open_source("sample", reader="none", uri="x")
    db.append(sample_records(6), source_id=source_id, method_id=db.method_id(Method(kind="dft", name="PBE")))
    session = db.session()
    whole = [
        'elements HAS "Y" AND nelements=3 AND space_group_it_number=221 AND _mlipdb_band_gap >= 5',
        "Y AND NOT (Pm-3m OR gap>=5.5e-1) AND Li-Fe-O AND nsites<10",
        'elements HAS ALL "Li","O" OR elements LENGTH >= 4 OR _mlipdb_source CONTAINS "a"',
    ]

    def one(source):
        text = mutated(source.choice(whole).encode(), random_mutations(source)).decode(errors="replace")
        return lambda: fuzzing.ask(session, text, subsets={"train": 1}), repr(text)

    return one


def reader(sample):
    """Calls that read a damaged copy of a sample."""

    def made(folder):
        whole = sample.file.read_bytes()

        def one(source):
            damage = random_mutations(source)
            return lambda: fuzzing.read_damaged(sample, mutated(whole, damage), folder), str(damage)

        return one

    return made


def work(name, made, seed, count, folder, log):
    """All of one target; every line of the log is a finding, the last says how far it came."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    source, one, found, slowest = random.Random(f"{seed} {name}"), made(folder), {}, 0.0
    with log.open("a", buffering=1) as file:
        for number in range(count):
            call, described = one(source)
            print(json.dumps({"at": number, "damage": described[:2000]}), file=file)
            start = time.perf_counter()
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - what is found is anything at all
                frame = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
                if what not in found:
                    print(json.dumps({"found": what, "text": str(error)[:300], "damage": described[:2000]}), file=file)
                found[what] = found.get(what, 0) + 1
            seconds = time.perf_counter() - start
            slowest = max(slowest, seconds)
            if seconds > SLOW:
                print(json.dumps({"found": f"slow: {seconds:.1f} s", "damage": described[:2000]}), file=file)
        print(json.dumps({"done": count, "counts": found, "slowest": slowest}), file=file)


def report(name, log, code):
    """Print what one target found; whether it is clean."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    findings = [line for line in lines if "found" in line]
    last = lines[-1] if lines else {}
    if "done" not in last:
        findings.append({"found": f"the process ended with {code}", "damage": last.get("damage")})
    done = last.get("done", last.get("at", 0))
    slowest = last.get("slowest", float("nan"))
    print(f"{name:24s} {done:7d} damaged, {len(findings)} kinds of findings, slowest {slowest:.2f} s")
    for finding in findings:
        print("   ", json.dumps(finding))
    return not findings


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="damaged inputs for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="records, filters, or the name of a reader; repeatable")
    arguments = parser.parse_args()
    clean = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = {"records": records, "filters": filters}
        for sample in fuzzing.samples(TESTS, folder / "samples"):
            key = sample.name if sample.name not in targets else f"{sample.name}-{len(targets)}"
            targets[key] = reader(sample)
        for key, made in targets.items():
            if arguments.only and key.split("-")[0] not in arguments.only and key not in arguments.only:
                continue
            place = folder / f"work-{key}"
            place.mkdir()
            log = place.with_suffix(".log")
            log.touch()
            settings = (key, made, arguments.seed, arguments.count, place, log)
            process = multiprocessing.get_context("fork").Process(target=work, args=settings)
            process.start()
            process.join()
            clean &= report(key, log, process.exitcode)
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    main()
