"""Records whose checksum is right for whatever damaged bytes are inside, so that decoders are reached."""

import zstandard

from mlipdb.errors import CorruptError
from mlipdb.store.batch import QUANTITIES, BatchDecoder
from mlipdb.store.codec import Encoded, payloads, seal
from mlipdb.store.decode import Decoder
from mlipdb.store.dictionary import DICTIONARY
from mlipdb.store.layout import HEADER, VERSION
from mlipdb.store.record import MAGIC, Record

payload = payloads  # of (structure, label) pairs: what a damaged record is made from


def framed(identity: int, frame: bytes, *, flags: int = 7) -> bytes:
    """A record of the present format of any frame, stored under an id."""
    return seal(identity, Encoded(HEADER.pack(MAGIC, VERSION, flags) + frame))


def sealed(identity: int, raw: bytes, *, flags: int = 7) -> bytes:
    """A record of the present format of any payload, stored under an id."""
    compress = zstandard.ZstdCompressor(dict_data=DICTIONARY, write_dict_id=False).compress
    return framed(identity, compress(raw), flags=flags)


def decode(identity: int, data: bytes) -> Record | CorruptError:
    """The record, or the one error that a decoder may raise; anything else comes through."""
    try:
        return Decoder().decode(identity, data)
    except CorruptError as error:
        return error


def decode_together(ids: list[int], records: list[bytes]) -> object:
    """The records' arrays, or the one error that the decoder of many may raise; anything else comes through."""
    try:
        return BatchDecoder().decode(ids, records, QUANTITIES)
    except CorruptError as error:
        return error
