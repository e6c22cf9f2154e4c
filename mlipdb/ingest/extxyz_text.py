"""Extended XYZ as text: cut a stream into frames, the comment line into keys, the rows into columns. No meaning yet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

import numpy as np
from jaxtyping import Float64

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.stream import ByteStream
from mlipdb.ingest.text_lines import line_reader

_PAIR = re.compile(
    r"""\s*(?P<key>"(?:[^"\\]|\\.)*"|[^\s="]+)"""
    r"""(?:\s*=\s*(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{[^{}]*\}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]|[^\s"'{\[]\S*|))?"""
)
_ESCAPE = re.compile(r"\\(.)")
PLAIN_COLUMNS = "species:S:1:pos:R:3"  # what a file without Properties holds


class FrameError(MlipdbError):
    """One frame does not make sense; the file goes on behind it."""


@dataclass(frozen=True, slots=True)
class RawFrame:
    """One frame as text. info holds the comment line's pairs (a key without a value is ``T``); index counts from 0."""

    index: int
    natoms: int
    info: dict[str, str]
    rows: list[bytes]
    whole_last_line: bool

    def columns(self) -> dict[str, list[list[bytes]]]:
        """Column blocks by name, each a list of token lists, one per number of the block.

        Raises FrameError when rows and Properties disagree.
        """
        layout = _layout(self.info.get("Properties", PLAIN_COLUMNS))
        width = sum(count for _, count in layout)
        tokens = b" ".join(self.rows).split()
        if len(tokens) != width * self.natoms or (len(self.rows) > 1 and len(self.rows[0].split()) != width):
            self._bad_row(width)
        blocks, start = {}, 0
        for name, count in layout:
            blocks[name] = [tokens[start + item :: width] for item in range(count)]
            start += count
        return blocks

    def _bad_row(self, width: int) -> NoReturn:
        for number, row in enumerate(self.rows):
            if len(row.split()) != width:
                shown = row.decode(errors="replace").strip()
                raise FrameError(
                    f"atom row {number} has {len(row.split())} columns, Properties say {width}: {shown[:80]!r}"
                )
        raise FrameError(f"rows do not have the {width} columns that Properties say")


def raw_frames(stream: ByteStream) -> Iterator[RawFrame]:
    """Yield frames one at a time.

    Raises IngestError with the line and byte where the file ends inside a frame or where no frame starts, after every
    frame before it.
    """
    lines = line_reader(stream)
    line, offset, index = 1, 0, 0
    while first := lines.readline():
        if not first.strip():
            if lines.read().strip():
                raise _error(stream, line, offset, "an empty line where the number of atoms should stand")
            return
        natoms = _natoms(stream, first, line=line, offset=offset)
        comment = lines.readline()
        rows = list(islice(lines, natoms))
        if len(rows) < natoms or not comment.endswith(b"\n"):
            raise _error(
                stream, line, offset, f"the file ends inside frame {index} ({len(rows)} of {natoms} atom rows)"
            )
        frame = RawFrame(index, natoms, _pairs(comment), rows, not rows or rows[-1].endswith(b"\n"))
        if not frame.whole_last_line and _looks_cut(rows):
            raise _error(stream, line, offset, f"the file ends inside the last row of frame {index}")
        yield frame
        line += natoms + 2
        offset += len(first) + len(comment) + sum(map(len, rows))
        index += 1


def _error(stream: ByteStream, line: int, offset: int, problem: str) -> IngestError:
    return IngestError(
        f"{stream.path}: line {line} (byte {offset}): {problem}. The file is cut or damaged; frames before this line "
        "are kept: mend or fetch the file again and repeat the command, which skips what it has"
    )


def _natoms(stream: ByteStream, first: bytes, *, line: int, offset: int) -> int:
    try:
        natoms = int(first)
    except ValueError:
        natoms = -1
    if natoms < 0:
        shown = first[:60].decode(errors="replace").strip()
        raise _error(stream, line, offset, f"expected the number of atoms of a frame, found {shown!r}")
    return natoms


def _looks_cut(rows: list[bytes]) -> bool:
    """Whether the last number of a file without a final newline has fewer decimals than the rest of its column."""
    tails = [len(row.split()[-1].rpartition(b".")[2]) if row.split() else 0 for row in rows]
    widths = {len(row.split()) for row in rows}
    return len(widths) > 1 or (len(rows) > 1 and tails[-1] < min(tails[:-1]))


def _pairs(comment: bytes) -> dict[str, str]:
    """The comment line as key and value texts, quotes and escapes removed."""
    text = comment.decode(errors="replace").strip()
    pairs: dict[str, str] = {}
    place = 0
    while place < len(text) and (match := _PAIR.match(text, place)):
        key, value = _bare(match["key"]), match["value"]
        name = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}.get(key.lower(), key)
        pairs[name] = "T" if value is None else _bare(value)
        place = match.end()
    return pairs


def _bare(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return _ESCAPE.sub(r"\1", text[1:-1]) if "\\" in text else text[1:-1]
    if text[:1] == "{" and text[-1:] == "}":
        return text[1:-1]
    return text


def _layout(properties: str) -> list[tuple[str, int]]:
    """Names and widths of the column blocks."""
    parts = properties.split(":")
    if len(parts) % 3:
        raise FrameError(f"Properties={properties!r} is not name:type:count repeated")
    try:
        return [(parts[i], int(parts[i + 2])) for i in range(0, len(parts), 3)]
    except ValueError as error:
        raise FrameError(f"Properties={properties!r}: a count is not a number") from error


def floats(tokens: list[bytes], name: str) -> Float64[np.ndarray, " numbers"]:
    """Tokens as float64; FrameError that names the first that is no number."""
    try:
        return np.array([float(token) for token in tokens], dtype=np.float64)
    except ValueError as error:
        raise FrameError(f"{name}: {error}") from error
