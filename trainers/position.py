"""Where a training is: what must be remembered beside the arrays to go on as if nothing had happened."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Position:
    """The next step, the sums of the epoch so far, and the epochs behind.

    epoch counts from 0; group is the next one of its batches. terms and errors are host sums of this epoch, history one
    entry for each epoch behind. start holds the errors of a foundation before the first step, None in a training from
    random weights. All floats, so that JSON keeps every bit.
    """

    epoch: int = 0
    group: int = 0
    terms: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float | None = None
    best_epoch: int | None = None
    start: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """A name for the checkpoint made here; names sort as positions do."""
        return f"{self.epoch:05d}-{self.group:07d}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def copy(self) -> "Position":
        """The same, which does not follow as the training goes on."""
        return Position(**asdict(self))

    def next_epoch(self) -> None:
        """Begin another epoch."""
        self.epoch, self.group = self.epoch + 1, 0
        self.terms, self.errors = {}, {}

    def take_if_best(self, loss: float | None) -> bool:
        """Note the loss of the epoch that ends when it is the lowest so far; None is no candidate, nor is NaN."""
        if loss is None or math.isnan(loss) or (self.best_loss is not None and loss >= self.best_loss):
            return False
        self.best_loss, self.best_epoch = loss, self.epoch + 1
        return True

    def take_start(self, loss: float | None) -> None:
        """Let the model before the first step be the best until another is better: epoch 0."""
        self.best_loss, self.best_epoch = loss, 0
