"""What may come out of a filter or a reader given damaged input: what it says, or an mlipdb error."""

import importlib.util
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy.orm import Session

from mlipdb.errors import LabelError, MlipdbError, QueryError
from mlipdb.ingest.reader import Frame, Reader, Rejected
from mlipdb.labels import check_label
from mlipdb.query import select_structure_ids
from mlipdb.testing.readers import ReaderConformance

MOST = 10_000  # frames that a damaged sample can have; more are an endless loop


def ask(session: Session, text: str, *, subsets: Mapping[str, int]) -> list[int] | QueryError:
    """The ids that a filter matches, or the one error that a filter may raise."""
    try:
        statement = select_structure_ids(text, subsets=subsets)
    except QueryError as error:
        return error
    return list(session.scalars(statement))


def read(reader: Reader, path: Path, options: Mapping[str, Any]) -> tuple[int, MlipdbError | None]:
    """How many frames and rejected records came, and the error that ended it; anything else comes through."""
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an overflow in a damaged number is reported as a value that is not finite
        try:
            for item in reader.frames(path, options):
                count += 1
                if count > MOST:
                    raise AssertionError(f"{reader.name} gives more than {MOST} frames of a small file")
                _check(item)
        except MlipdbError as error:
            return count, error
    return count, None


def _check(item: object) -> None:
    """A frame can be checked, hashed and counted; a rejected record says why."""
    if isinstance(item, Rejected):
        if not (isinstance(item.reason, str) and item.reason):
            raise AssertionError(f"a rejected record without a reason: {item}")
        return
    if not isinstance(item, Frame):
        raise AssertionError(f"neither a Frame nor a Rejected: {item!r}")
    structure = item.structure
    if not (len(structure.content_hash) == 16 and structure.composition):
        raise AssertionError(f"a structure without atoms: {structure}")
    if item.label is not None:
        try:
            check_label(item.label, natoms=len(structure), pbc=structure.pbc)
        except LabelError:
            return  # the pipeline refuses such a label


@dataclass(frozen=True)
class Sample:
    """A whole file or folder that a reader reads, with the reader's options; file is the one to damage."""

    reader: Reader
    path: Path
    options: Mapping[str, Any]
    file: Path

    @property
    def name(self) -> str:
        """The reader's name."""
        return self.reader.name


def samples(tests: Path, folder: Path) -> list[Sample]:
    """The sample of every conformance test in a folder of tests, written to a folder: one for each such class.

    A function ``make_record`` of the folder's conftest.py is given to the tests as ``record``, as its fixture does.
    """
    found = []
    made = vars(_module(tests / "conftest.py")) if (tests / "conftest.py").exists() else {}
    for path in sorted(tests.glob("test_*.py")):
        if "ReaderConformance)" not in path.read_text():
            continue
        for name, kind in vars(_module(path)).items():
            if isinstance(kind, type) and issubclass(kind, ReaderConformance) and not kind.__abstractmethods__:
                test = kind()
                vars(test).update((key.removeprefix("make_"), made[key]) for key in made if key.startswith("make_"))
                found.append(_sample(test, folder / f"{path.stem}-{name}"))
    return found


def _module(path: Path) -> ModuleType:
    """A file as a module of its own; tests are no package."""
    spec = importlib.util.spec_from_file_location(f"fuzzed_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sample(test: ReaderConformance, folder: Path) -> Sample:
    folder.mkdir(parents=True)
    path = test.sample(folder)
    return Sample(test.reader, path, test.options, path / test.cut_name if path.is_dir() else path)


def read_damaged(sample: Sample, data: bytes, folder: Path) -> tuple[int, MlipdbError | None]:
    """Read a copy of a sample whose file holds other bytes."""
    folder.mkdir(exist_ok=True)
    copy = folder / sample.path.name
    if sample.path.is_dir():
        shutil.copytree(sample.path, copy, dirs_exist_ok=True)
        (copy / sample.file.relative_to(sample.path)).write_bytes(data)
    else:
        copy.write_bytes(data)
    return read(sample.reader, copy, sample.options)
