"""A reporter that says nothing: that of every process but the first."""

from mlipdb.trainers.progress import EpochEnd, StepProgress


class SilentReporter:
    """Hears all and says nothing."""

    def say(self, text: str) -> None:
        """Not repeated: the first process says it."""

    def step(self, progress: StepProgress) -> None:
        """Not shown."""

    def epoch(self, ended: EpochEnd) -> None:
        """Not shown."""

    def close(self) -> None:
        """Nothing is held."""
