"""A training in a terminal: a table of its epochs that grows, and a line that changes with every step."""

from collections import deque
from typing import IO, Any, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from mlipdb.trainers.metrics import UNITS
from mlipdb.trainers.progress import EpochEnd, PlainReporter, Reporter, StepProgress, TextStream

SHOWN = 12  # epochs in the table: the latest, since a terminal is not high


def make_reporter(stream: TextStream) -> Reporter:
    """A live table when the stream is a terminal, plain lines otherwise."""
    return LiveReporter(stream) if stream.isatty() else PlainReporter(stream)


class LiveReporter:
    """A table of the latest epochs over a line with a bar, drawn in place; remarks scroll above them."""

    def __init__(self, stream: TextStream) -> None:
        console = Console(file=cast(IO[str], stream))
        self._epochs: deque[EpochEnd] = deque(maxlen=SHOWN)
        self._bar = Progress(BarColumn(20), TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("preparing", total=None)
        self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=4)

    def say(self, text: str) -> None:
        """A remark."""
        self._live.console.print(text, highlight=False, markup=False)

    def step(self, progress: StepProgress) -> None:
        """Change the line; the first step shows it."""
        self._live.start()
        total = float(progress.total_epochs)
        self._bar.update(self._task, description=progress.line, completed=progress.done, total=total)

    def epoch(self, ended: EpochEnd) -> None:
        """Add the epoch to the table."""
        self._epochs.append(ended)
        self._live.refresh()

    def close(self) -> None:
        """Leave the terminal as it was, below the last table."""
        self._live.stop()

    def _drawn(self) -> Group:
        return Group(*([_table(self._epochs)] if self._epochs else []), self._bar)


def _table(epochs: deque[EpochEnd]) -> Table:
    """A row for each epoch; errors are those of validation, of the train part where nothing validates."""
    table = Table(box=None, pad_edge=False)
    errors_of = [f"{name}\n{unit}" for name, unit in UNITS.items()]
    for heading in ("epoch", "train\nloss", "validation\nloss", *errors_of, "learning\nrate", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for ended in epochs:
        train, validation = ended.entry["train"], ended.entry["validation"]
        errors = train if validation is None else validation
        losses = (train["loss"], None if validation is None else validation["loss"])
        cells = [f"{ended.entry['epoch']}/{ended.epochs}", *(_number(loss, ".4g") for loss in losses)]
        cells += [_number(errors.get(f"{name}_mae"), ".1f") for name in UNITS]
        table.add_row(*cells, _number(ended.entry.get("learning_rate"), ".2g"), "best" if ended.best else "")
    return table


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
