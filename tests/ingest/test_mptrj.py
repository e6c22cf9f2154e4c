import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlipdb.errors import IngestError
from mlipdb.ingest.mptrj_record import typed_record
from mlipdb.ingest.reader import Frame, Rejected
from mlipdb.ingest.readers.mptrj import FrameId, MptrjReader, split_frame_id
from mlipdb.labels import Label
from mlipdb.structures import make_structure
from mlipdb.testing.readers import ReaderConformance

SAMPLE = "derived-containers/MPtrj_2022.9_sample.json.gz"


def read(path):
    return list(MptrjReader().frames(path, {}))


class TestMptrj(ReaderConformance):
    reader = MptrjReader()

    @pytest.fixture(autouse=True)
    def _record(self, record):
        self.record = record

    def sample(self, folder):
        path = folder / "sample.json"
        frames = {f"mp-1-0-{step}": self.record(shift=step / 8) for step in range(4)}
        path.write_text(json.dumps({"mp-1": frames}))
        return path

    def first_frame(self):
        structure = make_structure(
            [12, 8],
            [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]],
            cell=np.diag([4.0, 4.0, 4.0]),
            pbc=(True, True, True),
            charge=0.0,
        )
        # 1 kbar = 0.1 GPa and 1 eV/Å³ = 160.2176634 GPa; VASP prints compression as positive.
        kbar = -0.1 / 160.2176634
        label = Label(
            energy_uncorrected=-11.25,
            energy_corrected=-12.5,
            band_gap=4.5,
            forces=np.array([[0.125, -0.25, 0.5], [-0.125, 0.25, -0.5]]),
            stress=np.array([[16.0, 1.0, 0.0], [1.0, -8.0, 0.0], [0.0, 0.0, 4.0]]) * kbar,
            magmoms=np.array([0.0, 0.03125]),
            properties={
                "energy_per_atom": -6.25,
                "ef_per_atom": -3.0,
                "e_per_atom_relaxed": -6.26,
                "ef_per_atom_relaxed": -3.01,
            },
        )
        return Frame(structure=structure, label=label, external_id="mp-1-0-0", material="mp-1", location="byte 21")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mp-1234-0-17", FrameId("mp-1234", 0, 17)),
        ("mvc-15895-1-16", FrameId("mvc-15895", 1, 16)),
        ("CoF3-doc-0-0", FrameId("CoF3-doc", 0, 0)),
    ],
)
def test_a_frame_id_is_split_from_the_right(text, parts):
    assert split_frame_id(text) == parts


def test_an_unknown_number_is_kept_as_a_property(mptrj_file, record):
    (frame,) = read(mptrj_file({"mp-1": {"mp-1-0-0": record(total_magnetization=1.5, note="text", flag=True)}}))
    assert frame.label.properties["total_magnetization"] == 1.5
    assert {"note", "flag"}.isdisjoint(frame.label.properties)


def test_null_and_absent_are_none_and_zero_stays_zero(mptrj_file, record):
    (frame,) = read(
        mptrj_file({"mp-1": {"mp-1-0-0": record(bandgap=0.0, magmom=None, corrected_total_energy=..., stress=None)}})
    )
    label = frame.label
    assert (label.band_gap, label.magmoms, label.energy_corrected, label.stress) == (0.0, None, None, None)
    assert frame.structure.charge == 0.0


def test_positions_come_from_abc_only_where_xyz_is_missing(mptrj_file, record):
    fields = record(shift=0.0)
    for site in fields["structure"]["sites"]:
        del site["xyz"]
    (frame,) = read(mptrj_file({"mp-1": {"mp-1-0-0": fields}}))
    np.testing.assert_allclose(frame.structure.positions, [[0, 0, 0], [2, 2, 2]], atol=1e-12)


def broken_structure(record, **changes):
    fields = record()
    fields["structure"].update(changes)
    return fields


def mixed_site(record):
    fields = record()
    fields["structure"]["sites"][0]["species"] = [{"element": "Mg", "occu": 0.5}, {"element": "Ca", "occu": 0.5}]
    return fields


def strange_site(record, element):
    fields = record()
    fields["structure"]["sites"][1]["species"] = [{"element": element, "occu": 1}]
    return fields


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda r: r(structure=None), "structure is null"),
        (lambda r: r(structure="SiO2"), "structure is str"),
        (lambda r: None, "the record is a null"),
        (lambda r: r(force=None), "force is missing"),
        (lambda r: r(force=...), "force is missing"),
        (lambda r: r(force=[[0.0, 0.0, 0.0]]), "force has 1 rows for 2 sites"),
        (lambda r: r(force=7), "layout"),
        (lambda r: r(force=[[0.0, 0.0], [0.0, 0.0]]), None),
        (lambda r: r(force=[[0.0, 0.0, "x"], [0.0, 0.0, 0.0]]), "force is not an array of numbers"),
        (lambda r: r(uncorrected_total_energy="-3"), "uncorrected_total_energy is '-3'"),
        (lambda r: r(mp_id="mp-2"), "mp_id is 'mp-2' but the record stands under 'mp-1'"),
        (mixed_site, "site 0 is partially occupied (Mg 0.5, Ca 0.5)"),
        (lambda r: strange_site(r, "Qq"), "site 1 holds 'Qq'"),
        (lambda r: broken_structure(r, sites=[]), "at least one atom"),
        (lambda r: broken_structure(r, lattice={"matrix": [[0.0] * 3] * 3}), "periodic along axis 0"),
        (lambda r: broken_structure(r, lattice=None), "layout"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_its_place_and_the_next_is_read(mptrj_file, record, make, reason):
    path = mptrj_file({"mp-1": {"mp-1-0-0": record(), "mp-1-0-1": make(record), "mp-1-0-2": record(shift=0.5)}})
    first, bad, last = read(path)
    assert isinstance(first, Frame)
    assert isinstance(last, Frame)
    if reason is None:
        return  # the pipeline's check of shapes finds it
    assert isinstance(bad, Rejected)
    assert reason in bad.reason
    assert bad.key == "mp-1-0-1"
    offset = int(bad.location.removeprefix("byte "))
    assert path.read_bytes()[:offset].endswith(b'"mp-1-0-1": ')


def test_a_frame_id_of_another_form_is_rejected(mptrj_file, record):
    (bad,) = read(mptrj_file({"mp-1": {"frame one": record()}}))
    assert "'frame one' is not task_id-calc_id-ionic_step" in bad.reason


def test_a_material_that_is_no_object_is_rejected(mptrj_file, record):
    bad, good = read(mptrj_file({"mp-1": None, "mp-2": {"mp-2-0-0": record(mp_id="mp-2")}}))
    assert (bad.key, bad.reason) == ("mp-1", "material 'mp-1' holds a null; expected an object of frames")
    assert isinstance(good, Frame)


def places(value, path=()):
    """Every place in nested lists and objects."""
    if path:
        yield path
    for key, inner in enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ():
        yield from places(inner, (*path, key))


def changed(record, path, change):
    """The JSON of a record with another value at a place, or none where there is no change to make."""
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if change == "leave out":
        del inner[path[-1]]
    else:
        inner[path[-1]] = change
    return json.dumps(copy).encode()


def said(item):
    if isinstance(item, Rejected):
        return item
    label = item.label
    return item.external_id, item.material, item.structure.content_hash, label.content_hash, [*label.properties.items()]


CHANGES = ["leave out", None, True, 0, 7, -1.5, 10**30, float("nan"), "Mg", "", [], [1.0, 2.0], {}, {"element": "O"}]


def test_the_quick_way_to_a_record_says_what_the_careful_one_says_whatever_is_in_it(record, monkeypatch):
    record, reader, path = record(), MptrjReader(), Path("a.json")
    texts = [changed(record, place, change) for place in places(record) for change in CHANGES]
    assert len(texts) > 700
    taken = 0
    for text in [json.dumps(record).encode(), json.dumps({**record, "more": 1}).encode(), *texts]:
        raw = ("mp-1", "mp-1-0-0", 17, text)
        with monkeypatch.context() as careful:
            careful.setattr("mlipdb.ingest.readers.mptrj.typed_record", lambda _: None)
            expected = said(reader.parse(raw, path))
        assert said(reader.parse(raw, path)) == expected, text
        taken += typed_record(text) is not None
    assert 50 < taken < len(texts) / 2


def test_a_cut_gzip_gives_the_frames_before_the_cut(tmp_path, record):
    data = json.dumps({"mp-1": {f"mp-1-0-{step}": record(shift=step / 97) for step in range(200)}}).encode()
    packed = gzip.compress(data)
    (tmp_path / "f.json.gz").write_bytes(packed[: len(packed) * 3 // 4])
    found = []
    with pytest.raises(IngestError, match="plain byte"):
        found.extend(MptrjReader().frames(tmp_path / "f.json.gz", {}))
    assert 100 < len(found) < 200


def test_the_sample_is_read_without_loss(shared_data):
    """Every value of every record, against json's own reading of the whole file."""
    with gzip.open(shared_data / SAMPLE) as file:
        content = json.load(file)
    frames = {frame.external_id: frame for frame in read(shared_data / SAMPLE)}
    assert len(frames) == sum(map(len, content.values())) == 2305
    found = Counter()
    for material, records in content.items():
        for key, fields in records.items():
            frame, label = frames[key], frames[key].label
            assert frame.material == material
            sites = fields["structure"]["sites"]
            assert np.array_equal(frame.structure.positions, [site["xyz"] for site in sites])
            assert np.array_equal(frame.structure.cell, fields["structure"]["lattice"]["matrix"])
            assert frame.structure.charge == fields["structure"]["charge"]
            assert np.array_equal(label.forces, fields["force"])
            assert label.energy_uncorrected == fields["uncorrected_total_energy"]
            assert label.energy_corrected == fields.get("corrected_total_energy")
            assert label.band_gap == fields.get("bandgap")
            np.testing.assert_allclose(label.stress * -1602.1766340, fields["stress"], rtol=1e-14)
            magmoms = fields.get("magmom")
            assert (label.magmoms is None) == (magmoms is None)
            assert magmoms is None or np.array_equal(label.magmoms, magmoms)
            rest = ("energy_per_atom", "ef_per_atom", "e_per_atom_relaxed", "ef_per_atom_relaxed")
            assert label.properties == {name: fields[name] for name in rest if fields.get(name) is not None}
            found.update(label.properties.keys())
    assert found["ef_per_atom_relaxed"] == 1281
