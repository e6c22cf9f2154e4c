"""Whether labels of a teacher may be learnt: they are compared with the DFT labels before a training begins."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int64
from sqlalchemy import select

from mlipdb.catalog import LabelRow, StructureRow
from mlipdb.database import Database
from mlipdb.errors import NotFoundError, TrainError
from mlipdb.labelling.comparison import SOURCE, LabelComparison, Line
from mlipdb.labelling.comparison.compare import compare_sides
from mlipdb.labelling.comparison.sample import find_side
from mlipdb.labels import Method

SAMPLE = 300  # structures of the train part that are compared
SEMILOCAL = ("lda", "pbe", "pbesol", "rpbe", "revpbe", "scan", "rscan", "r2scan")
HYBRIDS = ("b3lyp", "pbe0", "hse03", "hse06", "wb97x", "wb97m")
FUNCTIONALS = frozenset((*SEMILOCAL, *HYBRIDS))
DISPERSION = re.compile(r"[-+ ](d|d[234](\((bj|0|zero)\))?|d[34]bj|v|vv10|rvv10)$")  # of hybrids


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
    _check_functionals(db, list(methods.values()), ids=ids, accept=accept, say=say)
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


def _check_functionals(
    db: Database,
    methods: Sequence[Method],
    *,
    ids: Int64[np.ndarray, " structures"],
    accept: bool,
    say: Callable[[str], None],
) -> None:
    """A teacher of another functional has another potential surface, which no offset an element brings to the labels'.

    Only functionals that are known by name are compared.
    """
    dft = [method for method in methods if method.kind == "dft"] or _source_methods(db, ids[:SAMPLE].tolist())
    for teacher in (method for method in methods if method.kind == "teacher"):
        for method in dft:
            one, other = _family(method.functional), _family(teacher.functional)
            if one is None or other is None or one == other:
                continue
            told = f"the teacher {teacher.name} is of {teacher.functional}, the labels are of {method.functional}"
            if not accept:
                raise TrainError(
                    f"{told} (method {method.name}); choose a teacher of {method.functional}, or learn from this one "
                    "all the same with --accept-labels"
                )
            say(f"WARNING: {told}; they are learnt all the same (--accept-labels)")


def _source_methods(db: Database, ids: list[int]) -> list[Method]:
    """Whose labels came with the structures."""
    query = select(LabelRow.method_id).distinct().join(StructureRow, StructureRow.id == LabelRow.structure_id)
    query = query.where(StructureRow.id.in_(ids), LabelRow.shard_id == StructureRow.shard_id)
    with db.session() as session:
        return [db.method(number) for number in sorted(session.scalars(query))]


def _family(functional: str | None) -> str | None:
    """The functional without the Hubbard U, where we know it; a hybrid without its dispersion correction."""
    name = (functional or "").lower().replace("\u03c9", "w").strip()
    bare = DISPERSION.sub("", name).replace("-", "")
    if bare in HYBRIDS:
        return bare
    name = name.removesuffix("+u").replace("-", "")
    return name if name in FUNCTIONALS else None


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
