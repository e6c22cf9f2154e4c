"""Listeners that keep a training's numbers beside the catalog: for TensorBoard, for Weights & Biases, and its pace."""

import importlib.util
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlipdb.errors import MissingExtraError
from mlipdb.trainers.progress import EpochEnd, Reporter, StepProgress
from mlipdb.trainers.recipe import LogRecipe

EVERY = 10  # steps between numbers of steps
PACE = "pace.jsonl"


class Together:
    """Several listeners as one, told in their order."""

    def __init__(self, listeners: Sequence[Reporter]) -> None:
        self._listeners = tuple(listeners)

    def say(self, text: str) -> None:
        """A remark."""
        for listener in self._listeners:
            listener.say(text)

    def step(self, progress: StepProgress) -> None:
        """A step was taken."""
        for listener in self._listeners:
            listener.step(progress)

    def epoch(self, ended: EpochEnd) -> None:
        """An epoch ended."""
        for listener in self._listeners:
            listener.epoch(ended)

    def close(self) -> None:
        """The training ended."""
        for listener in self._listeners:
            listener.close()


def check_trackers(log: LogRecipe) -> None:
    """Raise MissingExtraError with the command to run where a tracker is asked for whose package is not installed."""
    if log.wandb and importlib.util.find_spec("wandb") is None:
        raise MissingExtraError(
            f"log.wandb is {log.wandb!r}, but Weights & Biases is not installed; run `pip install 'mlipdb[wandb]'`, or "
            "leave it out with --set log.wandb="
        )


def make_trackers(log: LogRecipe, folder: Path, *, config: Mapping[str, Any], database: str) -> list[Reporter]:
    """What the recipe asks for, in the run's folder; config goes to those that keep settings, database is its id."""
    trackers: list[Reporter] = [PaceLog(folder)]
    if log.tensorboard:
        trackers.append(TensorBoard(folder))
    if log.wandb:
        trackers.append(WeightsAndBiases(folder, project=log.wandb, config=config, database=database))
    return trackers


def epoch_numbers(ended: EpochEnd) -> Iterator[tuple[str, float]]:
    """Every number of an epoch by name, such as validation/forces_mae; those that are missing are left out."""
    replay = {f"replay/{part}": found for part, found in (ended.entry.get("replay") or {}).items()}
    for part, found in {"train": ended.entry["train"], "validation": ended.entry["validation"], **replay}.items():
        for name, value in (found or {}).items():
            if value is not None:
                yield f"{part}/{name}", float(value)
    yield from ((f"weight/{name}", float(value)) for name, value in ended.entry.get("weights", {}).items())
    if "learning_rate" in ended.entry:
        yield "learning_rate", float(ended.entry["learning_rate"])


class TensorBoard:
    """Event files in the run's folder: numbers of epochs over epochs, those of every tenth step over steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def say(self, text: str) -> None:
        """Remarks are for people."""

    def step(self, progress: StepProgress) -> None:
        """Loss and speed of a step. The first one hides what a run before it had written beyond its checkpoint."""
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._folder / "tensorboard"), purge_step=progress.step, flush_secs=10)
        if progress.step % EVERY == 0:
            self._writer.add_scalar("step/loss", progress.loss, progress.step)
            self._writer.add_scalar("step/structures_per_second", progress.rate, progress.step)

    def epoch(self, ended: EpochEnd) -> None:
        """Errors, losses, weights and rate of an epoch."""
        for name, value in epoch_numbers(ended):
            self._writer.add_scalar(name, value, ended.entry["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """The same numbers in a project of Weights & Biases, which is told of by its own settings, such as WANDB_MODE.

    database is the database's id: runs of the same name in two databases stay apart in one project.
    """

    def __init__(self, folder: Path, *, project: str, config: Mapping[str, Any], database: str) -> None:
        self._folder, self._project, self._config = folder, project, dict(config)
        self._id = f"{folder.name}-{database}"
        self._run: Any = None

    def say(self, text: str) -> None:
        """Remarks are for people."""

    def step(self, progress: StepProgress) -> None:
        """Loss and speed of every tenth step. The first step opens the run, or opens it again."""
        if self._run is None:
            import wandb

            name, folder = self._folder.name, str(self._folder)
            self._run = wandb.init(
                project=self._project, name=name, id=self._id, resume="allow", dir=folder, config=self._config
            )
        if progress.step % EVERY == 0:
            numbers = {"step/loss": progress.loss, "step/structures_per_second": progress.rate}
            self._run.log({**numbers, "step": progress.step})

    def epoch(self, ended: EpochEnd) -> None:
        """Errors, losses, weights and rate of an epoch."""
        self._run.log({**dict(epoch_numbers(ended)), "epoch": ended.entry["epoch"]})

    def close(self) -> None:
        """Send what is left."""
        if self._run is not None:
            self._run.finish()


@dataclass(frozen=True, kw_only=True)
class EpochPace:
    """How long an epoch took, in seconds, and how fast it went.

    seconds are from the end of the epoch before, or from the start, with validation, and with compilation where there
    was one; structures those that were learnt meanwhile. structures_per_second is between the first step and the last.
    """

    epoch: int
    ended_at: str
    seconds: float
    structures: int
    structures_per_second: float | None


class PaceLog:
    """A line of JSON for each epoch in the run's folder: what differs each time a training is repeated."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / PACE
        self._started = time.monotonic()
        self._before = 0
        self._steps: list[tuple[float, int]] = []

    def say(self, text: str) -> None:
        """Remarks are for people."""

    def step(self, progress: StepProgress) -> None:
        """Note the time, of the first and the last step of the epoch."""
        self._steps = [*self._steps[:1], (time.monotonic(), progress.structures)]

    def epoch(self, ended: EpochEnd) -> None:
        """Write the line."""
        now = time.monotonic()
        (first, few), (last, many) = self._steps[0], self._steps[-1]
        line = EpochPace(
            epoch=ended.entry["epoch"],
            ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(now - self._started, 3),
            structures=many - self._before,
            structures_per_second=round((many - few) / (last - first), 3) if last > first else None,
        )
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(vars(line)) + "\n")
        self._started, self._before, self._steps = now, many, []

    def close(self) -> None:
        """Nothing is held."""


def read_pace(folder: Path) -> list[EpochPace]:
    """The pace of each epoch that a run's folder tells of, in order.

    Where an epoch was repeated after an interruption the later line counts; a line that a kill cut off is left out.
    """
    file = folder / PACE
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    found = {}
    for line in lines:
        try:
            pace = EpochPace(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[pace.epoch] = pace
    return [found[epoch] for epoch in sorted(found)]
