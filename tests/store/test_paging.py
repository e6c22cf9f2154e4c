"""Records cut over pages come back whole, and the pages are full."""

import lmdb
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlipdb.store.paging import PAGE_ROOM, join, lay_out


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=30))
def test_records_of_any_size_come_back(sizes):
    rng = np.random.default_rng(sum(sizes))
    records = [(number.to_bytes(8), b"Ml" + rng.bytes(size)) for number, size in enumerate(sizes)]
    items = dict(lay_out(records))
    assert [join(key, items[key], items.get) for key, _ in records] == [data for _, data in records]


@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=30))
def test_items_come_in_ascending_order_as_append_mode_needs(sizes):
    keys = [key for key, _ in lay_out([(n.to_bytes(8), b"Ml" + bytes(size)) for n, size in enumerate(sizes)])]
    assert keys == sorted(set(keys))


def test_leaf_pages_are_nearly_full_for_records_of_mixed_size(tmp_path):
    rng = np.random.default_rng(1)
    records = [(n.to_bytes(8), b"Ml" + rng.bytes(int(size))) for n, size in enumerate(rng.lognormal(6.3, 0.8, 2000))]
    with lmdb.open(str(tmp_path / "x"), subdir=False, map_size=1 << 26, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for key, data in lay_out(records):
                transaction.put(key, data, append=True)
        stat = environment.stat()
    stored = sum(len(data) for _, data in records)
    assert stored / (PAGE_ROOM * (stat["leaf_pages"] + stat["overflow_pages"])) > 0.93
