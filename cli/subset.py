"""The commands `subset freeze`, `list`, `show` and `diff`."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlipdb.cli.context import JsonOption, open_database, show_json, talk

if TYPE_CHECKING:
    from mlipdb.subsets import FrozenSubset, TrainingStatistics

app = typer.Typer(help="Frozen answers of a filter, split into train, validation and test.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a frozen subset.")]


@app.command()
def freeze(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A letter, then letters, digits, _ . + and -.")],
    filter: Annotated[str, typer.Argument(help="Such as: Y AND gap>=5. See docs/queries.md.")],
    split_by: Annotated[
        str, typer.Option(help="material, system, element:Y, fold:1/5, tag:split or frame. See docs/splits.md.")
    ] = "material",
    split_file: Annotated[
        Path | None, typer.Option(help="Official split: JSON lists of rows or ids by part.", exists=True)
    ] = None,
    fractions: Annotated[str, typer.Option(help="Percent for train/validation/test.")] = "90/5/5",
    seed: Annotated[int, typer.Option(help="Another seed is another split.")] = 0,
    json: JsonOption = False,
) -> None:
    """Freeze what a filter matches now, so that it can be trained on and named again."""
    from mlipdb.subsets import SplitLeakWarning, freeze, parse_fractions

    settings: dict[str, Any] = {"split_by": split_by, "fractions": parse_fractions(fractions), "seed": seed}
    settings["split_file"] = split_file
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", SplitLeakWarning)
        subset = freeze(open_database(context), name, filter=filter, **settings)
    for warning in caught:
        talk(f"warning: {warning.message}")
    _print_subset(context, subset, json=json)


@app.command("list")
def list_subsets(context: typer.Context, json: JsonOption = False) -> None:
    """List the frozen subsets."""
    from mlipdb.subsets import overview

    found = overview(open_database(context))
    if json:
        show_json({"subsets": found})
        return
    for row in found:
        print(f"{row['name']:<24} {row['size']:>10}  by {row['split_by']} {row['fractions']}  {row['filter']}")
    if not found:
        talk("no frozen subset yet; make one with `mlipdb subset freeze NAME FILTER`")


@app.command()
def show(context: typer.Context, name: NameArgument, json: JsonOption = False) -> None:
    """Show what a frozen subset holds and how it is split."""
    from mlipdb.subsets import load

    _print_subset(context, load(open_database(context), name), json=json)


@app.command()
def stats(
    context: typer.Context,
    name: NameArgument,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    cutoff: Annotated[float, typer.Option(help="In Å, for neighbours; 0 counts none.")] = 6.0,
    e0: Annotated[str, typer.Option(help="fit, isolated, isolated:SOURCE, or a JSON file in eV.")] = "fit",
    energy: Annotated[str, typer.Option(help="Which energy; see docs/training.md.")] = "energy_uncorrected",
    method: Annotated[str, typer.Option(help="Labels of this method; by default the source's.")] = "",
    json: JsonOption = False,
) -> None:
    """Say what a training would start from: E0s, mean, scale, neighbours. Worked out once and kept."""
    from mlipdb.methods import find_method
    from mlipdb.subsets import Request, load, parse_reference, training_statistics

    db = open_database(context)
    request = Request(part=part, cutoff=cutoff or None, energy=energy, reference=parse_reference(e0))
    chosen = find_method(db, method, kind="dft") if method else None
    found = training_statistics(db, load(db, name), request, method_id=chosen)
    if json:
        show_json(found.describe())
    else:
        _print_statistics(found)


@app.command()
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a frozen subset.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another.")],
    json: JsonOption = False,
) -> None:
    """Compare two frozen subsets: what only one has, and what changed its part of the split."""
    from mlipdb.subsets import diff

    found = diff(open_database(context), first, second)
    groups = {"only_first": found.only_first, "only_second": found.only_second, "moved": found.moved}
    if json:
        show_json({"first": first, "second": second, "same": found.same, "both": len(found.both), **groups})
        return
    titles = ("in both", f"only in {first}", f"only in {second}", "in another part")
    for title, ids in zip(titles, (found.both, found.only_first, found.only_second, found.moved), strict=True):
        print(f"{title:<{max(map(len, titles))}}  {_ids(ids)}")


def _print_statistics(found: "TrainingStatistics") -> None:
    from mlipdb.structures import SYMBOLS

    print(f"structures   {found.structures} ({found.energies} with energy), {found.atoms} atoms")
    print(f"E0           {found.e0_kind}; rank {found.rank} of {found.elements}, rest {found.residual_rms:.6g} eV/atom")
    for number, value in sorted(found.e0.items()):
        print(f"  {SYMBOLS[number]:<2} {value:.8f} eV")
    print(f"mean         {found.mean:.6g} eV/atom above the E0s")
    print(f"scale        {found.scale:.6g} eV/Å (rms force component)")
    if found.neighbours is not None:
        print(f"neighbours   {found.neighbours:.4g} per atom")
    if found.note:
        talk(f"warning: {found.note}")
    if found.rank < found.elements and found.e0_kind == "fit":
        talk(f"warning: the data decide {found.rank} of {found.elements} E0s only; those of least norm were taken")


def _ids(ids: Any, *, shown: int = 10) -> str:
    """How many, and the first of them."""
    some = " ".join(str(identity) for identity in ids[:shown])
    return f"{len(ids)}" + (f": {some}{' …' if len(ids) > shown else ''}" if len(ids) else "")


def _print_subset(context: typer.Context, subset: "FrozenSubset", *, json: bool) -> None:
    from mlipdb.subsets import materials_per_part

    materials = materials_per_part(open_database(context), subset)
    facts = subset.describe()
    if json:
        show_json(facts | {"materials": materials})
    else:
        for name in ("name", "filter", "size", "hash", "split_by", "fractions", "seed", "created_at"):
            print(f"{name:12s} {facts[name]}")
        for part, ids in subset.splits.items():
            print(f"{part:12s} {len(ids)} structures of {materials[part]} materials")
    for part in subset.empty_parts:
        talk(f"warning: the {part} part is empty: {sum(materials.values())} materials are too few for these fractions")
