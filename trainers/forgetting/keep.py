"""A comparison in the row of the evaluation that it belongs to."""

from mlipdb.database import Database
from mlipdb.trainers.evaluate import Evaluation
from mlipdb.trainers.forgetting.compare import Forgetting, forgetting
from mlipdb.trainers.forgetting.settings import Extent
from mlipdb.trainers.runs import update_run


def add_forgetting(
    db: Database,
    evaluation: Evaluation,
    *,
    target: str,
    foundation_subset: str | None = None,
    against: str | None = None,
    extent: Extent | None = None,
) -> Forgetting:
    """Compare what was evaluated with its foundation, and keep the numbers beside the evaluation's rows."""
    found = forgetting(
        db,
        target,
        subset=evaluation.subset,
        foundation_subset=foundation_subset,
        against=against,
        extent=extent,
    )
    rows = [dict(row) for row in evaluation.rows]
    update_run(db, evaluation.name, state="finished", metrics={"rows": rows, "forgetting": found.numbers()})
    return found
