import json
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlipdb.errors import IngestError
from mlipdb.ingest import json_records as module
from mlipdb.ingest.json_records import json_records
from mlipdb.ingest.stream import ByteStream

TEXT = st.text(st.sampled_from('ab{}[]",:\\ \n\u00e9\u4e2d\U0001f600'), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FILES = st.dictionaries(TEXT, st.dictionaries(TEXT, VALUES, max_size=4), max_size=4)
KEEP_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


def read(path, data, *, chunk=1 << 20, suspicious=64 << 20):
    path.write_bytes(data)
    found = []
    with ByteStream(path) as stream, patch.multiple(module, CHUNK=chunk, SUSPICIOUS=suspicious):
        try:
            for item in json_records(stream):
                found.append(item)
        except IngestError as error:
            return found, str(error)
    return found, None


@KEEP_FOLDER
@given(FILES, st.sampled_from([None, 2]), st.sampled_from([3, 17, 1 << 20]), st.booleans(), st.integers(1, 50))
def test_records_are_those_that_json_itself_gives(tmp_path, content, indent, chunk, ascii_only, suspicious):
    data = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode()
    found, error = read(tmp_path / "f.json", data, chunk=chunk, suspicious=suspicious)
    assert error is None
    expected = [(group, key, value) for group, members in content.items() for key, value in members.items()]
    assert [(item.group, item.key, item.value) for item in found] == expected
    for item in found:
        start = data[item.offset :].decode()
        assert json.JSONDecoder().raw_decode(start)[0] == item.value


@KEEP_FOLDER
@given(FILES.filter(bool), st.data(), st.sampled_from([5, 1 << 20]))
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut_and_an_error(tmp_path, content, draw, chunk):
    data = json.dumps(content).encode()
    whole, _ = read(tmp_path / "f.json", data)
    cut = draw.draw(st.integers(0, len(data) - 1))
    found, error = read(tmp_path / "f.json", data[:cut], chunk=chunk)
    assert "byte" in error
    assert found == whole[: len(found)]
    finished = [item for item in whole if item.offset + len(json.dumps(item.value)) <= cut - 1]
    assert len(found) >= len(finished)


def test_a_group_that_is_no_object_is_one_record_without_a_key(tmp_path):
    found, error = read(tmp_path / "f.json", b'{"a": null, "b": [1, {"c": "}"}], "d": {"e": {}}}')
    assert error is None
    assert [(item.group, item.key, item.value) for item in found] == [
        ("a", "", None),
        ("b", "", [1, {"c": "}"}]),
        ("d", "e", {}),
    ]


def test_not_a_number_is_left_for_the_reader_to_judge(tmp_path):
    found, error = read(tmp_path / "f.json", b'{"a": {"b": {"x": NaN}, "c": {"y": 1}}}')
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
def test_damage_is_reported_at_its_byte_after_the_records_before_it(tmp_path, data, byte, before):
    found, error = read(tmp_path / "f.json", data)
    assert len(found) == before
    assert f"byte {byte}:" in error


def test_nesting_without_end_is_damage(tmp_path):
    found, error = read(tmp_path / "f.json", b'{"a":{"b":1,"c":' + b"[" * 5000 + b"]" * 5000 + b"}}")
    assert len(found) == 1
    assert "byte 16: lists or objects nested too deeply" in error
