"""Compiled programs stay on disk from one process to the next, unless JAX was told otherwise."""

import os
import subprocess
import sys

import pytest

from mlipdb.trainers.program_cache import _drop_unfinished

PROGRAM = """
import jax
import jax.numpy as jnp
from mlipdb.trainers import program_cache
from mlipdb.trainers.compiled import compiled

program_cache.SECONDS = 0.0
jnp.ones(3) + 1  # compiled before ours, as happens
seen = []
jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
compiled(lambda values: (values**3).sum())(jnp.ones(7))
print(sum(event.endswith("cache_hits") for event in seen), sum(event.endswith("cache_misses") for event in seen))
"""


def hits_and_misses(cache, **settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"MLIPDB_CACHE": str(cache), "JAX_PLATFORMS": "cpu", **settings}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(map(int, done.stdout.split()))


def test_a_second_process_compiles_nothing_that_the_first_one_did(tmp_path):
    hits, misses = hits_and_misses(tmp_path)
    assert not hits
    assert misses
    assert hits_and_misses(tmp_path) == (misses, 0)


@pytest.mark.parametrize("settings", [{"JAX_ENABLE_COMPILATION_CACHE": "false"}, {"JAX_COMPILATION_CACHE_DIR": "own"}])
def test_settings_of_jax_come_first(tmp_path, settings):
    own = {name: str(tmp_path / value) if value == "own" else value for name, value in settings.items()}
    hits_and_misses(tmp_path / "ours", **own)
    assert not (tmp_path / "ours").exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (tmp_path / name).write_bytes(b"x")
    _drop_unfinished(tmp_path)
    assert {path.name for path in tmp_path.glob("*-*")} == {"whole-cache", "whole-atime"}


def test_a_cache_that_cannot_be_written_is_none(tmp_path):
    (tmp_path / "file").touch()
    hits, misses = hits_and_misses(tmp_path / "file")
    assert (hits, misses) == (0, 0)
