"""Edges and triplets of each structure of a part, kept beside the catalog: what takes longest to find before a step."""

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import vesin
from jaxtyping import Int64, UInt32

from mlipdb.database import Database
from mlipdb.structures import Structure
from mlipdb.trainers.archive import sync
from mlipdb.trainers.graph import GraphNeeds

VERSION = 1  # of how edges are counted; a change of any number raises it


@dataclass(frozen=True, eq=False, kw_only=True)
class Counts:
    """Edges and triplets (None where they are not counted) of structures, in order, with a checksum of each."""

    edges: Int64[np.ndarray, " structures"]
    triplets: Int64[np.ndarray, " structures"] | None
    checks: UInt32[np.ndarray, " structures"]


def check(structure: Structure) -> int:
    """A checksum of all that edges follow from."""
    return crc32(structure.content_hash)


def counts_file(db: Database, ids: Int64[np.ndarray, " structures"], *, cutoff: float, needs: GraphNeeds) -> Path:
    """Where the counts of these structures are kept, for edges within the cutoff (Å) that a model needs so."""
    words = f"v{VERSION} vesin {vesin.__version__} cutoff={cutoff!r} {needs}"
    name = hashlib.sha256(words.encode() + ids.astype(np.int64).tobytes()).hexdigest()[:32]
    return db.path / "counts" / f"{name}.npz"


def read_counts(file: Path, *, structures: int) -> Counts | None:
    """What is kept; None where nothing is, or the file is damaged: it is made again."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            edges, triplets, checks = (arrays[name] for name in ("edges", "triplets", "checks"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if not len(edges) == len(checks) == structures or len(triplets) not in (0, structures):
        return None
    return Counts(edges=edges, triplets=triplets if len(triplets) else None, checks=checks)


def keep_counts(file: Path, counts: Counts) -> None:
    """Keep them, at once or not at all. A disk that takes nothing only means that they are counted again."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    triplets = np.zeros(0, np.int64) if counts.triplets is None else counts.triplets
    try:
        file.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as stream:
            np.savez(stream, edges=counts.edges, triplets=triplets, checks=counts.checks)
        sync(temporary)
        temporary.replace(file)
    except OSError:
        return
