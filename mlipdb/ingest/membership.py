"""A set of keys that answers "certainly new" or "perhaps known" from a byte or two of memory a key."""

import numpy as np
from jaxtyping import Bool, UInt8, UInt64

FIRST = 1 << 20  # keys of the first layer; each further one holds twice as many
BITS_PER_KEY = 8
HASHES = 5  # with 8 bits a key in a full layer, about one new key in fifty is called known


class Membership:
    """A Bloom filter that grows. Keys are pairs of 64-bit hashes, shape (keys, 2)."""

    def __init__(self, *, first: int = FIRST) -> None:
        self._layers: list[UInt8[np.ndarray, " bytes"]] = []
        self._next = first
        self._room = 0

    def add(self, keys: UInt64[np.ndarray, "keys 2"]) -> None:
        """Count keys as known from here on."""
        while len(keys):
            if not self._room:
                self._layers.append(np.zeros(self._next * BITS_PER_KEY // 8, dtype=np.uint8))
                self._room, self._next = self._next, self._next * 2
            now, keys = keys[: self._room], keys[self._room :]
            self._room -= len(now)
            places = _places(now, self._layers[-1])
            np.bitwise_or.at(self._layers[-1], places >> 3, _bit(places))

    def perhaps(self, keys: UInt64[np.ndarray, "keys 2"]) -> Bool[np.ndarray, " keys"]:
        """False where a key was certainly not added."""
        found = np.zeros(len(keys), dtype=bool)
        for layer in self._layers:
            places = _places(keys, layer)
            found |= (layer[places >> 3] & _bit(places) != 0).all(axis=1)
        return found


def digest_keys(digests: list[bytes]) -> UInt64[np.ndarray, "keys 2"]:
    """Keys of 16-byte digests."""
    keys: UInt64[np.ndarray, "keys 2"] = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    return keys


def text_keys(texts: list[str]) -> UInt64[np.ndarray, "keys 2"]:
    """Keys of texts, the same within one process only."""
    first = np.array([hash(text) for text in texts], dtype=np.int64).view(np.uint64)
    second = (first ^ (first >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.stack([first, second ^ (second >> np.uint64(32))], axis=1)


def _places(
    keys: UInt64[np.ndarray, "keys 2"], layer: UInt8[np.ndarray, " bytes"]
) -> UInt64[np.ndarray, "keys hashes"]:
    """The bits of each key in a layer, whose length is a power of two."""
    steps = np.arange(HASHES, dtype=np.uint64)
    places: UInt64[np.ndarray, "keys hashes"] = keys[:, :1] + steps * (keys[:, 1:] | np.uint64(1))
    places &= np.uint64(8 * len(layer) - 1)
    return places


def _bit(places: UInt64[np.ndarray, "keys hashes"]) -> UInt8[np.ndarray, "keys hashes"]:
    bits: UInt8[np.ndarray, "keys hashes"] = np.left_shift(1, places & np.uint64(7), dtype=np.uint64).astype(np.uint8)
    return bits
