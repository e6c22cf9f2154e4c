"""Processes that train together, as on several hosts: here on one machine, with the collectives of the CPU."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing

import jax
import numpy as np
import pytest

import mlipdb
from mlipdb.errors import ConfigError
from mlipdb.testing.models import QUICK_FLAGS
from mlipdb.testing.training import TINY, training_database
from mlipdb.trainers.archive import read_arrays, read_document
from mlipdb.trainers.batching.packing import PlannedBatch
from mlipdb.trainers.batching.pad import GraphShape
from mlipdb.trainers.batching.rank import Rank
from mlipdb.trainers.devices import Devices, join
from mlipdb.trainers.run_files import last_checkpoint
from mlipdb.trainers.runs import find_run, run_folder, run_names

MAIN = "from mlipdb.cli.app import main; main()"
NEW = ["--subset", "toy", "--teacher", "pair-potential", "--name", "run"]
SETTINGS = [word for setting in (*TINY, "checkpoint.every_steps=1") for word in ("--set", setting)]


@pytest.fixture
def databases(tmp_path):
    """Two databases of the same content, each with a catalog of its own."""
    paths = tmp_path / "one", tmp_path / "two"
    for path in paths:
        training_database(path).close()
    return paths


def start(database, *words, devices):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{QUICK_FLAGS} --xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-c", MAIN, "--db", str(database), "train", "--json", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def start_two(database, *words):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [start(database, *words, "--processes", f"{number}/2@{address}", devices=1) for number in (0, 1)]


def ended(process):
    """What it printed, once it has ended well."""
    said, talked = process.communicate()
    assert process.returncode == 0, talked[-3000:]
    return said, talked


def content(path):
    """Metrics, the checkpoint's document and every array of the run."""
    with closing(mlipdb.open(path)) as db:
        facts = find_run(db, "run")
    place = last_checkpoint(facts.path)
    document = read_document(place)
    arrays = {(group, *item) for group in ("model", "state") for item in _bytes(place, document, group)}
    return facts.state, facts.metrics, document, arrays


def _bytes(place, document, group):
    return [(name, array.tobytes()) for name, array in read_arrays(place, document, group).items()]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # it compiles in five processes
@pytest.mark.enable_socket
def test_two_processes_train_as_one_with_two_devices_and_go_on_when_one_is_killed(databases):
    one, two = databases
    ended(start(one, *NEW, *SETTINGS, devices=2))
    first, second = start_two(two, *NEW, *SETTINGS)
    while not any((two / "runs" / "run" / "checkpoints").glob("00000-*/checkpoint.json")):
        assert first.poll() is None, first.communicate()
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    _, talked = first.communicate()
    assert first.returncode != 0
    assert "start all processes again with --resume run" in talked
    with closing(mlipdb.open(two)) as db:
        assert find_run(db, "run").state != "finished"
    (said, talked), silent = [ended(process) for process in start_two(two, "--resume", "run")]
    assert json.loads(said)["run"] == "run"
    assert "2 device(s)" in talked
    assert silent[0] == ""
    assert "epoch" not in silent[1]
    assert content(two) == content(one)


@pytest.mark.enable_socket
def test_a_mistake_ends_all_processes_with_its_message(databases):
    for process in start_two(databases[0], "--subset", "toy", "--teacher", "pair-potentail"):
        _, talked = process.communicate()
        assert process.returncode == 1
        assert "Did you mean 'pair-potential'" in talked
    with closing(mlipdb.open(databases[0])) as db:
        assert run_names(db) == []
        assert not run_folder(db, "run").exists()


@pytest.mark.parametrize("place", ["2", "2/2@host:1", "0/2@host", "0/2"])
def test_where_processes_meet_is_checked_before_they_wait(place):
    with pytest.raises(ConfigError, match=r"NUMBER/COUNT@HOST:PORT|ranks count from 0 to 1"):
        join(place)


def test_batches_are_told_to_devices_as_processes_share_them():
    shape = GraphShape(atoms=2, edges=8, graphs=2)
    group = tuple(PlannedBatch(members=np.array([number]), shape=shape) for number in range(3))
    devices = Devices(all=tuple(jax.devices()) * 4, rank=Rank(1, 2))
    members = [None if batch is None else batch.members.item() for batch in devices.batches(group)]
    assert members == [0, 2, 1, None]
    assert [batch.members.item() for batch in Rank(1, 2).share(group)] == [1]
