"""Write tests/data/bundle_v1.mlipdb: a small bundle of the present version, kept so that later releases must take it.

    python scripts/keep_bundle.py FILE

Run it once for a new version, to a new file; never over an old one.
"""

import sys
import tempfile
from pathlib import Path

import mlipdb
from mlipdb.export import make_bundle
from mlipdb.labels import Method
from mlipdb.records import NewLabel, SymmetryTool
from mlipdb.subsets import freeze
from mlipdb.testing.samples import harmonic_label, sample_records


def main() -> None:
    """Six structures, their source's labels, a teacher's labels of half of them and a failure; split in three."""
    path = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        db = mlipdb.create(Path(scratch) / "db")
        source = db.open_source("kept", reader="none", uri="scripts/keep_bundle.py", licence="CC0")
        dft = db.method_id(Method(kind="dft", name="PBE/none", functional="PBE"))
        found = SymmetryTool("none", "1", 0.01)
        ids = db.append(sample_records(6, per_material=2), source_id=source, method_id=dft, symmetry=found)
        teacher = db.method_id(Method(kind="teacher", name="kept-teacher", weights_sha256="0" * 64, dtype="float64"))
        some = {identity: harmonic_label(db.structure(identity), seed=100 + identity) for identity in ids[:3]}
        labels = [NewLabel(structure_id=identity, part=0, label=label) for identity, label in some.items()]
        failure = NewLabel(structure_id=ids[3], part=0, label=None, reason="kept failure")
        db.append_labels([*labels, failure], method_id=teacher)
        freeze(db, "kept-subset", filter="all", fractions=(50, 25, 25))
        make_bundle(db, "kept-subset", path=path)
        db.close()


if __name__ == "__main__":
    main()
