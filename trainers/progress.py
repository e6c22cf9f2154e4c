"""What a training tells those who listen: how far it is, what each epoch gave; and the listener that prints lines."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from mlipdb.trainers.metrics import UNITS

LINE_EVERY = 10.0  # seconds between plain lines


@runtime_checkable
class TextStream(Protocol):
    """Where text goes: sys.stderr, or a StringIO."""

    def write(self, text: str, /) -> int:
        """Take the text."""
        ...

    def flush(self) -> None:
        """Show it now."""
        ...

    def isatty(self) -> bool:
        """Whether a person is looking."""
        ...


@runtime_checkable
class Reporter(Protocol):
    """Listens to a training."""

    def say(self, text: str) -> None:
        """A remark."""
        ...

    def step(self, progress: "StepProgress") -> None:
        """A step was taken."""
        ...

    def epoch(self, ended: "EpochEnd") -> None:
        """An epoch ended."""
        ...

    def close(self) -> None:
        """The training ended."""
        ...


class StepProgress:
    """How far a training is, and how fast: counts of this process, so that a resumed one tells its own speed."""

    def __init__(self, *, total_epochs: int) -> None:
        self.total_epochs = total_epochs
        self.epoch, self.batch, self.batches = 0, 0, 1
        self.loss = float("nan")
        self.maes: Mapping[str, float | None] = {}
        self.structures = 0
        self._started = time.monotonic()
        self._structures = 0
        self._epochs_before: float | None = None

    @property
    def done(self) -> float:
        """Epochs behind us."""
        return self.epoch + self.batch / self.batches

    def advance(self, *, epoch: int, batch: int, batches: int, structures: int) -> None:
        """Note a step: `batch` of the epoch's `batches` are now done, the last with so many structures."""
        self.epoch, self.batch, self.batches = epoch, batch, batches
        self.structures += structures
        if self._epochs_before is None:  # the first step compiles; it would spoil the rate
            self._epochs_before, self._started = self.done, time.monotonic()
        else:
            self._structures += structures

    @property
    def step(self) -> int:
        """Steps behind us, those before a resumption included: about, where epochs have unequal numbers of batches."""
        return self.epoch * self.batches + self.batch

    @property
    def rate(self) -> float:
        """Structures a second since the first step, which compiles."""
        seconds = time.monotonic() - self._started
        return self._structures / seconds if seconds > 0 else 0.0

    @property
    def line(self) -> str:
        """One line: epoch, loss, errors, structures/s and the time left."""
        seconds = time.monotonic() - self._started
        behind = self.done - (self._epochs_before or 0.0)
        left = _clock((self.total_epochs - self.done) * seconds / behind) if behind > 0 else "?"
        return (
            f"epoch {self.epoch + 1}/{self.total_epochs} batch {self.batch}/{self.batches}  loss {self.loss:.4g}  "
            f"{errors_text(self.maes)}  {self.rate:.1f} structures/s  {left} left"
        )


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What an epoch gave: its entry in the run's metrics, of how many epochs, and whether it is the best so far."""

    entry: Mapping[str, Any]
    epochs: int
    best: bool

    @property
    def text(self) -> str:
        """One line."""
        number, train, validation = (self.entry[name] for name in ("epoch", "train", "validation"))
        text = f"epoch {number}/{self.epochs}: train loss {train['loss']:.4g}"
        if validation is not None:
            text += f", validation loss {validation['loss']:.4g}  {errors_text(validation)}"
        if replayed := (self.entry.get("replay") or {}).get("validation"):
            text += f", replay loss {replayed['loss']:.4g}  {errors_text(replayed)}"
        return text + ("  best" if self.best else "")


def errors_text(errors: Mapping[str, float | None]) -> str:
    """MAEs for people: energy in meV/atom, forces in meV/Å, stress in meV/Å³."""
    known = {quantity: errors.get(f"{quantity}_mae") for quantity in UNITS}
    parts = [f"{name[0].upper()} {value:.1f} {UNITS[name]}" for name, value in known.items() if value is not None]
    return "  ".join(parts)


class PlainReporter:
    """A line every ten seconds and one an epoch."""

    def __init__(self, stream: TextStream, *, every: float = LINE_EVERY) -> None:
        self.stream = stream
        self._every = every
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """A remark."""
        self.stream.write(text + "\n")
        self.stream.flush()

    def step(self, progress: StepProgress) -> None:
        """Print the line when it is time."""
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self.say(progress.line)

    def epoch(self, ended: EpochEnd) -> None:
        """Print the epoch's result."""
        self.say(ended.text)

    def close(self) -> None:
        """Nothing is held."""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
