"""vasprun.xml as a stream of elements: the settings first, then one ionic step at a time. No meaning yet."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import NoReturn

from mlipdb.errors import IngestError
from mlipdb.ingest.stream import ByteStream

CHUNK = 1 << 18
# Children of <modeling> that are wanted whole; everything else is passed over without being kept.
KEPT = frozenset(("generator", "incar", "parameters", "atominfo", "calculation"))
# Inside them, what may be huge and is not wanted.
SKIPPED = frozenset(("dos", "projected", "dielectricfunction", "dynmat", "born_charges", "density", "eigenvelocities"))


def elements(stream: ByteStream) -> Iterator[ET.Element]:
    """Yield the kept children of <modeling> as they end; memory holds one of them.

    Raises IngestError with the line where the file is cut, damaged or no vasprun.xml, after every element before it.
    """
    target = _Target()
    parser = ET.XMLParser(target=target)
    try:
        while data := stream.read(CHUNK):
            _feed(parser, data, stream)
            yield from target.take()
        parser.close()
    except ET.ParseError as error:
        yield from target.take()
        _raise(stream, error)
    except _Foreign as error:
        raise IngestError(f"{stream.path}: line 1: {error}; expected VASP's vasprun.xml") from error
    yield from target.take()


def _feed(parser: ET.XMLParser, data: bytes, stream: ByteStream) -> None:
    try:
        parser.feed(data)
    except (LookupError, ValueError) as error:  # of the codec that the file's first line names
        raise IngestError(
            f"{stream.path}: line 1: the XML's encoding cannot be read ({error}); VASP writes ISO-8859-1: the file is "
            "damaged, fetch it again"
        ) from error


def _raise(stream: ByteStream, error: ET.ParseError) -> NoReturn:
    line, column = error.position
    what = str(error).partition(":")[0]
    raise IngestError(
        f"{stream.path}: line {line}, column {column}: {what}. The run was stopped or the file is cut; the ionic steps "
        "before this line are kept: let the run end or fetch the file again and repeat the command, which skips what "
        "it has"
    ) from error


class _Foreign(Exception):
    """XML that is not vasprun.xml."""


class _Target:
    """Builds elements for the parser, skipping what is not wanted as it goes by."""

    def __init__(self) -> None:
        self._done: list[ET.Element] = []
        self._depth = 0
        self._skip = 0  # depth of the element that is being skipped, 0 for none
        self._builder: ET.TreeBuilder | None = None

    def take(self) -> list[ET.Element]:
        done, self._done = self._done, []
        return done

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1 and tag != "modeling":
            raise _Foreign(f"the file's first element is <{tag[:40]}>")
        if self._skip:
            return
        if self._depth == 2:
            self._builder = ET.TreeBuilder() if tag in KEPT else None
        if tag in SKIPPED or (self._depth == 2 and self._builder is None):
            self._skip = self._depth
        elif self._builder is not None:
            self._builder.start(tag, attributes)

    def end(self, tag: str) -> None:
        if not self._skip and self._builder is not None and self._depth > 1:
            self._builder.end(tag)
            if self._depth == 2:
                self._done.append(self._builder.close())
                self._builder = None
        if self._skip == self._depth:
            self._skip = 0
        self._depth -= 1

    def data(self, text: str) -> None:
        if not self._skip and self._builder is not None:
            self._builder.data(text)

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise _Foreign("the file declares a document type, which may hide anything")

    def close(self) -> None:
        """Nothing to hand over: elements were taken on the way."""
