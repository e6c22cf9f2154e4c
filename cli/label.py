"""`mlipdb label`: ask a teacher."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.labelling.compare import Comparison
    from mlipdb.labelling.runner import LabelReport, Progress


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
    json: JsonOption = False,
) -> None:
    """Label structures with a teacher: energy, forces, stress, atomic energies and Hessian rows."""
    from mlipdb.labelling import TeacherOptions, compare_with_source, load_teacher
    from mlipdb.labelling import label as run

    db = open_database(context)
    ids = db.query(subset).ids
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
    chosen = load_teacher(teacher, options)
    talk(f"{len(ids)} structures selected; teacher {chosen.info.name}, weights {chosen.info.weights_sha256[:12]}")
    report = run(db, chosen, ids=ids, hessian_rows=hessian_rows, retry_failed=retry_failed, progress=ProgressLine())
    check = compare_with_source(db, report.method_id, ids=ids)
    if json:
        show_json({**asdict(report), "comparison": check and asdict(check)})
    else:
        print("\n".join([*report_lines(report), *comparison_lines(check)]))
    raise typer.Exit(1 if report.failed and not (report.labelled or report.already) else 0)


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


def report_lines(report: "LabelReport") -> list[str]:
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
    for other in report.other_methods:
        lines.append(
            f"note        {other.name} with weights {(other.weights_sha256 or '')[:12]} ({other.package} "
            f"{other.package_version}, {other.dtype}) is another method; its labels are kept apart"
        )
    return lines


def comparison_lines(comparison: "Comparison | None") -> list[str]:
    """The teacher against the source, for people."""
    if comparison is None:
        return []
    parts = [f"energy rms {1e3 * comparison.energy_rms:.0f} meV/atom as stored"]
    if comparison.aligned_energy_rms is not None:
        parts.append(f"{1e3 * comparison.aligned_energy_rms:.1f} with a constant per element taken off")
    if comparison.force_mae is not None:
        parts.append(f"force MAE {1e3 * comparison.force_mae:.1f} meV/Å")
    return [f"check       against the source's labels of {comparison.structures} structures: {', '.join(parts)}"]


def _span(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
