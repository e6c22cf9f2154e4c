"""A comparison as a table of text."""

from mlipdb.trainers.forgetting.compare import Forgetting

Cell = str | float | int | None
ERRORS = (
    ("energy MAE meV/atom", "energy_mae"),
    ("energy MAE with its E0s meV/atom", "energy_aligned_mae"),
    ("energy MAE after fitted offsets meV/atom", "energy_fitted_mae"),
    ("force MAE meV/Å", "forces_mae"),
    ("stress MAE meV/Å³", "stress_mae"),
)
FAULTS = (
    ("walls", "walls"),
    ("breaks", "breaks"),
    ("walls reach to", "reach"),
    ("holes", "holes"),
    ("deepest hole eV", "deepest"),
    ("force flips", "flips"),
)


def rows(found: Forgetting) -> list[tuple[str, str, str]]:
    """What, before, after."""
    before, after = found.before.numbers(), found.after.numbers()
    lines: list[tuple[str, str, str]] = []
    for where in ("target", "foundation"):
        subset = found.subset if where == "target" else found.foundation_subset
        head = f"{where} ({subset}, {after[where]['structures']} structures)"
        lines += [(f"{head}: {name}", _cell(before[where][key]), _cell(after[where][key])) for name, key in ERRORS]
    if (kept := found.kept) is not None:
        lines += [(f"foundation, its own readout: {name}", "", _cell(getattr(kept, key))) for name, key in ERRORS]
    for kind in ("dimers", "cells"):
        if count := after[kind]["curves"]:
            named = f"{kind} ({count})"
            lines += [(f"{named}: {name}", _cell(before[kind][key]), _cell(after[kind][key])) for name, key in FAULTS]
    if after["drift"] is not None:
        head = f"NVE, {found.after.drift.steps if found.after.drift else 0} fs: drift meV/atom/ps"
        lines.append((head, _drift(before["drift"]), _drift(after["drift"])))
    return lines


def table(found: Forgetting) -> str:
    """The rows as text, columns aligned."""
    lines = [("", f"before: {found.against}", f"after: {found.target}"), *rows(found)]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{what.ljust(widths[0])}  {old.ljust(widths[1])}  {new}".rstrip() for what, old, new in lines)


def _drift(values: dict[str, Cell]) -> str:
    return f"exploded after {values['steps']} steps" if values["exploded"] else _cell(values["drift"])


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
