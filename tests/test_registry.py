import sys
from importlib.metadata import EntryPoint

import pytest

from mlipdb import registry
from mlipdb.errors import ConfigError, MissingExtraError
from mlipdb.ingest.readers.mptrj import MptrjReader


@pytest.fixture
def plugins(monkeypatch):
    """Entry points of a group that the test fills."""
    found = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry for entry in found if entry.group == group])

    def add(name, value):
        found.append(EntryPoint(name=name, value=value, group="mlipdb.readers"))

    return add


def test_the_built_in_readers_are_registered_like_plug_ins():
    assert {"mptrj", "extxyz"} <= set(registry.names("mlipdb.readers"))
    assert registry.load("mlipdb.readers", "mptrj") is MptrjReader


def test_names_are_listed_without_importing_anything(plugins):
    plugins("strange", "this_module_is_nowhere:Reader")
    assert registry.names("mlipdb.readers") == ("strange",)
    assert "this_module_is_nowhere" not in sys.modules


def test_entry_points_of_the_backport_do_as_well(monkeypatch):
    backport = pytest.importorskip("importlib_metadata")
    entry = backport.EntryPoint(name="old", value="mlipdb.ingest.readers.nowhere:Reader", group="mlipdb.readers")
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    with pytest.raises(ConfigError, match="the installed metadata are stale"):
        registry.load("mlipdb.readers", "old")


def test_an_unknown_name_gets_a_suggestion_and_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"reader 'mptraj' is unknown\. Did you mean 'mptrj'.*Known: .*extxyz.*pip install -e"
    ):
        registry.load("mlipdb.readers", "mptraj")


def test_names_that_the_caller_knows_besides_are_accepted():
    registry.check("mlipdb.readers", "own", also=["own"])
    with pytest.raises(ConfigError, match=r"Did you mean 'own'"):
        registry.check("mlipdb.readers", "ow", also=["own"])


@pytest.mark.parametrize("value", ["mlipdb.nowhere:Reader", "mlipdb.ingest.reader:Nothing"])
def test_an_entry_point_that_leads_nowhere_names_the_command_that_mends_it(plugins, value):
    plugins("stale", value)
    with pytest.raises(ConfigError, match=r"registered as .* does not exist.*pip install -e \."):
        registry.load("mlipdb.readers", "stale")


def test_a_missing_package_inside_a_plug_in_is_named(plugins, tmp_path, monkeypatch):
    (tmp_path / "needy_plugin.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins("needy", "needy_plugin:Reader")
    with pytest.raises(MissingExtraError, match="needs the package 'a_package_that_is_not_there'"):
        registry.load("mlipdb.readers", "needy")


def test_a_fault_inside_a_plug_in_is_not_hidden(plugins, tmp_path, monkeypatch):
    (tmp_path / "faulty_plugin.py").write_text("import math\nmath.no_such_function\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins("faulty", "faulty_plugin:Reader")
    with pytest.raises(AttributeError, match="no_such_function"):
        registry.load("mlipdb.readers", "faulty")


def test_a_class_is_told_by_the_name_it_is_registered_by_and_another_is_refused():
    assert registry.name_of("mlipdb.readers", MptrjReader) == "mptrj"
    with pytest.raises(ConfigError, match="builtins:dict is registered as no reader"):
        registry.name_of("mlipdb.readers", dict)
