"""Cut the records out of a JSON file of the shape {group: {key: record}} without parsing or holding the whole of it."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from jaxtyping import Bool, Int64, UInt8

from mlipdb.errors import IngestError
from mlipdb.ingest.stream import ByteStream

CHUNK = 1 << 18  # bytes read at a time; twice as many cost more, since their arrays leave the cache
# A record that does not end within this many bytes is searched token by token, which looks at each byte once.
SUSPICIOUS = 64 << 20
MOST_DIGITS = 400  # of a whole number; the largest float has 309

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]"]', re.DOTALL)  # a lone quote opens a string that is not all here
# The usual way to a record: a comma but for the first one, a key of plain ASCII, a colon.
_FIRST_KEY = re.compile(rb'[ \t\r\n]*"([^"\\\x00-\x1f\x7f-\xff]*)"[ \t\r\n]*:')
_NEXT_KEY = re.compile(rb'[ \t\r\n]*,[ \t\r\n]*"([^"\\\x00-\x1f\x7f-\xff]*)"[ \t\r\n]*:')
_SCALAR = re.compile(rb"[^ \t\r\n,}\]]+")


# Keys above a record, its first byte in the plain stream, and its bytes: a plain tuple, quick to send elsewhere.
RawRecord = tuple[str, str, int, bytes]
SizedRecord = tuple[str, str, int, int]  # the same with the number of bytes, where they can be read again


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """One record: the keys above it, its first byte in the plain stream, and its value."""

    group: str
    key: str
    offset: int
    value: Any


def json_records(stream: ByteStream) -> Iterator[JsonRecord]:
    """Yield every record of a {group: {key: record}} file in file order.

    Memory holds a few megabytes and the current record, however long the file or its lines are. A group that is not an
    object is yielded as one record with an empty key. Raises IngestError with the byte where the file stops being JSON
    of that shape, after every record before it.
    """
    for record in raw_records(stream):
        yield parse_record(record, stream.path)


def raw_records(stream: ByteStream) -> Iterator[RawRecord]:
    """Cut out the records of a file as json_records does, but leave what is inside of them to parse_record."""
    window = _Window(stream)
    window.expect(b"{", "the opening brace of the file")
    while (group := window.next_key()) is not None:
        if window.peek() != b"{":
            yield group, "", *window.raw()
            continue
        window.expect(b"{", f"the records of {group!r}")
        while (key := window.next_key()) is not None:
            yield group, key, *window.raw()
    window.expect_end()


def parse_record(record: RawRecord, path: Path) -> JsonRecord:
    """The record with its value; NaN and Infinity, which JSON lacks, are let through for the reader to judge.

    Raises IngestError with the byte of the file where the record is not valid JSON.
    """
    group, key, offset, data = record
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _parse(data, base=offset, path=path, last_key=key or group)
    return JsonRecord(group, key, offset, value)


def _parse(text: bytes, *, base: int, path: Path, last_key: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        # pos counts characters; a record is ASCII but for rare names, so bytes are counted where it is not.
        place = len(text.decode(errors="replace")[: error.pos].encode())
        raise _damaged(path, f"not valid JSON ({error.msg})", text[place:], base + place, last_key) from error
    except UnicodeDecodeError as error:
        raise _damaged(path, "not valid UTF-8", text[error.start :], base + error.start, last_key) from error
    except RecursionError as error:
        raise _damaged(path, "lists or objects nested too deeply", text, base, last_key) from error
    except ValueError:  # a whole number of thousands of digits, which Python does not make an int of
        return json.loads(text, parse_int=_whole_number)


def _whole_number(text: str) -> int | float:
    """An int, or infinity where it has so many digits that no field can mean it; readers refuse what is not finite."""
    return int(text) if len(text) <= MOST_DIGITS else float(text)


def _damaged(path: Path, problem: str, found: bytes, byte: int, last_key: str) -> IngestError:
    """An error at a byte of the plain stream; found is what stands there."""
    shown = f"found {found[:20]!r}" if found else "found the end of the file"
    after = f" (last key: {last_key!r})" if last_key else ""
    return IngestError(
        f"{path}: byte {byte}: {problem}, {shown}{after}. The file is cut or damaged; records "
        "before this byte are kept: fetch the file again and repeat the command, which skips what it has"
    )


class _Window:
    """The part of the stream that is in memory, with a cursor that walks over JSON tokens."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._data = b""
        self._base = 0  # plain byte at which _data starts
        self._at = 0  # cursor in _data
        self._ended = False
        self._first = True  # whether the cursor is just behind an opening brace
        self._last_key = ""
        self._braces = _Braces(b"")

    @property
    def path(self) -> Path:
        return self._stream.path

    def next_key(self) -> str | None:
        """The next key of the object that the cursor is in, which moves behind its colon; None at the object's end."""
        match = (_FIRST_KEY if self._first else _NEXT_KEY).match(self._data, self._at)
        if match is not None:
            self._at, self._first = match.end(), False
            self._last_key = match[1].decode()
            return self._last_key
        mark = self.peek()
        first, self._first = self._first, False
        if mark == b"}":
            self._at += 1
            return None
        if not first:
            if mark != b",":
                raise self._error("expected ',' or '}'")
            self._at += 1
        return self._key()

    def _key(self) -> str:
        """The key under the cursor and its colon, in any spelling."""
        if self.peek() != b'"':
            raise self._error("expected a key in double quotes")
        while (match := _STRING.match(self._data, self._at)) is None:
            if not self._more():
                raise self._error("the file ends inside a key")
        start, self._at = self._at, match.end()
        text = self._data[start : self._at]
        self._last_key = str(_parse(text, base=self._base + start, path=self.path, last_key=self._last_key))
        self.expect(b":", f"a colon after {self._last_key!r}")
        return self._last_key

    def raw(self) -> tuple[int, bytes]:
        """First byte and bytes of the value under the cursor, which moves behind it."""
        mark = self.peek()
        end = self._object_end() if mark == b"{" else None
        if end is None:
            end = self._exact_end(mark)
        start, self._at = self._at, end
        return self._base + start, self._data[start:end]

    def value(self, key: str) -> tuple[int, Any]:
        """First byte and content of the value under the cursor, which moves behind it."""
        offset, data = self.raw()
        return offset, parse_record(("", key, offset, data), self.path).value

    def expect(self, mark: bytes, what: str) -> None:
        """Step over one character or raise IngestError."""
        if self.peek() != mark:
            raise self._error(f"expected {mark.decode()!r}, {what}")
        self._at += 1
        self._first = mark == b"{"

    def expect_end(self) -> None:
        """Nothing but white space may follow."""
        if self.peek() != b"":
            raise self._error("expected the end of the file")

    def peek(self) -> bytes:
        """The next character that is not white space; empty at the end of the file."""
        mark = self._data[self._at : self._at + 1]
        if mark > b" ":  # the usual case; white space is smaller
            return mark
        while True:
            self._at = _SPACE.match(self._data, self._at).end()  # type: ignore[union-attr]  # matches always
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._more():
                return b""

    def _object_end(self) -> int | None:
        """End of the object under the cursor by braces alone; None when they do not close it."""
        while (end := self._braces.end_of(self._at)) is None:
            if len(self._data) - self._at > SUSPICIOUS or not self._more():
                return None
        return end

    def _exact_end(self, mark: bytes) -> int:
        """End of the value under the cursor, minding strings."""
        pattern = {b"{": _TOKEN, b"[": _TOKEN, b'"': _STRING}.get(mark, _SCALAR)
        while True:
            end = self._scan(self._at) if pattern is _TOKEN else None
            if pattern is not _TOKEN and (match := pattern.match(self._data, self._at)):
                # A number may go on in the next chunk; at the end of the file it was cut.
                end = match.end() if pattern is _STRING or match.end() < len(self._data) else None
            if end is not None:
                return end
            if not self._more():
                raise self._error("the file ends inside a record", at=len(self._data))

    def _scan(self, start: int) -> int | None:
        depth = 0
        for match in _TOKEN.finditer(self._data, start):
            mark = match[0]
            if mark == b'"':
                return None
            if mark in b"{[":
                depth += 1
            elif mark in b"}]":
                depth -= 1
                if depth == 0:
                    return match.end()
        return None

    def _more(self) -> bool:
        """Bring in more of the file, dropping what lies behind the cursor; False at its end."""
        if self._ended:
            return False
        chunk = self._stream.read(max(CHUNK, len(self._data) - self._at))
        if not chunk:
            self._ended = True
            return False
        self._data = self._data[self._at :] + chunk
        self._base += self._at
        self._at = 0
        self._braces = _Braces(self._data)
        return True

    def _error(self, problem: str, *, at: int | None = None) -> IngestError:
        place = self._at if at is None else at
        return _damaged(self.path, problem, self._data[place : place + 20], self._base + place, self._last_key)


class _Braces:
    """Where each object of a buffer, which starts outside of strings, ends; found for the whole buffer at once."""

    def __init__(self, data: bytes) -> None:
        if b"\\" in data:  # an escaped quote ends no string; places stay the same
            data = data.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
        codes = np.frombuffer(data, np.uint8)
        places = np.flatnonzero(codes >= ord("{"))  # braces, and with them a few rare characters and UTF-8 beyond ASCII
        found = codes[places]
        brace = ~_inside_strings(codes, places) & ((found == ord("{")) | (found == ord("}")))
        self._places = places[brace]
        self._opens = found[brace] == ord("{")
        self._depths = np.cumsum(np.where(self._opens, 1, -1))
        self._ends: list[dict[int, int]] = []  # by the start of an object, for each depth that was asked for

    def end_of(self, start: int) -> int | None:
        """Place behind the brace that closes the one at start, or None when it is not in the buffer."""
        for ends in self._ends:  # one depth of the file has the records
            if start in ends:
                return ends[start]
        index = int(np.searchsorted(self._places, start))
        if index == len(self._places):
            return None
        ends = self._at_depth(int(self._depths[index]))
        self._ends.append(ends)
        return ends.get(start)

    def _at_depth(self, depth: int) -> dict[int, int]:
        """Start and end of every object that lies whole in the buffer at a depth, which counts from the buffer's."""
        starts = self._places[self._opens & (self._depths == depth)]
        closing = self._places[~self._opens & (self._depths == depth - 1)]
        matching = np.searchsorted(closing, starts)
        whole = matching < len(closing)
        return dict(zip(starts[whole].tolist(), (closing[matching[whole]] + 1).tolist(), strict=True))


def _inside_strings(
    codes: UInt8[np.ndarray, " bytes"], places: Int64[np.ndarray, " some"]
) -> Bool[np.ndarray, " some"]:
    """Which places, none of them a quote, have an odd number of quotes before them."""
    if not len(places):
        return np.zeros(0, bool)
    quotes = (codes == ord('"')).view(np.uint8)
    between = np.bitwise_xor.reduceat(quotes, places)[:-1]
    first = np.bitwise_xor.reduce(quotes[: places[0]])
    return np.bitwise_xor.accumulate(np.concatenate([[first], between]).astype(np.uint8)).astype(bool)
