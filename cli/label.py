"""`mlipdb label`: ask a teacher."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int64

    from mlipdb.database import Database
    from mlipdb.labelling.comparison import LabelComparison
    from mlipdb.labelling.forecast import Forecast
    from mlipdb.labelling.runner import LabelReport, Progress
    from mlipdb.labelling.unit import NamedTeacher
    from mlipdb.labels import Method


CHECKED = 500  # structures whose labels are compared at the end


def parse_rows(text: str) -> int | str:
    """A number of Hessian rows, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a number from 0 up nor 'all'")
    return int(text)


def parse_settings(words: list[str]) -> dict[str, str]:
    """Settings from ``name=value``; a later one of the same name counts."""
    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--set {word!r} is not NAME=VALUE, such as --set head=omat_pbe")
        settings[name] = value
    return settings


def label(
    context: typer.Context,
    teacher: Annotated[
        str, typer.Option(help="Name of the teacher, such as nequix-mp-1, or ase:module.Class for any ASE calculator.")
    ],
    weights: Annotated[
        Path | None, typer.Option(help="Weights to use: a file, or a run or checkpoint folder of mlipdb.")
    ] = None,
    trust_weights: Annotated[
        bool, typer.Option("--trust-weights", help="Load weights that can run code, such as a .model file of MACE.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="Where the teacher runs, such as cpu or cuda:0.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Its arithmetic: float32 or float64.")] = None,
    step: Annotated[
        float | None, typer.Option(help="Å of the central differences, for teachers without second derivatives.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the teacher; repeat for more.")
    ] = None,
    worker_python: Annotated[
        Path | None, typer.Option(help="Run the teacher in another environment: the path of its python.")
    ] = None,
    subset: Annotated[str, typer.Option(help="Which structures: a frozen subset's name or any filter.")] = "all",
    hessian_rows: Annotated[
        Any, typer.Option(parser=parse_rows, metavar="K|all", help="Random Hessian rows per structure.")
    ] = "0",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try structures that failed before.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing; say where to put the weights.")] = False,
    batch_edges: Annotated[
        int | None, typer.Option(min=1, help="Edges of a batch, where the device has more or less memory than assumed.")
    ] = None,
    pseudo: Annotated[
        bool, typer.Option("--pseudo", help="Labels to train on: whole ones (energy, forces, stress) or none.")
    ] = False,
    executor: Annotated[
        str | None, typer.Option(help="Who works: processes:4, dask:ADDRESS or parsl:FILE.py; this process by default.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Label a few, store nothing, and say what all need.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Label structures with a teacher: energy, forces, stress, atomic energies and Hessian rows."""
    from mlipdb.labelling import NamedTeacher, TeacherOptions

    options = TeacherOptions(
        weights=weights,
        offline=offline,
        trust_weights=trust_weights,
        device=device,
        dtype=dtype,
        step=step,
        settings=parse_settings(settings or []),
        worker_python=worker_python,
    )
    named = NamedTeacher(name=teacher, options=options)
    how: dict[str, Any] = {"retry_failed": retry_failed, "pseudo": pseudo, "batch_edges": batch_edges}
    wish = Wish(subset=subset, hessian_rows=hessian_rows, executor=executor, **how)
    if dry_run:
        raise typer.Exit(_forecast(open_database(context), named, wish, json=json))
    raise typer.Exit(_label(open_database(context), named, wish, json=json))


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asked for beside the teacher."""

    subset: str
    hessian_rows: Any
    retry_failed: bool
    pseudo: bool
    batch_edges: int | None
    executor: str | None


def _forecast(db: "Database", named: "NamedTeacher", wish: Wish, *, json: bool) -> int:
    """Say what a run would take; the exit code."""
    from mlipdb.labelling import forecast

    ids, teacher = db.query(wish.subset).ids, named()
    talk(f"{len(ids)} structures selected; labelling a few of them in this process")
    limits = teacher.batch_limits.scaled(wish.batch_edges)
    found = forecast(
        db, teacher, ids=ids, hessian_rows=wish.hessian_rows, retry_failed=wish.retry_failed, limits=limits
    )
    if json:
        show_json(asdict(found))
    else:
        print("\n".join(forecast_lines(found)))
    return 0


def _label(db: "Database", named: "NamedTeacher", wish: Wish, *, json: bool) -> int:
    """Label, and say what was done; the exit code."""
    ids = db.query(wish.subset).ids
    report = _run(db, named, wish, ids=ids)
    check = _check(db, report.method_id, wish.subset)
    if json:
        show_json({**asdict(report), "comparison": check and check.describe()})
    else:
        print("\n".join([*report_lines(report, pseudo=wish.pseudo), *check_lines(check, method_id=report.method_id)]))
    return 1 if report.failed and not (report.labelled or report.already) else 0


def _check(db: "Database", method_id: int, subset: str) -> "LabelComparison | None":
    """The teacher beside the labels that came with the structures; None where none has both."""
    from mlipdb.errors import NotFoundError
    from mlipdb.labelling.comparison import SOURCE, compare_labels

    try:
        return compare_labels(db, SOURCE, str(method_id), filter=subset, sample=CHECKED)
    except NotFoundError:
        return None


def _run(
    db: "Database", named: "NamedTeacher", wish: Wish, *, ids: "Int64[np.ndarray, ' structures']"
) -> "LabelReport":
    """In this process, or by an executor's workers."""
    from mlipdb.labelling import LabelOptions, open_executor
    from mlipdb.labelling import label as run

    rows, again = wish.hessian_rows, wish.retry_failed
    if wish.executor is None:
        teacher, options = named(), LabelOptions(pseudo=wish.pseudo, batch_edges=wish.batch_edges)
        talk(f"{len(ids)} structures selected; teacher {teacher.info.name}, weights {teacher.info.weights_sha256[:12]}")
        return run(
            db, teacher, ids=ids, hessian_rows=rows, retry_failed=again, options=options, progress=ProgressLine()
        )
    with open_executor(wish.executor) as force:
        talk(f"{len(ids)} structures selected; {force.workers} workers of {wish.executor} load {named.name}")
        return run(
            db,
            named,
            ids=ids,
            hessian_rows=rows,
            retry_failed=again,
            executor=force.executor,
            options=LabelOptions(pseudo=wish.pseudo, batch_edges=wish.batch_edges, workers=force.workers),
            progress=ProgressLine(),
        )


class ProgressLine:
    """Says on stderr how far a run is, at most every five seconds and at the end."""

    def __init__(self, every: float = 5.0) -> None:
        self._every = every
        self._last = time.monotonic()

    def __call__(self, progress: "Progress") -> None:
        """Print a line when it is time for one."""
        finished = progress.done == progress.total
        if not progress.total or (time.monotonic() - self._last < self._every and not finished):
            return
        self._last = time.monotonic()
        rate = progress.done / max(progress.seconds, 1e-9)
        left = "" if finished or not progress.seconds_left else f", {_span(progress.seconds_left)} left"
        talk(
            f"{progress.done}/{progress.total} structures, {progress.rows} rows, {progress.failed} failed, "
            f"{rate:.1f} structures/s{left}"
        )


def forecast_lines(found: "Forecast") -> list[str]:
    """What a run would take, for people."""
    return [
        f"to label    {found.structures} structures, {found.rows} Hessian rows ({found.already} structures have "
        f"everything already, {found.skipped} failed in earlier runs)",
        f"time        about {_span(found.seconds)} in one process like this one",
        f"disk        about {found.bytes / 1e6:.1f} MB",
        f"probe       {found.probed} structures, {found.failed} of them failed; nothing was stored",
        *(f"            structure {identity}: {reason}" for identity, reason in found.reasons[:3]),
    ]


def report_lines(report: "LabelReport", *, pseudo: bool = False) -> list[str]:
    """What a run did, for people."""
    method = report.method
    lines = [
        f"method      {report.method_id}: {method.name}, weights {(method.weights_sha256 or '')[:12]}, {method.dtype}, "
        f"{method.package} {method.package_version}, {method.e0_convention}",
        f"labelled    {report.labelled} of {report.requested} ({report.already} had everything already)",
        f"rows        {report.rows} Hessian rows",
        f"failed      {report.failed}"
        + (f", {report.skipped} from earlier runs not retried" if report.skipped else ""),
        *(f"            structure {identity}: {reason}" for identity, reason in report.reasons[:3]),
    ]
    if report.skipped:
        lines.append("            retry them with --retry-failed")
    if report.seconds and report.labelled:
        per_second = f"{report.labelled / report.seconds:.1f} structures/s, {report.rows / report.seconds:.1f} rows/s"
        lines.append(f"time        {_span(report.seconds)}, {per_second}")
    if pseudo:
        lines.append(
            f"train       mlipdb train --subset SUBSET --set data.method={report.method_id}{_energy_setting(method)}"
        )
    for other in report.other_methods:
        lines.append(
            f"note        {other.name} with weights {(other.weights_sha256 or '')[:12]} ({other.package} "
            f"{other.package_version}, {other.dtype}) is another method; its labels are kept apart"
        )
    return lines


def _energy_setting(method: "Method") -> str:
    """What a training needs to be told of the energies: nothing where they are the usual ones."""
    from mlipdb.labels import ENERGY_KINDS

    kind = method.energy_kind or ENERGY_KINDS[0]
    return "" if kind == ENERGY_KINDS[0] else f" --set data.energy={kind}"


def check_lines(check: "LabelComparison | None", *, method_id: int) -> list[str]:
    """The teacher beside the source, for people: errors of what both have, and what fails."""
    if check is None:
        return []
    told = [f"{line.quantity} {line.mae or 0.0:.3g} {line.unit}" for line in check.lines if line.of == "both"]
    lines = [f"check       beside the labels that came with {check.sampled} structures, MAE: {'; '.join(told)}"]
    lines += [f"            {line.quantity} FAILS: {line.words or line.limit}" for line in check.failures]
    return [*lines, f"            more: mlipdb labels compare source {method_id}"]


def _span(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
