"""`mlipdb ingest`: bring a file's structures and labels into the database."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, create_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.ingest import Choice, IngestReport, IngestSettings
    from mlipdb.ingest.checks import Finding

SHOWN = 5  # quarantined records in the summary


def ingest(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A published source (mlipdb source list), a format (mptrj, extxyz, vasprun, …), or auto.",
        ),
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH…", help="Files or folders; a published source without one is fetched."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the source; default: the format's or the file's.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="QUANTITY=KEY", help="Which key is a quantity: energy=REF_energy.")
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(metavar="QUANTITY=UNIT", help="Unit of a quantity: energy=kcal/mol.")
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="FUNCTIONAL/CODE", help="Level of theory: PBE/VASP.")] = None,
    no_symmetry: Annotated[bool, typer.Option("--no-symmetry", help="Do not search for space groups.")] = False,
    symprec: Annotated[float, typer.Option(help="Tolerance of the space-group search in Å.")] = 1e-2,
    workers: Annotated[int | None, typer.Option(help="Processes that read and search; default: one per core.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Check all first; store nothing where a check finds anything.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing; say where to put the file.")] = False,
    json: JsonOption = False,
) -> None:
    """Take structures and labels from files. Repeating it, after a crash or not, ends with the same rows."""
    from mlipdb.ingest import IngestSettings, parse_method
    from mlipdb.ingest import ingest as run

    settings = IngestSettings(
        reader=what,
        name=name,
        method=parse_method(method) if method else None,
        keys=_pairs(key, "--key"),
        units=_pairs(unit, "--unit"),
        symprec=None if no_symmetry else symprec,
        workers=workers,
        strict=strict,
    )
    choice = _choice(settings, paths or [], offline=offline)
    db, told = create_database(context), EarlyFindings()
    report = run(db, choice.paths, settings=choice.settings, progress=ProgressLine(), warn=told)
    show_report(report, told=told.findings, json=json)


def _choice(settings: "IngestSettings", paths: list[Path], *, offline: bool) -> "Choice":
    """What to read; a usage error where a path is missing."""
    from mlipdb.ingest import NoPathError, choose

    try:
        choice = choose(settings, paths, offline=offline, progress=DownloadLine)
    except NoPathError as error:
        raise typer.BadParameter(str(error), param_hint="PATH") from error
    for note in choice.notes:
        talk(note)
    return choice


def _pairs(texts: list[str] | None, flag: str) -> dict[str, str]:
    """``energy=REF_energy`` as a pair; a usage error where there is no equals sign."""
    pairs = {}
    for text in texts or []:
        quantity, equals, value = text.partition("=")
        if not (quantity and equals and value):
            raise typer.BadParameter(f"{text!r} is not of the form QUANTITY=VALUE", param_hint=flag)
        pairs[quantity] = value
    return pairs


def show_report(report: "IngestReport", *, told: "Sequence[Finding]", json: bool) -> None:
    """Print what an ingest did; in text, of the findings those that were not told like this before."""
    from mlipdb.ingest import describe

    if json:
        show_json(describe(report))
        return
    read = f"{report.records} records read in {report.seconds:.1f} s"
    print(f"{report.source}: {read}; the source has {report.structures} structures")
    print(f"  taken        {report.taken}")
    print(f"  duplicates   {report.duplicates} ({report.already_taken} were taken before)")
    print(f"  quarantined  {report.quarantined}")
    for record in report.rejected[:SHOWN]:
        print(f"    {record.key} ({record.location}): {record.reason}")
    if report.quarantined > SHOWN:
        print("    … --json lists them; the table quarantine has them all")
    _show_findings(report.findings, told)
    for note in report.notes:
        talk(f"note: {note}")


def _show_findings(findings: "Sequence[Finding]", told: "Sequence[Finding]") -> None:
    """Print what is new or changed since it was told."""
    standing = [finding.check for finding in findings if finding in told]
    if standing:
        print(f"  findings     as told before the first record was stored: {', '.join(standing)}")
    for finding in findings:
        if finding not in told:
            print(f"  {finding.severity:12s} {finding.check}: {finding.message}")
    left = {finding.check for finding in findings}
    gone = [finding.check for finding in told if finding.check not in left]
    if gone:
        print(f"  findings     not among all records, though among the first: {', '.join(gone)}")


class EarlyFindings:
    """Says what the checks find in the first records, before anything is stored, and keeps it."""

    def __init__(self) -> None:
        self.findings: "list[Finding]" = []  # noqa: UP037

    def __call__(self, findings: "Sequence[Finding]") -> None:
        """Take findings and tell them."""
        self.findings += findings
        for finding in findings:
            talk(f"{finding.severity}: {finding.check}: {finding.message}")


class ProgressLine:
    """Frames and frames/s on one line of a terminal; silent elsewhere."""

    def __init__(self, every: float = 0.5) -> None:
        self._start = self._last = time.monotonic()
        self._every = every

    def __call__(self, report: "IngestReport") -> None:
        """Rewrite the line when it is time."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._last >= self._every:
            self._last = now
            rate = report.records / (now - self._start)
            text = f"{report.records} frames, {rate:.0f} frames/s, {report.quarantined} quarantined"
            print(f"\r{text:60s}", end="", file=sys.stderr, flush=True)


class DownloadLine:
    """Megabytes and MB/s on one line of a terminal; silent elsewhere."""

    def __init__(self, name: str, every: float = 0.5) -> None:
        self._name = name
        self._start = self._last = time.monotonic()
        self._first: int | None = None
        self._every = every

    def __call__(self, done: int, total: int | None) -> None:
        """Rewrite the line when it is time."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if sys.stderr.isatty() and now - self._last >= self._every:
            self._last = now
            rate = (done - self._first) / 1e6 / (now - self._start)
            whole = f" of {total / 1e6:.0f}" if total else ""
            print(
                f"\r{self._name}: {done / 1e6:.0f}{whole} MB, {rate:.1f} MB/s   ", end="", file=sys.stderr, flush=True
            )
