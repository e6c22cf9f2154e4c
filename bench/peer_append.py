"""The peer's side of append.py; runs in an environment with ase and ase-db-backends."""

import json
import sys
import time
from pathlib import Path

import ase.db
import ase.io
from peer_random_read import frames


def write_database(path: Path, images: list) -> None:
    """All structures in one transaction, as the format's fastest way is."""
    with ase.db.connect(str(path)) as db:
        for image in images:
            db.write(image)


def main() -> None:
    images = frames(sys.argv[1])
    rates = {}
    for name, write in (("aselmdb", write_database), ("db", write_database), ("extxyz", ase.io.write)):
        path = Path(sys.argv[2]) / f"written.{name}"
        start = time.perf_counter()
        write(path, images)
        rates[name] = len(images) / (time.perf_counter() - start)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
