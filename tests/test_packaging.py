"""The wheel holds the whole package and nothing else, and what is installed is what pyproject.toml says."""

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mlipdb import registry
from mlipdb.errors import MissingExtraError

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"mlipdb": "mlipdb", "trainers": "mlipdb.trainers", "cli": "mlipdb.cli", "migrations": "mlipdb.migrations"}
TORCH_EXTRAS = {"mace", "chgnet", "matgl", "fairchem"}


def test_every_package_folder_is_listed():
    found = {
        ".".join((name, *path.parent.relative_to(ROOT / folder).parts))
        for folder, name in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_installed_entry_points_are_those_of_pyproject():
    for group, names in PROJECT["project"]["entry-points"].items():
        installed = {point.name: point.value for point in entry_points(group=group) if point.dist.name == "mlipdb"}
        assert installed == names, f"{group} differs; run `pip install -e .` again"


@pytest.mark.parametrize("group", PROJECT["project"]["entry-points"])
def test_every_entry_point_loads_or_names_the_extra_that_brings_its_package(group):
    for name in PROJECT["project"]["entry-points"][group]:
        told = problem(group, name)
        assert told is None or any(f"'mlipdb[{extra}]'" in told for extra in TORCH_EXTRAS), f"{name}: {told}"


def problem(group, name):
    """What is missing for a plug-in; None when it loads."""
    try:
        assert registry.load(group, name)
    except MissingExtraError as error:
        return str(error)


def test_torch_is_no_base_dependency():
    assert not [line for line in PROJECT["project"]["dependencies"] if "torch" in line]


@pytest.mark.parametrize("start", [ROOT, Path("/")])
def test_subpackages_import_from_anywhere(start):
    program = "import mlipdb.trainers, mlipdb.cli, mlipdb.migrations"
    subprocess.run([sys.executable, "-c", program], cwd=start, check=True)


def test_the_built_wheel_holds_only_mlipdb_and_all_of_it(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"mlipdb"}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            inside = package.replace(".", "/") + "/" + str(path.relative_to(ROOT / folder))
            assert inside in names
    for path in (ROOT / "mlipdb" / "data").iterdir():
        assert f"mlipdb/data/{path.name}" in names
    assert "mlipdb/py.typed" in names
    assert [name for name in names if name.endswith(".toml") and "recipes" in name]
