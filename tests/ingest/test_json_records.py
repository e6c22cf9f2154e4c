import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipdb.ingest.json_records import json_records

TEXT = st.text(st.sampled_from('ab{}[]",:\\ \n\u00e9\u4e2d\U0001f600'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FILES = st.dictionaries(TEXT, st.dictionaries(TEXT, VALUES, max_size=4), max_size=4)
KEEP_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


@KEEP_FOLDER
@given(FILES, st.sampled_from([None, 2]), st.sampled_from([3, 17, 1 << 20]), st.booleans(), st.integers(1, 50))
def test_records_are_those_that_json_itself_gives(cut_json, content, indent, chunk, ascii_only, suspicious):
    data = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode()
    found, error = cut_json(data, json_records, chunk=chunk, suspicious=suspicious)
    assert error is None
    expected = [(group, key, value) for group, members in content.items() for key, value in members.items()]
    assert [(item.group, item.key, item.value) for item in found] == expected
    for item in found:
        start = data[item.offset :].decode()
        assert json.JSONDecoder().raw_decode(start)[0] == item.value


def test_a_group_that_is_no_object_is_one_record_without_a_key(cut_json):
    found, error = cut_json(b'{"a": null, "b": [1, {"c": "}"}], "d": {"e": {}}}', json_records)
    assert error is None
    assert [(item.group, item.key, item.value) for item in found] == [
        ("a", "", None),
        ("b", "", [1, {"c": "}"}]),
        ("d", "e", {}),
    ]


def test_not_a_number_is_left_for_the_reader_to_judge(cut_json):
    found, error = cut_json(b'{"a": {"b": {"x": NaN}, "c": {"y": 1}}}', json_records)
    assert error is None
    assert found[0].value["x"] != found[0].value["x"]
    assert found[1].value == {"y": 1}


@pytest.mark.parametrize(
    ("data", "byte", "before"),
    [
        (b'{"a":{"b":{"x":1},"c":{"x":2}  "d":{}}}', 31, 2),  # no comma
        (b'{"a":{"b":{"x":1},"c":{"x" 2}}}', 27, 1),  # no colon inside a record
        (b'{"a":{"b":{"x":1}}} trailing', 20, 1),
        (b'[{"a":1}]', 0, 0),
        (b"", 0, 0),
        (b'{"a":{"b":{"x":1},c:{}}}', 18, 1),
    ],
)
def test_damage_is_reported_at_its_byte_after_the_records_before_it(cut_json, data, byte, before):
    found, error = cut_json(data, json_records)
    assert len(found) == before
    assert f"byte {byte}:" in error


def test_nesting_without_end_is_damage(cut_json):
    found, error = cut_json(b'{"a":{"b":1,"c":' + b"[" * 5000 + b"]" * 5000 + b"}}", json_records)
    assert len(found) == 1
    assert "byte 16: lists or objects nested too deeply" in error
