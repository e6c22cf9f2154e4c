import io

from rich.text import Text

from mlipdb.trainers.live import SHOWN, LiveReporter, make_reporter
from mlipdb.trainers.progress import EpochEnd, PlainReporter, StepProgress


class Terminal(io.StringIO):
    """A stream that says a person is looking."""

    def isatty(self):
        return True


def ended(epoch, *, validation=None, best=False):
    entry = {"epoch": epoch, "train": {"loss": 1.5, "forces_mae": 40.0}, "validation": validation}
    return EpochEnd(entry={**entry, "learning_rate": 0.01}, epochs=30, best=best)


def shown(stream):
    """What the terminal was sent, without colours and movements; the last table alone."""
    text = Text.from_ansi(stream.getvalue()).plain
    return text[text.rindex("epoch  ") :].splitlines()


def test_a_terminal_gets_the_live_table_and_a_pipe_gets_lines():
    assert isinstance(make_reporter(Terminal()), LiveReporter)
    assert isinstance(make_reporter(io.StringIO()), PlainReporter)


def test_the_table_has_a_row_for_each_of_the_latest_epochs_with_the_errors_of_validation():
    stream = Terminal()
    reporter, progress = make_reporter(stream), StepProgress(total_epochs=30)
    progress.advance(epoch=0, batch=1, batches=2, structures=4)
    reporter.step(progress)
    for epoch in range(1, SHOWN + 3):
        reporter.epoch(ended(epoch, validation={"loss": 2.25, "energy_mae": 7.0, "forces_mae": 33.0}, best=epoch == 14))
    reporter.close()
    rows = [line.split() for line in shown(stream) if "/30" in line and "batch" not in line]
    assert [row[0] for row in rows] == [f"{epoch}/30" for epoch in range(3, SHOWN + 3)]
    assert rows[-1][1:] == ["1.5", "2.25", "7.0", "33.0", "-", "0.01", "best"]


def test_a_run_that_validates_nothing_shows_its_training_errors():
    stream = Terminal()
    reporter = make_reporter(stream)
    reporter.step(StepProgress(total_epochs=30))
    reporter.epoch(ended(1))
    reporter.close()
    assert next(line for line in shown(stream) if "1/30" in line).split()[1:5] == ["1.5", "-", "-", "40.0"]


def test_remarks_stay_above_the_table_and_the_table_fits_eighty_columns():
    stream = Terminal()
    reporter = make_reporter(stream)
    reporter.say("run toy: 12 [structures]")
    reporter.step(StepProgress(total_epochs=30))
    reporter.epoch(ended(1, validation={"loss": 2.25, "energy_mae": 1234.5, "forces_mae": 1234.5, "stress_mae": 99.9}))
    reporter.close()
    assert stream.getvalue().startswith("run toy: 12 [structures]")
    assert "…" not in "".join(shown(stream))
