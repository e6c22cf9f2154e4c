"""The commands `recipe list` and `recipe show`."""

from typing import Annotated

import typer

from mlipdb.cli.context import JsonOption, show_json

app = typer.Typer(help="Recipes of trainings: every setting, in TOML.", no_args_is_help=True)

ADVICE = "variants: NAME/STUDENT or NAME/STUDENT/SUBSET, such as {example}; mlipdb recipe list --variants"


@app.command("list")
def list_recipes(
    variants: Annotated[bool, typer.Option("--variants", help="Also each student and subset of a recipe.")] = False,
    json: JsonOption = False,
) -> None:
    """List the recipes that ship, and what each is for."""
    from mlipdb.trainers.cookbook import describe, recipe_names, variant_names

    found = {name: {"about": describe(name), "variants": variant_names(name)} for name in recipe_names()}
    if json:
        show_json({"recipes": found})
        return
    for name, facts in found.items():
        print(f"{name:<12} {facts['about']}")
        for variant in facts["variants"] if variants else ():
            print(f"  {variant}")
        if facts["variants"] and not variants:
            print(f"{'':<12} {ADVICE.format(example=facts['variants'][-1])}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped recipe, a variant of it, or a .toml file.")],
    setting: Annotated[list[str] | None, typer.Option("--set", help="key=value over the recipe; repeatable.")] = None,
    json: JsonOption = False,
) -> None:
    """Print every setting of a recipe, defaults included; as TOML, which is a recipe again."""
    from mlipdb.trainers.cookbook import load_recipe, recipe_text
    from mlipdb.trainers.settings import to_mapping

    recipe = load_recipe(name, settings=tuple(setting or ()))
    if json:
        show_json(to_mapping(recipe))
        return
    print(recipe_text(recipe), end="")
