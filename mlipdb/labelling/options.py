"""How a labelling run works, beside what it shall do."""

from dataclasses import dataclass, field

from mlipdb.labelling.batches import BatchLimits


@dataclass(frozen=True, kw_only=True)
class Flush:
    """When finished labels are stored: after so many, so many bytes or so many seconds, whichever comes first.

    What a kill can lose is what was finished since; each flush makes one shard. With an executor it is the most that
    one worker is given at a time.
    """

    records: int = 1000
    megabytes: float = 256.0
    seconds: float = 30.0


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Limits of a batch (the teacher's own where None), when labels are stored, and how many workers to keep busy.

    batch_edges alone scales the teacher's own limits to so many edges.

    With pseudo, a label counts only as a whole: a structure without all of energy, forces and (for three periodic
    directions) stress fails, so that the set can be trained on. workers is for executors: twice as many units of
    work are handed out at a time.
    """

    limits: BatchLimits | None = None
    batch_edges: int | None = None
    flush: Flush = field(default_factory=Flush)
    pseudo: bool = False
    workers: int = 16
