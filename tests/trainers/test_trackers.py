import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from mlipdb.errors import MissingExtraError
from mlipdb.trainers.progress import EpochEnd, StepProgress
from mlipdb.trainers.recipe import LogRecipe
from mlipdb.trainers.trackers import PaceLog, TensorBoard, check_trackers, make_trackers, read_pace
from mlipdb.trainers.train import train

HAS_WANDB = importlib.util.find_spec("wandb") is not None


def scalars(folder):
    """(tag, step) -> value of the event files in a folder, with what a file says of those before it taken in."""
    found = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            if event.session_log.status:  # a new start: what was written at this step or later is void
                found = {(tag, step): value for (tag, step), value in found.items() if step < event.step}
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def ended(epoch):
    entry = {"epoch": epoch, "train": {"loss": 1.5, "stress_mae": None}, "validation": None, "weights": {"a": 2.0}}
    return EpochEnd(entry=entry, epochs=3, best=False)


def steps(listener, progress, *, epoch, batches, first=1):
    for batch in range(first, batches + 1):
        progress.advance(epoch=epoch, batch=batch, batches=batches, structures=4)
        progress.loss = 100.0 * epoch + batch
        listener.step(progress)


def test_tensorboard_gets_epochs_and_every_tenth_step(tmp_path):
    board = TensorBoard(tmp_path)
    steps(board, StepProgress(total_epochs=1), epoch=0, batches=25)
    board.epoch(ended(1))
    board.close()
    found = scalars(tmp_path)
    assert {key: value for key, value in found.items() if "second" not in key[0]} == {
        ("step/loss", 10): 10.0, ("step/loss", 20): 20.0, ("train/loss", 1): 1.5, ("weight/a", 1): 2.0
    }  # fmt: skip


def test_what_was_written_after_the_last_checkpoint_is_void_once_the_run_goes_on(tmp_path):
    first = TensorBoard(tmp_path)
    steps(first, StepProgress(total_epochs=1), epoch=0, batches=25)
    first.close()
    time.sleep(1.1)  # event files are named by the second
    again = TensorBoard(tmp_path)
    steps(again, StepProgress(total_epochs=1), epoch=0, batches=17, first=15)
    again.close()
    assert {step for tag, step in scalars(tmp_path) if tag == "step/loss"} == {10}


def test_a_run_leaves_event_files_and_its_pace(trained):
    whole = trained[1]
    found = scalars(whole.folder)
    last = whole.metrics["epochs"][-1]
    assert found["validation/forces_mae", 2] == pytest.approx(last["validation"]["forces_mae"])
    assert found["train/loss", 2] == pytest.approx(last["train"]["loss"])
    pace = read_pace(whole.folder)
    assert [line.epoch for line in pace] == [1, 2]
    assert [line.structures for line in pace] == [whole.metrics["data"]["structures"]["train"]] * 2
    assert all(line.seconds > 0 and line.structures_per_second > 0 for line in pace)


def test_pace_is_that_of_the_steps_after_the_first_and_a_line_cut_off_is_left_out(tmp_path):
    log, progress = PaceLog(tmp_path), StepProgress(total_epochs=2)
    progress.advance(epoch=0, batch=1, batches=3, structures=100)
    log.step(progress)
    time.sleep(0.2)
    progress.advance(epoch=0, batch=2, batches=3, structures=10)
    log.step(progress)
    log.epoch(ended(1))
    with (tmp_path / "pace.jsonl").open("a") as stream:
        stream.write('{"epoch": 2, "ended')
    [found] = read_pace(tmp_path)
    assert found.structures == 110
    assert 20 < found.structures_per_second <= 50
    assert read_pace(tmp_path / "elsewhere") == []


def test_a_recipe_can_do_without_tensorboard(tmp_path):
    made = make_trackers(LogRecipe(tensorboard=False), tmp_path, config={}, database="one")
    assert [type(each) for each in made] == [PaceLog]


def test_runs_of_one_name_in_two_databases_stay_apart_in_a_project_of_weights_and_biases(tmp_path, monkeypatch):
    opened = []
    wandb = SimpleNamespace(init=lambda **words: opened.append(words) or SimpleNamespace(log=dict))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for database in ("one", "one", "other"):
        recipe = LogRecipe(tensorboard=False, wandb="mlips")
        _, tracker = make_trackers(recipe, tmp_path / "Y-nequix", config={}, database=database)
        tracker.step(StepProgress(total_epochs=1))
    assert [words["name"] for words in opened] == ["Y-nequix"] * 3
    assert opened[0]["id"] == opened[1]["id"] != opened[2]["id"]


@pytest.mark.skipif(HAS_WANDB, reason="Weights & Biases is installed")
def test_a_tracker_that_is_not_installed_is_refused_before_the_run(trained, tiny, listener):
    db = trained[0]
    with pytest.raises(MissingExtraError, match=r"pip install 'mlipdb\[wandb\]'"):
        train(db, "toy", recipe=tiny("log.wandb=mlips"), reporter=listener, name="with-wandb")
    assert not (db.path / "runs" / "with-wandb").exists()
    check_trackers(LogRecipe())


@pytest.mark.skipif(not HAS_WANDB, reason="Weights & Biases is not installed")
def test_weights_and_biases_keeps_a_run_offline(tmp_path):
    # In a process of its own: its service listens on a socket, which tests may not.
    program = (
        "from pathlib import Path; from mlipdb.trainers.trackers import WeightsAndBiases\n"
        "from mlipdb.trainers.progress import EpochEnd, StepProgress\n"
        f"run = WeightsAndBiases(Path({str(tmp_path)!r}), project='mlips', config={{'epochs': 1}}, database='one')\n"
        "entry = {'epoch': 1, 'train': {'loss': 1.5}, 'validation': None}\n"
        "run.step(StepProgress(total_epochs=1)); run.epoch(EpochEnd(entry=entry, epochs=1, best=True)); run.close()\n"
    )
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [data] = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"train/loss" in data.read_bytes()


def test_the_pace_is_plain_json(trained):
    lines = (trained[1].folder / "pace.jsonl").read_text().splitlines()
    assert all(json.loads(line)["ended_at"].startswith("20") for line in lines)
