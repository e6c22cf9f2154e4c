"""A report as one HTML file that needs nothing but itself."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mlipdb.stats import figures
from mlipdb.stats.document import document, table, write_document
from mlipdb.trainers.metrics import QUANTITIES, UNITS
from mlipdb.trainers.report.errors import GroupError, WorstStructure
from mlipdb.trainers.report.gather import RunReport
from mlipdb.trainers.run_summary import best_entry

POINTS = 20_000  # of a plot
GROUPS = 30  # space groups in the table, the commonest
STYLE = "pre { background: #f3f3f3; padding: 1rem; overflow-x: auto; font-size: 13px } td { vertical-align: top }\n"
OTHERWISE = "read `mlipdb runs show`, or `mlipdb report --json`"


def write_report(path: Path, report: RunReport) -> None:
    """Write the page, its plots and the JavaScript that draws them to a file.

    Raises MissingExtraError without pymatviz, ConfigError where the file cannot be written.
    """
    write_document(path, page(report), option="--to")


def page(report: RunReport) -> str:
    """The text of the page; the same report gives the same text."""
    figures.check_plots(otherwise=OTHERWISE)
    parts = [*_head(report), *_errors(report), *_curves(report), *_parity(report), *_elements(report)]
    parts += [*_space_groups(report), *_worst(report), *_pace(report), *_provenance(report)]
    return document(f"mlipdb: run {report.run.name}", parts, style=STYLE)


def _head(report: RunReport) -> Iterable[str]:
    run, model = report.run, report.run.config["recipe"]["model"].get("name", "nequix")
    yield f"<h1>Run {escape(run.name)}</h1>"
    epochs = f"{len(run.metrics.get('epochs', ()))} of {run.config['recipe']['epochs']} epochs"
    taken = "" if run.finished_at is None else f", ended {run.finished_at:%Y-%m-%d %H:%M} UTC"
    yield (
        f"<p>{escape(str(model))} with {report.parameters:,} parameters; {escape(run.state)} after {epochs}, begun "
        f"{run.started_at:%Y-%m-%d %H:%M} UTC{taken}. Errors below are of the checkpoint of epoch "
        f"{(best_entry(run) or {}).get('epoch', '?')} on {_sampled(report)}.</p>"
    )
    if run.state == "failed":
        yield f'<p class="error">Failed: {escape(str(run.metrics.get("error", "no reason was kept")))}</p>'


def _sampled(report: RunReport) -> str:
    count, size = len(report.predictions), report.part_size
    which = f"all {size:,}" if count == size else f"a sample of {count:,} of the {size:,}"
    return f"{which} structures of the {report.part} part of <code>{escape(report.subset.name)}</code>"


def _errors(report: RunReport) -> Iterable[str]:
    """Errors on the part; below them those of evaluations that were kept, and of the training itself."""
    yield "<h2>Errors</h2>"
    entry = best_entry(report.run) or {}
    lines = [(f"{report.part}, this report", report.errors)]
    lines += [(f"{part}, mlipdb evaluate", errors) for part, errors in report.evaluations.items()]
    lines += [(f"{part}, during training", entry[part]) for part in ("validation", "train") if entry.get(part)]
    columns = [f"{quantity}_{kind}" for quantity in QUANTITIES for kind in ("mae", "rmse")]
    heads = [f"{name.replace('_', ' ')} ({UNITS[name.partition('_')[0]]})" for name in columns]
    yield table(["", *heads], [[where, *(_number(errors.get(name)) for name in columns)] for where, errors in lines])


def _curves(report: RunReport) -> Iterable[str]:
    """Loss, each error, and rate against epochs."""
    entries = report.run.metrics.get("epochs", [])
    if not entries:
        return
    yield "<h2>Learning curves</h2>"
    labels = {"loss": "loss"} | {f"{name}_mae": f"{name} MAE ({UNITS[name]})" for name in QUANTITIES}
    for key, label in labels.items():
        lines = {}
        for part in ("train", "validation"):
            known = [entry for entry in entries if (entry[part] or {}).get(key) is not None]
            if known:
                lines[part] = ([entry["epoch"] for entry in known], [entry[part][key] for entry in known])
        if lines:
            figure = figures.curves(lines, title=label, x="epoch", y=label, logarithmic=True)
            yield figures.as_division(figure, name=f"curve-{key}")
    rates = [(entry["epoch"], entry["learning_rate"]) for entry in entries if "learning_rate" in entry]
    if rates:
        lines = {"learning rate": ([epoch for epoch, _ in rates], [rate for _, rate in rates])}
        figure = figures.curves(lines, title="learning rate", x="epoch", y="at the epoch's start", logarithmic=False)
        yield figures.as_division(figure, name="curve-rate")


def _parity(report: RunReport) -> Iterable[str]:
    found = report.predictions
    yield "<h2>Predictions against labels</h2>"
    per_atom = (found.energies / found.atoms[:, None])[found.has_energy]
    energy = report.run.config["recipe"]["data"]["energy"]
    yield from _scatter(per_atom, name="energy", title=f"{energy} per atom", unit="eV/atom")
    yield from _scatter(found.forces.reshape(-1, 2), name="forces", title="force components", unit="eV/Å")
    yield from _scatter(found.stresses.reshape(-1, 2), name="stress", title="stress components", unit="eV/Å³")


def _scatter(values: Float64[np.ndarray, "points 2"], *, name: str, title: str, unit: str) -> Iterable[str]:
    if len(values):
        shown = values[:: 1 + len(values) // POINTS]
        figure = figures.scatter(shown, names=("label", "prediction"), title=title, unit=unit)
        yield figures.as_division(figure, name=f"parity-{name}")


def _elements(report: RunReport) -> Iterable[str]:
    yield "<h2>Errors by element</h2>"
    yield "<p>Energies of the structures that hold an element; forces on its own atoms.</p>"
    for quantity in ("forces", "energy"):
        values = {group.name: getattr(group, f"{quantity}_mae") for group in report.elements}
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            title = f"{quantity} MAE ({UNITS[quantity]})"
            figure = figures.periodic_values(known, title=title, unit=UNITS[quantity])
            yield figures.as_division(figure, name=f"elements-{quantity}")
    yield _groups("element", report.elements)


def _space_groups(report: RunReport) -> Iterable[str]:
    yield "<h2>Errors by space group</h2>"
    yield _groups("space group", report.space_groups[:GROUPS])
    if (left := len(report.space_groups) - GROUPS) > 0:
        yield f"<p>{left} rarer space groups are left out; mlipdb report --json has them.</p>"


def _groups(what: str, groups: Sequence[GroupError]) -> str:
    heads = (what, "structures", "atoms", "energy MAE (meV/atom)", "force MAE (meV/Å)")
    rows = [(g.name, g.structures, g.atoms, _number(g.energy_mae), _number(g.forces_mae)) for g in groups]
    return table(heads, rows)


def _worst(report: RunReport) -> Iterable[str]:
    yield "<h2>Worst structures</h2>"
    yield "<p><code>mlipdb show ID</code> tells where a structure came from and what speaks against its label.</p>"
    for title, structures in (("By energy", report.worst_energies), ("By force", report.worst_forces)):
        if structures:
            yield f"<h3>{title}</h3>"
            yield _structures(structures)


def _structures(structures: Sequence[WorstStructure]) -> str:
    heads = ("structure", "external id", "formula", "space group", "atoms", "energy error (meV/atom)",
             "largest force error (meV/Å)", "stress MAE (meV/Å³)")  # fmt: skip
    rows = [
        (str(s.id), s.external_id, s.formula, s.space_group, s.atoms, _number(s.energy_error),
         _number(s.largest_force_error), _number(s.stress_mae))
        for s in structures
    ]  # fmt: skip
    return table(heads, rows)


def _pace(report: RunReport) -> Iterable[str]:
    known = [line for line in report.pace if line.structures_per_second is not None]
    if not known:
        return
    yield "<h2>Throughput</h2>"
    rates = [line.structures_per_second or 0.0 for line in known]
    seconds = sum(line.seconds for line in report.pace)
    yield (
        f"<p>{float(np.median(rates)):,.1f} structures a second (median over epochs, between an epoch's first step and "
        f"its last); {seconds:,.0f} s in all, with validation and compilation.</p>"
    )
    lines = {"structures/s": ([line.epoch for line in known], rates)}
    figure = figures.curves(lines, title="structures a second", x="epoch", y="structures/s", logarithmic=False)
    yield figures.as_division(figure, name="throughput")


def _provenance(report: RunReport) -> Iterable[str]:
    """What went in: subset, sources, methods, how the teacher fitted, recipe and versions."""
    run, subset = report.run, report.subset
    yield "<h2>Subset</h2>"
    sizes = ", ".join(f"{part} {len(ids):,}" for part, ids in subset.splits.items())
    yield (
        f"<p><code>{escape(subset.name)}</code>: {len(subset.ids):,} structures of filter "
        f"<code>{escape(subset.filter)}</code>, split by {escape(subset.split_by)} with seed {subset.seed}: {sizes}. "
        f"Hash <code>{escape(subset.hash)}</code>.</p>"
    )
    heads = ("source", "version", "structures", "licence", "origin", "sha256", "citation")
    yield table(
        heads,
        [
            (s.name, s.version or "", s.structures, s.licence or "not stated", s.uri, (s.sha256 or "")[:16],
             s.citation or "")
            for s in report.sources
        ],
    )  # fmt: skip
    yield "<h2>Labels</h2>"
    yield _methods(report)
    yield from _alignment(report)
    if run.config.get("accept_labels"):
        yield '<p class="warning">Trained though the teacher\'s labels contradict the DFT labels (--accept-labels).</p>'
    yield f"<h2>Recipe</h2>\n<pre>{escape(report.recipe)}</pre>"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    yield f"<p>Versions: {escape(versions)}. Files: <code>{escape(str(run.path))}</code></p>"


def _methods(report: RunReport) -> str:
    heads = ("number", "used for", "name", "kind", "functional", "package", "weights (sha256)", "structures",
             "Hessian rows")  # fmt: skip
    return table(
        heads,
        [
            (use.id, use.use, use.method.name, use.method.kind, use.method.functional or "",
             " ".join(filter(None, (use.method.package or use.method.code, use.method.package_version))),
             (use.method.weights_sha256 or "")[:16], use.structures, use.hessian_rows)
            for use in report.methods
        ],
    )  # fmt: skip


def _alignment(report: RunReport) -> Iterable[str]:
    found = report.run.metrics.get("data", {}).get("alignment")
    if found:
        way = report.run.config["recipe"]["distillation"]["alignment"]
        yield (
            f"<p>The teacher's energies are {1e3 * found['rms_before']:.1f} meV/atom (rms) from the labels, "
            f"{1e3 * found['rms_after']:.1f} after an offset per element; this run used alignment {escape(way)}.</p>"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"
