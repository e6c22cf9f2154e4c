"""Pseudo-labels: a replay set labelled by the foundation itself."""

import time
from collections.abc import Callable
from pathlib import Path

from mlipdb.database import Database
from mlipdb.errors import TrainError
from mlipdb.labelling import LabelOptions, TeacherOptions, label
from mlipdb.labelling.runner import LabelReport, Progress
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.teachers.nequix import NequixTeacher
from mlipdb.trainers.prepare import Say

TEACHER = "nequix"  # labels with any checkpoint
EVERY = 15.0  # seconds between lines that say how far the labelling is


def pseudo_label(db: Database, chosen: FrozenSubset, *, foundation: str, sha256: str, stress: bool, say: Say) -> int:
    """Label every structure of the subset with the foundation; the number of the method that its labels are of.

    What it labelled before is not computed again. Raises TrainError unless all structures have all of energy, forces
    and (for three periodic directions) stress, by weights of this checksum: no other label can stand in for one. A
    direct model has no stress, and is asked for none.
    """
    teacher = NequixTeacher.load(TEACHER, TeacherOptions(weights=Path(foundation)), stress=stress)
    if teacher.info.weights_sha256 != sha256:
        raise TrainError(
            f"{foundation} was changed while the run was planned: its weights are {teacher.info.weights_sha256[:12]}, "
            f"not {sha256[:12]}; start again"
        )
    say(f"the foundation labels {len(chosen.ids)} structures of replay subset {chosen.name}")
    report = label(
        db, teacher, ids=chosen.ids, retry_failed=True, options=LabelOptions(pseudo=stress), progress=_told(say)
    )
    _check_whole(report, chosen)
    stored = db.method(report.method_id).weights_sha256
    if stored != sha256:
        raise TrainError(f"labels of method {report.method_id} are of weights {stored}, not of {sha256}")
    return report.method_id


def _told(say: Say) -> Callable[[Progress], None]:
    """What says how far the labelling is, every quarter of a minute: it may take as long as an epoch."""
    last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            say(f"labelled {progress.done} of {progress.total}")

    return tell


def _check_whole(report: LabelReport, chosen: FrozenSubset) -> None:
    whole = report.labelled + report.already
    if report.failed or whole < len(chosen.ids):
        reasons = "; ".join(f"structure {number}: {reason}" for number, reason in report.reasons[:3])
        raise TrainError(
            f"the foundation could label {whole} of {len(chosen.ids)} structures of replay subset {chosen.name!r} "
            f"({reasons}); all or none are replayed, so that no other label gets among them: pick others"
        )
