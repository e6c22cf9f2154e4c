"""docs/students.md has every model, its options with their defaults, and how many numbers it learns."""

import dataclasses
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import equinox as eqx
import jax
import pytest

from mlipdb import registry

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "students.md").read_text()
MODELS = sorted(entry.name for entry in entry_points(group="mlipdb.models") if not entry.name.startswith("headed"))
SECTIONS = {"nequix": "Nequix", "painn": "PaiNN", "gemnet": "GemNet"}
OF_DATA = {"atomic_numbers", "e0", "scale", "shift", "avg_n_neighbors", "direct"}  # and what the model's name says


def documented(model):
    """Options and defaults in the table of the model's section."""
    section = PAGE.partition(f"\n## {SECTIONS[model.partition('-')[0]]}\n")[2].partition("\n## ")[0]
    found = {}
    for names, defaults in re.findall(r"^\| (`[^|]*) \| (`[^|]*) \|", section, flags=re.MULTILINE):
        pairs = zip(re.findall("`(.*?)`", names), re.findall("`(.*?)`", defaults), strict=True)
        found |= {name: tomllib.loads(f"value = {default}")["value"] for name, default in pairs}
    return found


@pytest.mark.parametrize("model", MODELS)
def test_the_page_has_a_models_options_and_its_count(model):
    made = registry.load("mlipdb.models", model).from_config({"atomic_numbers": list(range(1, 84)), "e0": [0.0] * 83})
    fields = {field.name: field.default for field in dataclasses.fields(made.config) if field.name not in OF_DATA}
    assert documented(model) == fields
    count = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(made, eqx.is_inexact_array)))
    assert re.search(rf"^\| `{model}` \|.*\| {count:,}[ |]", PAGE, flags=re.MULTILINE)
