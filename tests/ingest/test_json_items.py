import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipdb.ingest.json_items import json_documents, json_items
from mlipdb.ingest.json_records import json_records

TEXT = st.text(st.sampled_from('ab{}[]",:\\ \n\u00e9\U0001f600'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FILES = st.lists(VALUES, max_size=5) | st.dictionaries(TEXT, st.lists(VALUES, max_size=4) | VALUES, max_size=4)
RECORDS = st.dictionaries(TEXT, st.dictionaries(TEXT, VALUES, max_size=4), max_size=4)
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


def expected(content):
    groups = {"": content} if isinstance(content, list) else content
    for group, members in groups.items():
        if isinstance(members, list):
            yield from ((group, index, value) for index, value in enumerate(members))
        else:
            yield (group, None, members)


@MANY
@given(FILES, st.sampled_from([None, 2]), st.sampled_from([3, 17, 1 << 20]))
def test_items_are_those_that_json_itself_gives(cut_json, content, indent, chunk):
    data = json.dumps(content, indent=indent).encode()
    found, error = cut_json(data, json_items, chunk=chunk)
    assert error is None
    assert [(item.group, item.index, item.value) for item in found] == list(expected(content))
    for item in found:
        assert json.JSONDecoder().raw_decode(data[item.offset :].decode())[0] == item.value


@pytest.mark.parametrize(("function", "files"), [(json_items, FILES), (json_records, RECORDS)])
@MANY
@given(st.data(), st.sampled_from([5, 1 << 20]))
def test_a_file_cut_anywhere_gives_the_whole_items_before_the_cut_and_an_error(cut_json, function, files, draw, chunk):
    data = json.dumps(draw.draw(files.filter(bool))).encode()
    whole, _ = cut_json(data, function)
    cut = draw.draw(st.integers(0, len(data) - 1))
    found, error = cut_json(data[:cut], function, chunk=chunk)
    assert "byte" in error
    assert found == whole[: len(found)]
    finished = [item for item in whole if item.offset + len(json.dumps(item.value)) <= cut - 1]
    assert len(found) >= len(finished)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('{"a": [1, 2]}', [{"a": [1, 2]}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
    ],
)
def test_documents_stand_in_a_list_alone_or_one_a_line(cut_json, text, values):
    found, error = cut_json(text.encode(), json_documents)
    assert error is None
    assert [item.value for item in found] == values


@pytest.mark.parametrize(
    ("data", "byte", "before"),
    [
        (b'[{"x":1} {"x":2}]', 9, 1),
        (b'{"a":[1,2}', 9, 1),  # a number is whole only when something follows it
        (b'[{"x":1}] [', 10, 1),
        (b'"text"', 0, 0),
        (b"", 0, 0),
    ],
)
def test_damage_is_reported_at_its_byte_after_the_items_before_it(cut_json, data, byte, before):
    found, error = cut_json(data, json_items)
    assert f"byte {byte}:" in error
    assert len(found) >= before


def test_an_empty_file_holds_no_document_and_is_an_error(cut_json):
    assert "byte 0" in cut_json(b"", json_documents)[1]
