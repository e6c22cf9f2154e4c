"""Cut the items out of JSON lists, top-level or under the keys of a top-level object, holding one item at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlipdb.ingest.json_records import _Window
from mlipdb.ingest.stream import ByteStream


@dataclass(frozen=True, slots=True)
class JsonItem:
    """One item: the key of its list ("" at the top), its place in the list, its first plain byte, and its value.

    index is None for a value under a key that is no list.
    """

    group: str
    index: int | None
    offset: int
    value: Any


def json_items(stream: ByteStream) -> Iterator[JsonItem]:
    """Yield the items of a file [item, …] or {key: [item, …], …} in file order.

    Memory holds a few megabytes and the current item. Raises IngestError with the byte where the file stops being JSON
    of that shape, after every item before it.
    """
    window = _Window(stream)
    if window.peek() == b"[":
        yield from _list(window, "")
    else:
        window.expect(b"{", "or '[', the start of the file")
        yield from _members(window)
    window.expect_end()


def json_documents(stream: ByteStream) -> Iterator[JsonItem]:
    """Yield the items of a file [item, …], or the values of a file that holds one or several after one another.

    The second is the layout of one document a file, and of JSON lines. Raises IngestError like json_items.
    """
    window = _Window(stream)
    if window.peek() == b"[":
        yield from _list(window, "")
        window.expect_end()
        return
    index = 0
    while index == 0 or window.peek():
        offset, value = window.value(f"document {index}")
        yield JsonItem("", index, offset, value)
        index += 1


def _members(window: _Window) -> Iterator[JsonItem]:
    while (group := window.next_key()) is not None:
        if window.peek() == b"[":
            yield from _list(window, group)
        else:
            offset, value = window.value(group)
            yield JsonItem(group, None, offset, value)


def _list(window: _Window, group: str) -> Iterator[JsonItem]:
    window.expect(b"[", "a list")
    if window.peek() == b"]":
        window.expect(b"]", "the end of the list")
        return
    index = 0
    while True:
        offset, value = window.value(group)
        yield JsonItem(group, index, offset, value)
        index += 1
        if window.peek() == b"]":
            window.expect(b"]", "the end of the list")
            return
        window.expect(b",", f"or ']' behind item {index - 1} of the list")
