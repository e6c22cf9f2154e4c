"""Settings and data that every test may use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before JAX is first imported: a silent broadcast or upcast is a bug, so both are errors in the tests.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not at {folder}")
    return folder


@pytest.fixture(autouse=True)
def only_installed_names() -> Iterator[None]:
    """Importing a top-level folder by its short name makes a second copy of every class in it."""
    yield
    short = {"trainers", "cli", "migrations"} & set(sys.modules)
    assert not short, f"import mlipdb.{short.pop()}, not the folder's own name"
