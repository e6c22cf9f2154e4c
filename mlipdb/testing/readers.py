# ruff: noqa: D102 - a test's name is its docstring
"""What every reader must do. Authors of readers subclass ReaderConformance in their own tests."""

import abc
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mlipdb import registry
from mlipdb.errors import IngestError
from mlipdb.ingest.reader import Frame, Reader, Rejected
from mlipdb.ingest.stream import ByteStream
from mlipdb.labels import Label, check_label
from mlipdb.structures import Structure


class ReaderConformance(abc.ABC):
    """Units by hand-written values, laziness, nothing lost, unique ids, a useful error where a file is cut.

    The sample is a file, or a folder, of at least three frames that are all good. text says that a file is read from
    its start, so that a cut one gives what came before the cut; a container with an index (text = False) may give
    nothing then, but never another frame. cut_name is the file that is cut in a sample that is a folder. Numbers are
    compared to a relative tolerance, for those that a conversion of units touches.
    """

    reader: ClassVar[Reader]
    options: ClassVar[Mapping[str, Any]] = {}
    tolerance: ClassVar[float] = 1e-12
    text: ClassVar[bool] = True
    cut_name: ClassVar[str] = ""

    @abc.abstractmethod
    def sample(self, folder: Path) -> Path:
        """Write the sample into a folder; its path."""

    @abc.abstractmethod
    def first_frame(self) -> Frame:
        """The first frame of the sample, written by hand in mlipdb's units, with every quantity that the file holds."""

    def read(self, path: Path) -> Iterator[Frame | Rejected]:
        return self.reader.frames(path, self.options)

    def test_the_first_frame_has_the_hand_written_values_and_no_others(self, tmp_path: Path) -> None:
        frame = next(self.read(self.sample(tmp_path)))
        expected = self.first_frame()
        assert isinstance(frame, Frame), frame
        assert (frame.external_id, frame.material) == (expected.external_id, expected.material)
        assert (dict(frame.tags), frame.row) == (dict(expected.tags), expected.row)
        self._compare(frame.structure, expected.structure, Structure)
        assert (frame.label is None) == (expected.label is None)
        self._compare(frame.label, expected.label, Label)
        if frame.label is not None and expected.label is not None:
            assert frame.label.method == expected.label.method

    def test_every_frame_is_good_and_has_an_id_of_its_own(self, tmp_path: Path) -> None:
        frames = list(self.read(self.sample(tmp_path)))
        assert len(frames) >= 3, "give a sample of at least three frames"
        for frame in frames:
            assert isinstance(frame, Frame), frame
            if frame.label is not None:
                check_label(frame.label, natoms=len(frame.structure), pbc=frame.structure.pbc)
        assert len({frame.external_id for frame in frames if isinstance(frame, Frame)}) == len(frames)
        assert len({frame.location for frame in frames}) == len(frames)

    def test_reading_twice_gives_the_same(self, tmp_path: Path) -> None:
        path = self.sample(tmp_path)
        first, second = ([_identity(item) for item in self.read(path)] for _ in range(2))
        assert first == second

    def test_the_first_frame_comes_before_the_file_is_read_to_its_end(self, tmp_path: Path) -> None:
        frames = self.read(self._cut(tmp_path, 0.8) if self.text else self.sample(tmp_path))
        assert iter(frames) is frames, "frames must be an iterator, not a list"
        assert isinstance(next(frames), Frame)

    def test_a_cut_file_gives_what_came_before_and_says_where_it_ends(self, tmp_path: Path) -> None:
        whole = [_identity(item) for item in self.read(self.sample(tmp_path))]
        for part in (0.35, 0.5, 0.8):
            path = self._cut(tmp_path, part)
            found, message = [], ""
            try:
                for item in self.read(path):
                    found.append(_identity(item))
            except IngestError as error:
                message = str(error)
            assert found == whole[: len(found)], f"cut at {part}: a frame before the cut has changed"
            assert len(found) < len(whole)
            assert str(path) in message, f"cut at {part}: no IngestError that names the file, but {message!r}"
            where = r"\b(byte|line)" if self.text else r"\b(again|whole)\b"
            assert re.search(where, message), f"the error does not say where, or what to do: {message!r}"

    def test_it_claims_its_own_sample_and_says_why(self, tmp_path: Path) -> None:
        path = self.sample(tmp_path)
        reason = self.reader.claims(path, _head(path))
        assert isinstance(reason, str)
        assert len(reason.split()) >= 2, f"a reason is a few words, not {reason!r}"

    def test_it_does_not_claim_plain_text_nor_an_empty_folder(self, tmp_path: Path) -> None:
        notes, empty, folder = tmp_path / "notes.txt", tmp_path / "empty", tmp_path / "folder"
        notes.write_text("Dear diary,\ntoday I computed 8 atoms of silicon.\n")
        empty.write_bytes(b"")
        folder.mkdir()
        for path in (notes, empty, folder):
            assert self.reader.claims(path, _head(path)) is None, f"it claims {path.name}"

    def test_it_is_registered_under_its_name(self) -> None:
        assert self.reader.name in registry.names("mlipdb.readers")
        assert all(suffix.startswith(".") for suffix in self.reader.suffixes)

    def _cut(self, folder: Path, part: float) -> Path:
        """A copy of the sample without the end of its file; the cut falls inside a line or a record."""
        path = self.sample(folder)
        cut = path.with_name(f"cut-{part}-{path.name}")
        if path.is_dir():
            shutil.copytree(path, cut)
        else:
            shutil.copy(path, cut)
        file = cut / self.cut_name if path.is_dir() else cut
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * part)])
        return cut

    def _compare(self, found: object, expected: object, kind: type) -> None:
        for item in fields(kind):
            if item.name in ("id", "method", "method_id") or expected is None:
                continue
            got, want = getattr(found, item.name), getattr(expected, item.name)
            if isinstance(want, np.ndarray):
                assert got is not None, f"{item.name} is lost"
                np.testing.assert_allclose(got, want, rtol=self.tolerance, atol=1e-15, err_msg=item.name)
            elif isinstance(want, float) and got is not None:
                assert abs(got - want) <= self.tolerance * abs(want), f"{item.name} is {got!r}, expected {want!r}"
            else:
                assert got == want, f"{item.name} is {got!r}, expected {want!r}"


def _head(path: Path) -> bytes:
    """The first plain bytes of a file, as recognition reads them; nothing of a folder."""
    if path.is_dir():
        return b""
    with ByteStream(path) as stream:
        return stream.read(1 << 16)


def _identity(item: Frame | Rejected) -> tuple[object, ...]:
    if isinstance(item, Rejected):
        return (item.key, item.location, item.reason)
    label = item.label.content_hash if item.label else None
    tags = tuple(sorted(item.tags.items()))
    return (item.external_id, item.material, item.location, item.structure.content_hash, label, tags, item.row)
