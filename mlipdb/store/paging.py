"""Records cut so that LMDB's leaf pages are full: otherwise a fifth of a shard is air.

A record that does not fit into what is left of its page is cut; the first piece says how many follow under longer keys.
Very large records are left whole: LMDB gives them pages of their own.
"""

from collections.abc import Callable, Iterable, Iterator

PAGE_ROOM = 4096 - 16  # a page less its header
NODE = 8 + 2  # a node's header and its pointer
LARGEST_NODE = PAGE_ROOM // 2 - 2  # beyond this LMDB moves a value to pages of its own
WHOLE = 16 * 1024  # from here on, those pages waste less than cutting costs
WORTH = 64  # a smaller first piece is not worth its node
CUT = b"Mp"


def lay_out(records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """LMDB items for (key, record) pairs in ascending order, to be put in append mode."""
    room = PAGE_ROOM
    for key, data in records:
        if len(data) >= WHOLE:
            room = _after(room, _node(len(key), 8))
            yield key, data
            continue
        if _node(len(key), len(data)) > min(room, LARGEST_NODE + 2):
            for item in _cut(key, data, room):
                room = _after(room, _node(len(item[0]), len(item[1])))
                yield item
            continue
        room -= _node(len(key), len(data))
        yield key, data


def _node(key: int, data: int) -> int:
    """Bytes that an item takes in a page; LMDB rounds to even."""
    return NODE + key + data + (key + data) % 2


def _after(room: int, node: int) -> int:
    """What is left of the page after a node that may have needed the next page."""
    return room - node if node <= room else PAGE_ROOM - node


def _cut(key: bytes, data: bytes, room: int) -> list[tuple[bytes, bytes]]:
    """The pieces of a record: the first fills the page's rest, the others the pages after it."""
    first = min(room, LARGEST_NODE + 2) - NODE - len(key) - len(CUT) - 2
    if first < WORTH:
        if _node(len(key), len(data)) <= LARGEST_NODE + 2:
            return [(key, data)]
        first = LARGEST_NODE - 8 - len(key) - len(CUT) - 2
    size = LARGEST_NODE - 8 - len(key) - 2
    rest = [data[start : start + size] for start in range(first, len(data), size)]
    pieces = [(key + bytes([number]), piece) for number, piece in enumerate(rest, start=1)]
    return [(key, CUT + bytes([len(rest)]) + data[:first]), *pieces]


def join(key: bytes, head: bytes, get: Callable[[bytes], bytes | None]) -> bytes:
    """The record whose first item is head; get reads the others. Its CRC finds a missing piece."""
    if head[:2] != CUT:
        return head
    data = head[3:]
    for number in range(1, head[2] + 1):
        data += get(key + bytes([number])) or b""
    return data
