"""The Nequix weights that are known by name: where they come from, and by which hash they are known."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mlipdb.download import fetch
from mlipdb.errors import LabelError, did_you_mean

DEMONSTRATION = "nequix-demo"

# Commits that the authors' own package pins; MIT code, CC-BY-4.0 weights.
MP = "https://github.com/atomicarchitects/nequix/raw/7c2854de8e754b1a60274c7d9d2e014989ed632e/models"
OMAT = "https://github.com/atomicarchitects/nequix/raw/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models"


@dataclass(frozen=True)
class Published:
    """One published file. Without a known sha256 it is not fetched, because nothing could tell a wrong file."""

    url: str
    sha256: str | None
    functional: str = "PBE+U"


PUBLISHED = {
    "nequix-mp-1": Published(
        f"{MP}/nequix-mp-1.nqx", "1647af8e627e1afa11e2bfadeab0797326513a521afd7dd01606a96f56783eee"
    ),
    "nequix-mp-1-pft": Published(
        f"{MP}/nequix-mp-1-pft.nqx", "a88aeaed71fd447572dc57af21d469207d7737b85a6dbb66f8c38156f175c5f1"
    ),
    "nequix-mp-1-pft-nocotrain": Published(f"{MP}/nequix-mp-1-pft-nocotrain.nqx", None),
    "nequix-oam-1": Published(
        f"{OMAT}/nequix-oam-1.nqx", "6a43475eaeb32a7a049f36c1306d78aa1e7a17e8af37aeda7901c8fec0ca845c"
    ),
    "nequix-oam-1-pft": Published(f"{OMAT}/nequix-oam-1-pft.nqx", None),
    "nequix-omat-1": Published(f"{OMAT}/nequix-omat-1.nqx", None),
}


def published_name(sha256: str) -> str | None:
    """The name under which the file of this hash was published, if it was."""
    return next((name for name, item in PUBLISHED.items() if item.sha256 == sha256), None)


def known_file(name: str, *, cache: Path | None, offline: bool) -> Path:
    """The file of a name: from the package, or fetched into the cache and checked against its hash."""
    if name == DEMONSTRATION:
        path = Path(str(resources.files("mlipdb") / "data" / "nequix-demo.nqx"))
        if not path.is_file():
            raise LabelError(f"this installation has no {path.name} (expected at {path}); reinstall mlipdb")
        return path
    if name not in PUBLISHED:
        names = ", ".join([*PUBLISHED, DEMONSTRATION])
        raise LabelError(
            f"teacher {name!r} needs --weights FILE.{did_you_mean(name, PUBLISHED)} Known by name: {names}"
        )
    published = PUBLISHED[name]
    if published.sha256 is None:
        raise LabelError(
            f"the hash of {name} is not known to this mlipdb, so it is not downloaded unseen; "
            f"get it from {published.url} and give it with --weights FILE"
        )
    return fetch(published.url, sha256=published.sha256, cache=cache, offline=offline)
