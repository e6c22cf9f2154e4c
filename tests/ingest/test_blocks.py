"""Blocks of raw records travel light where their file can be read again."""

import gzip
import json
from multiprocessing.reduction import ForkingPickler

import pytest

from mlipdb.errors import IngestError
from mlipdb.ingest.blocks import blocks
from mlipdb.ingest.readers.mptrj import MptrjReader

TEXT = json.dumps({"mp-1": {f"mp-{number}-0-0": {"filler": "x" * 2000, "n": number} for number in range(20)}})


def sent(path):
    """The one block of a file, with what another process gets of it, and the size of that in bytes."""
    [block] = blocks(MptrjReader(), path, file=path.name, options={})
    data = bytes(ForkingPickler.dumps(block))
    return block, ForkingPickler.loads(data), len(data)


def test_a_block_of_a_plain_file_is_sent_as_places_and_read_again_where_it_arrives(tmp_path):
    path = tmp_path / "plain.json"
    path.write_text(TEXT)
    block, arrived, size = sent(path)
    assert size < 2000
    assert len(arrived) == 20
    assert arrived.location == block.location
    assert list(arrived.whole_records()) == list(block.whole_records())


def test_a_block_of_a_packed_file_takes_its_bytes_along(tmp_path):
    path = tmp_path / "packed.json.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    block, arrived, size = sent(path)
    assert size > 40_000
    path.unlink()
    assert list(arrived.whole_records()) == list(block.whole_records())


def test_a_file_that_goes_away_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "plain.json"
    path.write_text(TEXT)
    _, arrived, _ = sent(path)
    path.unlink()
    with pytest.raises(IngestError, match="cannot be read any more, before byte"):
        list(arrived.whole_records())


def test_a_file_that_changes_while_it_is_read_is_an_error_and_not_other_numbers(tmp_path):
    path = tmp_path / "plain.json"
    path.write_text(TEXT)
    _, arrived, _ = sent(path)
    path.write_text(TEXT.replace("x", "y"))
    with pytest.raises(IngestError, match="has changed while it was read, before byte"):
        list(arrived.whole_records())
