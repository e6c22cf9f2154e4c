"""A rank: one of several processes that train together, each with its share of every group of batches."""

from dataclasses import dataclass

from mlipdb.errors import ConfigError
from mlipdb.trainers.batching.packing import PlannedBatch


@dataclass(frozen=True)
class Rank:
    """Process `number` (from 0) of `count`, all with equally many devices."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise ConfigError(f"rank {self.number} of {self.count} processes; ranks count from 0 to {self.count - 1}")

    def devices(self, devices: int) -> int:
        """How many of the devices of all ranks are this one's. Raises ConfigError where ranks would differ."""
        if devices % self.count:
            raise ConfigError(
                f"{devices} devices do not share out evenly over {self.count} processes; start as many processes as "
                "divide them, each with equally many devices"
            )
        return devices // self.count

    def share(self, group: tuple[PlannedBatch, ...]) -> tuple[PlannedBatch, ...]:
        """This rank's batches of a group, every count-th, so that a short group is shared out evenly; maybe none."""
        return group[self.number :: self.count]


ONLY = Rank()
