"""Whether labels of a teacher may be learnt: they are compared with the DFT labels before a training begins."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64

from mlipdb.database import Database
from mlipdb.errors import NotFoundError, TrainError
from mlipdb.labelling.comparison import SOURCE, LabelComparison, Line
from mlipdb.labelling.comparison.compare import compare_sides
from mlipdb.labelling.comparison.sample import find_side

SAMPLE = 300  # structures of the train part that are compared


def check_trust(
    db: Database,
    method_ids: Sequence[int | None],
    *,
    ids: Int64[np.ndarray, " structures"],
    accept: bool,
    say: Callable[[str], None],
) -> None:
    """Compare the teachers among some methods with the DFT one among them, else with the structures' own labels.

    What is poor is said. Raises TrainError where something fails, unless accept says that it is known; labels that
    have nothing to be compared with are taken as they are.
    """
    methods = {number: db.method(number) for number in method_ids if number is not None}
    references = [str(number) for number, method in methods.items() if method.kind == "dft"]
    for number, method in methods.items():
        if method.kind != "teacher":
            continue
        try:
            sides = find_side(db, (references or [SOURCE])[0]), find_side(db, str(number))
            found = compare_sides(db, sides, ids=ids, filter="the train part", sample=SAMPLE)
        except NotFoundError:
            say(f"labels of {method.name} have no others beside them on the train part: they are not checked")
            continue
        _judge(found, accept=accept, say=say)


def _judge(found: LabelComparison, *, accept: bool, say: Callable[[str], None]) -> None:
    mine = [line for line in found.lines if line.of in ("both", found.second)]
    for line in mine:
        if line.verdict == "poor" and line.quantity != "energy as stored":  # the alignment speaks of that
            say(f"labels of {found.second}: {_tell(line)}")
    failures = "; ".join(_tell(line) for line in mine if line.verdict == "fails")
    if not failures:
        return
    told = f"labels of {found.second} do not fit those of {found.first} on {found.sampled} structures: {failures}"
    if not accept:
        first = found.first.rpartition("(")[2].removesuffix(")")
        second = found.second.rpartition("(")[2].removesuffix(")")
        raise TrainError(
            f"{told}. See `mlipdb labels compare {first} {second}`, and repair or drop them; to learn from them "
            "all the same, give --accept-labels"
        )
    say(f"WARNING: {told}; they are learnt all the same (--accept-labels)")


def _tell(line: Line) -> str:
    return f"{line.quantity} {line.verdict}{f' ({line.words})' if line.words else ''}"
