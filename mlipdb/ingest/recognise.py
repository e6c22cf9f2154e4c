"""Which reader a file or folder is for, by its content."""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlipdb import registry
from mlipdb.errors import ConfigError, IngestError, MissingExtraError
from mlipdb.ingest.files import entries, plain_head
from mlipdb.ingest.reader import Reader

GROUP = "mlipdb.readers"
SHOWN = 60  # bytes of an unknown file that an error shows


@dataclass(frozen=True)
class Recognised:
    """The reader of a file or folder and why it is that one, as a clause: ``it is XML of <modeling> …``."""

    reader: str
    reason: str


def recognise(path: Path) -> Recognised:
    """The one reader that claims a path. Packed files are unpacked for the look.

    Raises IngestError where no reader or more than one does; it lists what was tried and what each looks for.
    """
    if not path.exists():
        raise IngestError(f"{path}: cannot be read (No such file or directory); check the path")
    readers = _Readers()
    found = readers.claiming(path)
    if not found and path.is_dir():
        return _folder(path, readers)
    if len(found) == 1:
        return found[0]
    if found:
        reasons = "; ".join(f"{one.reader}: {one.reason}" for one in found)
        raise IngestError(f"{path}: more than one format fits ({reasons}). Name it: {_commands(path, found)}")
    start = plain_head(path, SHOWN)
    shown = f"it starts with {start!r}" if start else "it is empty, or damaged from its first byte"
    raise IngestError(f"{path}: no format is recognised; {shown}. {readers.looked_for()}")


def recognise_all(paths: Sequence[Path]) -> Recognised:
    """The one reader of several paths; IngestError where they are of several formats, which make several sources."""
    found = [recognise(path) for path in paths]
    if len({one.reader for one in found}) > 1:
        listed = "; ".join(f"{path} is {one.reader}" for path, one in zip(paths, found, strict=True))
        raise IngestError(f"the paths are of several formats ({listed}); ingest each format by a command of its own")
    return found[0]


class _Readers:
    """Every registered reader, and those that cannot be loaded with the reason."""

    def __init__(self) -> None:
        self._readers: dict[str, Reader] = {}
        self._missing: dict[str, str] = {}
        for name in registry.names(GROUP):
            try:
                self._readers[name] = registry.load(GROUP, name)()
            except (ConfigError, MissingExtraError) as error:
                self._missing[name] = str(error)

    def claiming(self, path: Path) -> list[Recognised]:
        """What each reader that knows the file or folder as its own says."""
        head = b"" if path.is_dir() else plain_head(path)
        reasons = {name: reader.claims(path, head) for name, reader in self._readers.items()}
        return [Recognised(name, reason) for name, reason in reasons.items() if reason is not None]

    def looked_for(self) -> str:
        """What each reader looks for, and which could not look."""
        wanted = "; ".join(f"{name}: {_first_line(reader)}" for name, reader in self._readers.items())
        missing = "".join(f" {name} could not be tried ({reason})." for name, reason in self._missing.items())
        return f"Tried {wanted}.{missing} If it is one of these, name it: mlipdb ingest FORMAT PATH"


def _first_line(reader: Reader) -> str:
    return (inspect.getdoc(reader.claims) or "no description").partition("\n")[0].rstrip(".")


def _folder(folder: Path, readers: _Readers) -> Recognised:
    """The one format of the files of a tree; others that no reader knows do not matter."""
    found = list(_claimed_below(folder, readers))
    counts = Counter(one.reader for _, one in found)
    if set(counts) == {"vasprun", "outcar"}:
        return _vasp_runs(folder, found, counts)
    if len(counts) == 1:
        example, one = found[0]
        count = "one file" if len(found) == 1 else f"{len(found)} files"
        return Recognised(one.reader, f"{count} of its tree; {example.relative_to(folder)}: {one.reason}")
    if not counts:
        raise IngestError(f"{folder}: no file of this folder is recognised. {readers.looked_for()}")
    listed = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
    kinds = [next(one for _, one in found if one.reader == name) for name in sorted(counts)]
    raise IngestError(
        f"{folder}: its tree holds files of several formats ({listed}). Name one: {_commands(folder, kinds)}"
    )


def _claimed_below(folder: Path, readers: _Readers) -> Iterator[tuple[Path, Recognised]]:
    for entry in entries(folder):
        claims = readers.claiming(entry)
        if len(claims) > 1:
            reasons = "; ".join(f"{one.reader}: {one.reason}" for one in claims)
            raise IngestError(f"{entry}: more than one format fits ({reasons}). Name it: {_commands(folder, claims)}")
        if claims:
            yield entry, claims[0]
        elif entry.is_dir() and not entry.is_symlink():
            yield from _claimed_below(entry, readers)


def _vasp_runs(folder: Path, found: Sequence[tuple[Path, Recognised]], counts: Counter[str]) -> Recognised:
    """Vasprun where every folder with an OUTCAR has a vasprun.xml: both tell of the same steps, vasprun.xml exactly."""
    homes = {name: {path.parent for path, one in found if one.reader == name} for name in counts}
    alone = sorted(homes["outcar"] - homes["vasprun"])
    if not alone:
        return Recognised(
            "vasprun", f"{counts['vasprun']} vasprun.xml in its tree; the OUTCARs beside them are of the same runs"
        )
    raise IngestError(
        f"{folder}: its tree holds {counts['vasprun']} vasprun.xml and {counts['outcar']} OUTCARs, and {len(alone)} "
        f"folders have an OUTCAR only (such as {alone[0].relative_to(folder)}). Ingest one kind after the other: "
        f"mlipdb ingest vasprun {folder}, then mlipdb ingest outcar on those folders"
    )


def _commands(path: Path, found: Sequence[Recognised]) -> str:
    return " or ".join(f"mlipdb ingest {one.reader} {path}" for one in found)
