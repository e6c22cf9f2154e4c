"""Write tests/data/database_vN: a tiny database of the present format, kept so that later releases must read it.

    python scripts/keep_database.py DIR

Run it once for a new format, into a new folder; never over an old one.
"""

import sys
from pathlib import Path

import mlipdb
from mlipdb.labels import Method
from mlipdb.records import NewLabel
from mlipdb.subsets.subset import freeze
from mlipdb.testing.samples import harmonic_label, sample_records


def main() -> None:
    """Four structures, their source's labels, a teacher's labels, and a frozen subset."""
    folder = Path(sys.argv[1])
    if folder.exists():
        sys.exit(f"{folder} exists; kept data is never written again")
    db = mlipdb.create(folder)
    source = db.open_source("kept", reader="none", uri="scripts/keep_database.py")
    dft = db.method_id(Method(kind="dft", name="PBE/none", functional="PBE"))
    ids = db.append(sample_records(4), source_id=source, method_id=dft)
    db.close_source(source, state="complete")
    teacher = db.method_id(Method(kind="teacher", name="kept-teacher", weights_sha256="0" * 64, dtype="float64"))
    labels = [harmonic_label(db.structure(identity), seed=100 + identity) for identity in ids]
    parts = [NewLabel(structure_id=i, part=0, label=label) for i, label in zip(ids, labels, strict=True)]
    db.append_labels(parts, method_id=teacher)
    freeze(db, "kept-subset", filter="Li")
    db.close()


if __name__ == "__main__":
    main()
