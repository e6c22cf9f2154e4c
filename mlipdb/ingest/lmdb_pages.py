"""An LMDB file read page by page: every offset is checked, so a cut or damaged file is an error and not a crash.

LMDB's own library maps the file and trusts it; a file of strangers that ends early kills the process with a bus error.
Layout: data format 1 of LMDB 0.9 (mdb.c: MDB_page, MDB_node, MDB_meta), 64-bit, little-endian.
"""

import os
import struct
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType

from mlipdb.errors import IngestError

MAGIC = b"\xde\xc0\xef\xbe"
_META = struct.Struct("<4sIQQ IHHQQQQQ IHHQQQQQ QQ")  # magic, version, address, map size, two trees, last page, txn
_PAGE = struct.Struct("<QHHHH")  # page number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # low and high half of a size (or page number), flags, key size
_HEADER = 16
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_ELSEWHERE = 1  # node flag: the value lies on overflow pages
_NO_ROOT = 2**64 - 1
_DEPTH = 32  # LMDB's own limit
_LEAVES = 64  # leaf pages whose nodes are remembered
_NEAR = 4  # of these, the last ones that are looked at before the tree is

Place = tuple[bytes, int, int] | int  # page bytes, start and end of an inline value; or its overflow page
Leaf = dict[bytes, tuple[Place, int]]


def is_lmdb(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an LMDB file."""
    return head[_HEADER : _HEADER + 4] == MAGIC


class LmdbFile:
    """Read-only access to the main tree of a single-file LMDB environment; takes no lock and maps nothing.

    Raises IngestError that names the file where it is shorter than it says, or its pages do not make a tree.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        try:
            self._open()
        except BaseException:
            os.close(self._file)
            raise

    def _open(self) -> None:
        self._size = os.fstat(self._file).st_size
        self._page_size, self._root, self.entries = self._newest_meta()
        self._leaves: OrderedDict[int, Leaf] = OrderedDict()
        self._branches: dict[int, list[tuple[bytes, int]]] = {}

    def __enter__(self) -> "LmdbFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None where there is none."""
        for leaf in islice(reversed(self._leaves.values()), _NEAR):
            if key in leaf:
                return self._value(leaf[key])
        found = self._leaf(self._find(key)).get(key) if self._root != _NO_ROOT else None
        return None if found is None else self._value(found)

    def keys(self) -> Iterator[bytes]:
        """All keys in LMDB's order."""
        if self._root != _NO_ROOT:
            yield from self._walk(self._root, 0)

    def _walk(self, page: int, depth: int) -> Iterator[bytes]:
        if self._is_branch(page, depth):
            for _, child in self._branch(page):
                yield from self._walk(child, depth + 1)
        else:
            yield from self._leaf(page)

    def _find(self, key: bytes) -> int:
        """The leaf page that holds a key if any does."""
        page, depth = self._root, 0
        while self._is_branch(page, depth):
            children = self._branch(page)
            low, high = 0, len(children)  # the first child's key counts as smaller than every key
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if children[middle][0] <= key else (low, middle)
            page, depth = children[low][1], depth + 1
        return page

    def _is_branch(self, page: int, depth: int) -> bool:
        if page in self._leaves:
            return False
        if page in self._branches:
            return depth <= _DEPTH or self._broken(page, "is part of a loop")
        flags = _PAGE.unpack_from(self._page(page))[2]
        if depth > _DEPTH or not flags & (_BRANCH | _LEAF):
            self._broken(page, "is neither a branch nor a leaf of a tree")
        return bool(flags & _BRANCH)

    def _branch(self, number: int) -> list[tuple[bytes, int]]:
        if number not in self._branches:
            page = self._page(number)
            children = []
            for start in self._nodes(number, page):
                low, high, top, size = _NODE.unpack_from(page, start)
                children.append((page[start + 8 : start + 8 + size], low | high << 16 | top << 32))
            if not children:
                self._broken(number, "has no children")
            self._branches[number] = children
        return self._branches[number]

    def _leaf(self, number: int) -> Leaf:
        if number in self._leaves:
            return self._leaves[number]
        page, leaf = self._page(number), {}
        nodes = self._nodes(number, page)
        for start in nodes:
            low, high, flags, size = _NODE.unpack_from(page, start)
            begin, length = start + 8 + size, low | high << 16
            if flags & ~_ELSEWHERE:
                self._broken(number, f"holds a node with flags {flags}, which one plain tree does not have")
            if begin + (8 if flags else length) > len(page):
                self._broken(number, "holds a node that reaches beyond its page")
            place = int.from_bytes(page[begin : begin + 8], "little") if flags else (page, begin, begin + length)
            leaf[page[start + 8 : begin]] = (place, length)
        keys = list(leaf)
        if len(keys) != len(nodes) or keys != sorted(keys):  # a damaged key would give one row's value to another
            self._broken(number, "has keys that are not in order")
        self._leaves[number] = leaf
        if len(self._leaves) > _LEAVES:
            self._leaves.popitem(last=False)
        return leaf

    def _value(self, found: tuple[Place, int]) -> bytes:
        place, length = found
        if isinstance(place, tuple):
            page, begin, end = place
            return page[begin:end]
        whole = place * self._page_size + _HEADER + length <= self._size
        data = os.pread(self._file, _HEADER + length, place * self._page_size) if whole else b""
        if len(data) != _HEADER + length or not _PAGE.unpack_from(data)[2] & _OVERFLOW:
            self._broken(place, f"does not hold the value of {length} bytes that a leaf says is there")
        return data[_HEADER:]

    def _nodes(self, number: int, page: bytes) -> tuple[int, ...]:
        """Where the nodes of a page start."""
        _, _, _, lower, _ = _PAGE.unpack_from(page)
        count = (lower - _HEADER) // 2
        if not 0 <= count <= (len(page) - _HEADER) // 2:
            self._broken(number, f"says that it holds {count} nodes")
        starts = struct.unpack_from(f"<{count}H", page, _HEADER)
        if starts and not (min(starts) >= lower and max(starts) + 8 <= len(page)):
            self._broken(number, "points outside itself")
        return starts

    def _page(self, number: int) -> bytes:
        page = os.pread(self._file, self._page_size, number * self._page_size) if number < self._pages else b""
        if len(page) != self._page_size or _PAGE.unpack_from(page)[0] != number:
            self._broken(number, "is not there, or is another page")
        return page

    def _newest_meta(self) -> tuple[int, int, int]:
        """Page size, root page and entries of the last finished transaction."""
        head = os.pread(self._file, 2 * 65536 + 256, 0)
        if not is_lmdb(head) or len(head) < _HEADER + _META.size:
            raise IngestError(f"{self.path}: this is no LMDB file, or it was cut; fetch it again, or check the path")
        first = _META.unpack_from(head, _HEADER)
        size = first[4]
        if first[1] != 1 or size not in (2**power for power in range(9, 17)):
            raise IngestError(
                f"{self.path}: LMDB data format {first[1]} with pages of {size} bytes; only format 1 (LMDB 0.9) can "
                "be read. Copy it with LMDB 0.9 (mdb_copy), or fetch it again if it was cut"
            )
        metas = [first]
        if len(head) >= size + _HEADER + _META.size and head[size + _HEADER :][:4] == MAGIC:
            metas.append(_META.unpack_from(head, size + _HEADER))
        newest = max(metas, key=lambda meta: int(meta[-1]))
        self._pages = newest[-2] + 1
        if self._size < self._pages * size:
            raise IngestError(
                f"{self.path}: the file has {self._size} bytes and its header says {self._pages * size}; it was cut. "
                "Fetch or copy it again"
            )
        return size, newest[19], newest[18]

    def _broken(self, page: int, what: str) -> bool:
        raise IngestError(f"{self.path}: page {page} {what}; the file is damaged: fetch or copy it again")
