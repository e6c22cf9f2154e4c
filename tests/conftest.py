"""Settings and data that every test may use."""

import atexit
import gc
import os
import re
import shutil
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import pytest
import sqlalchemy

from mlipdb.catalog.schema import upgrade
from mlipdb.testing.postgresql import postgresql_programs, private_server

# A silent broadcast or upcast is a bug, so both are errors in the tests; the environment is for their subprocesses.
# Compiled programs are kept, small ones too: what one test compiled no other does. The user's own are left alone.
SETTINGS = {
    "jax_numpy_rank_promotion": "raise",
    "jax_numpy_dtype_promotion": "strict",
    "jax_platforms": "cpu",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    SETTINGS["jax_compilation_cache_dir"] = tempfile.mkdtemp(prefix="mlipdb-programs-")
    atexit.register(shutil.rmtree, SETTINGS["jax_compilation_cache_dir"], ignore_errors=True)
# Each core has a test process of its own; threads of one only take from the other (torch teachers: 76 s, then 30 s).
os.environ.setdefault("OMP_NUM_THREADS", "1")
for setting, choice in SETTINGS.items():
    os.environ.setdefault(setting.upper(), str(choice))
    jax.config.update(setting, choice)

ROOT = Path(__file__).resolve().parent.parent
MAPS, MANY_MAPS = Path("/proc/self/maps"), 15_000
CATALOGS = tomllib.loads((ROOT / "tests" / "catalogs.toml").read_text())
LEFT_OUT = [*CATALOGS["no_catalog"]["tests"], *CATALOGS["shown_elsewhere"]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--catalog",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="where the tests' databases have their catalogs when a test does not say; postgresql starts a server",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("catalog") == "postgresql":
        # a test that leaves a database open leaves connections to the garbage collector, which SQLite does not mind
        config.addinivalue_line("filterwarnings", "ignore:.*was deleted while still open:ResourceWarning")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With PostgreSQL, files that tests/catalogs.toml leaves out are not even imported: some build models."""
    if config.getoption("catalog") == "sqlite" or not collection_path.is_relative_to(ROOT / "tests"):
        return None
    return within(str(collection_path.relative_to(ROOT / "tests")), LEFT_OUT) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process waits at the end for another one's.

    With PostgreSQL, the tests about SQLite itself have nothing to say, nor those that tests/catalogs.toml names.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if config.getoption("catalog") == "sqlite":
        return
    other = {item for item in items if item.get_closest_marker("sqlite") or within(place(item), LEFT_OUT)}
    config.hook.pytest_deselected(items=list(other))
    items[:] = [item for item in items if item not in other]


def place(item: pytest.Item) -> str:
    """The test's path below tests/, less its parameters."""
    return item.nodeid.removeprefix("tests/").partition("[")[0]


def within(place: str, names: list[str]) -> bool:
    """Whether a list holds the test, its file or a folder that it is in, by their paths below tests/."""
    return any(place == name or place.startswith((f"{name}/", f"{name}::")) for name in names)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is said to make no database where catalogs are by default cannot make one."""
    held = item.config.getoption("catalog") == "sqlite" and not item.get_closest_marker("sqlite")
    if held and within(place(item), CATALOGS["no_catalog"]["tests"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLIPDB_CATALOG", "tests/catalogs.toml says that this test makes no database: take it off")
            return (yield)
    return (yield)


@pytest.fixture(scope="session", autouse=True)
def catalog_of_new_databases(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """With --catalog postgresql, every database that a test makes has a catalog of its own on a private server."""
    if request.config.getoption("catalog") == "sqlite":
        yield None
        return
    server = request.getfixturevalue("postgresql_server")
    new_databases_have_tables(server)
    os.environ["MLIPDB_CATALOG"] = address(server, "mlipdb_{id}")
    yield server
    del os.environ["MLIPDB_CATALOG"]


def address(server: str, database: str) -> str:
    return f"postgresql+psycopg://mlipdb@/{database}?host={server}"


def new_databases_have_tables(server: str) -> None:
    """The server copies template1 for each; a thousand tests need not make the tables, which tests of catalogs do."""
    template = sqlalchemy.create_engine(address(server, "template1"))
    upgrade(template)
    template.dispose()


@pytest.fixture(autouse=True)
def drop_catalogs(request: pytest.FixtureRequest, catalog_of_new_databases: str | None) -> Iterator[None]:
    """The catalogs of databases below a test's own folder go with the test, so that thousands do not pile up."""
    if catalog_of_new_databases is None or "tmp_path" not in request.fixturenames:
        yield
        return
    folder, before = request.getfixturevalue("tmp_path"), catalogs(catalog_of_new_databases)
    yield
    found = (re.findall(r"/(mlipdb_[0-9a-f]+)\?", path.read_text("latin1")) for path in folder.rglob("mlipdb.toml"))
    for name in {name for names in found for name in names} - before:
        on_server(catalog_of_new_databases, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def catalogs(server: str) -> set[str]:
    return {row[0] for row in on_server(server, "SELECT datname FROM pg_database")}


def on_server(server: str, statement: str) -> list[Any]:
    with administrator(server).connect() as connection:
        result = connection.execute(sqlalchemy.text(statement))
        return list(result) if result.returns_rows else []


@cache
def administrator(server: str) -> sqlalchemy.Engine:
    """Connected for as long as the tests run."""
    return sqlalchemy.create_engine(address(server, "postgres"), isolation_level="AUTOCOMMIT")


@pytest.fixture(scope="module", autouse=True)
def room_for_programs() -> Iterator[None]:
    """Each compiled program takes memory maps; past the kernel's bound (65,530 for a process) the compiler crashes."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def quick_programs() -> Iterator[None]:
    """Programs that compile in half the time and run slower, for tests of what a training does, not how fast."""
    from mlipdb.testing.models import QUICK
    from mlipdb.trainers import compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "compiler_options", lambda **_: QUICK)
        yield


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


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The socket folder of a private PostgreSQL server."""
    programs = postgresql_programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed; CI must have it (apt-get install postgresql)")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with private_server(programs) as folder:
        yield folder


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """The URL of an empty PostgreSQL database of one test."""
    name = f"test_{uuid.uuid4().hex}"
    on_server(postgresql_server, f"CREATE DATABASE {name} TEMPLATE template0")
    yield address(postgresql_server, name)
    on_server(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def tiny_nqx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .nqx file of a tiny Nequix with random weights for H, C, O and Si."""
    import jax  # here, because the settings above must come first

    from mlipdb.trainers.models.nequix import Nequix, NequixConfig
    from mlipdb.trainers.models.nqx import save_nqx

    config = NequixConfig(
        atomic_numbers=(1, 6, 8, 14),
        e0=(-1.5, -7.25, -5.0, -4.125),
        hidden_irreps="8x0e + 4x1o",
        lmax=1,
        n_layers=2,
        cutoff=3.5,
        radial_basis_size=4,
        radial_mlp_size=8,
        radial_mlp_layers=1,
        avg_n_neighbors=10.0,
    )
    path = tmp_path_factory.mktemp("weights") / "tiny.nqx"
    save_nqx(path, Nequix.create(config, key=jax.random.key(5)))
    return path
