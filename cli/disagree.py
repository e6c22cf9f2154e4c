"""`mlipdb labels disagree`, `disagreements`, `disputed`: where methods contradict each other."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.labelling.disagreement import DisagreementReport
    from mlipdb.labelling.disputed import Disputed

HEADINGS = ("id", "external id", "formula", "material", "forces (eV/Å)", "energy (meV/atom)")


def add_to(app: typer.Typer) -> None:
    """Hang the commands into the group `labels`."""
    app.command()(disagree)
    app.command("disagreements")(list_disagreements)
    app.command()(disputed)


def disagree(
    context: typer.Context,
    methods: Annotated[list[str], typer.Argument(metavar="A B…", help="Names or numbers of two or more methods.")],
    subset: Annotated[str, typer.Option(help="Which structures: a frozen subset's name or any filter.")] = "all",
    name: Annotated[str | None, typer.Option(help="Of the result, for filters; by default the methods' names.")] = None,
    json: JsonOption = False,
) -> None:
    """Work out how far methods are apart on each structure that all have labelled; filters can ask for it."""
    from mlipdb.labelling.disagreement import disagree
    from mlipdb.methods import find_method

    database = open_database(context)
    report = disagree(database, [find_method(database, each) for each in methods], subset=subset, name=name)
    if json:
        show_json(report)
    else:
        print("\n".join(_report_lines(report)))
        ways = f"mlipdb query '_mlipdb_disagreement_{report.name} > 0.1'; mlipdb labels disputed {report.name}"
        talk(f"ask for it: {ways}")


def list_disagreements(
    context: typer.Context,
    forget: Annotated[str | None, typer.Option(metavar="NAME", help="Drop this one; the labels stay.")] = None,
    json: JsonOption = False,
) -> None:
    """Bring the stored disagreements up to date with the labels, and list them."""
    from mlipdb.labelling.disagreement import forget_disagreement, refresh_disagreements

    database = open_database(context)
    if forget is not None:
        forget_disagreement(database, forget)
    reports = refresh_disagreements(database)
    if json:
        show_json({"disagreements": reports})
    else:
        print("\n".join(line for report in reports for line in _report_lines(report)))
        if not reports:
            talk("no disagreement is stored; make one with `mlipdb labels disagree A B`")
    raise typer.Exit(1 if any(report.problem for report in reports) else 0)


def disputed(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a stored disagreement.")],
    most: Annotated[int, typer.Option(min=1, help="How many structures.")] = 20,
    by: Annotated[str, typer.Option(help="forces or energy.")] = "forces",
    subset: Annotated[str, typer.Option(help="Only of these: a frozen subset's name or any filter.")] = "all",
    one_per_material: Annotated[
        bool, typer.Option("--one-per-material", help="Only the first of each material.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """List the structures on which methods are farthest apart, farthest first: what to calculate again."""
    from mlipdb.labelling.disputed import most_disputed

    found = most_disputed(
        open_database(context), name, most=most, by=by, filter=subset, one_per_material=one_per_material
    )
    if json:
        show_json({"disagreement": name, "by": by, "structures": found})
        return
    rows = [HEADINGS, *(_cells(structure) for structure in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _report_lines(report: "DisagreementReport") -> list[str]:
    methods = ", ".join(map(str, report.methods))
    changed = f"{report.fresh} worked out" + (f", {report.gone} gone with their labels" if report.gone else "")
    lines = [f"{report.name}", f"  of methods   {methods} on {report.filter!r}"]
    lines.append(f"  structures   {report.structures} ({changed})")
    for title, numbers, scale, unit in (
        ("forces", report.forces, 1.0, "eV/Å"),
        ("energy", report.energy, 1e3, "meV/atom"),
    ):
        told = "unknown"
        if numbers is not None:
            median, tenth, hundredth, largest = (f"{scale * number:.4g}" for number in numbers)
            told = f"median {median}, 90 % {tenth}, 99 % {hundredth}, largest {largest} {unit}"
        lines.append(f"  {title:12s} {told}")
    return [*lines, f"  outdated     {report.problem}"] if report.problem else lines


def _cells(structure: "Disputed") -> tuple[str, ...]:
    forces = "" if structure.forces is None else f"{structure.forces:.4g}"
    energy = "" if structure.energy is None else f"{1e3 * structure.energy:.4g}"
    facts = (structure.external_id, structure.chemical_formula_reduced, structure.material)
    return (str(structure.id), *facts, forces, energy)
