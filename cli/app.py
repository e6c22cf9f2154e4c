"""The command line: `mlipdb`."""

import sys
from typing import Annotated

import typer

from mlipdb.cli.bundle import app as bundle_app
from mlipdb.cli.care import gc, repair, verify
from mlipdb.cli.checkpoint import app as checkpoint_app
from mlipdb.cli.db import app as db_app
from mlipdb.cli.disagree import add_to as add_disagreements
from mlipdb.cli.evaluate import evaluate
from mlipdb.cli.export import export
from mlipdb.cli.finetune import finetune
from mlipdb.cli.generate import generate
from mlipdb.cli.ingest import ingest
from mlipdb.cli.label import label
from mlipdb.cli.labels import app as labels_app
from mlipdb.cli.leakage import fingerprint, leakage
from mlipdb.cli.query import query
from mlipdb.cli.quickstart import quickstart
from mlipdb.cli.recipe import app as recipe_app
from mlipdb.cli.report import report
from mlipdb.cli.runs import app as runs_app
from mlipdb.cli.show import show
from mlipdb.cli.source import app as source_app
from mlipdb.cli.stats import stats
from mlipdb.cli.subset import app as subset_app
from mlipdb.cli.train import train
from mlipdb.errors import MlipdbError

app = typer.Typer(
    name="mlipdb",
    help="A database for machine-learned interatomic potentials: ingest, query, label, train.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


@app.callback()
def options(
    db: Annotated[
        str | None, typer.Option("--db", help="Database directory; else $MLIPDB_DB, else ./mlipdb-data.")
    ] = None,
) -> None:
    """A database for machine-learned interatomic potentials: ingest, query, label, train."""


app.command()(quickstart)
app.command()(ingest)
app.add_typer(source_app, name="source")
app.command()(generate)
app.command()(label)
add_disagreements(labels_app)
app.add_typer(labels_app, name="labels")
app.command()(train)
app.command()(finetune)
app.add_typer(recipe_app, name="recipe")
app.command()(evaluate)
app.add_typer(runs_app, name="runs")
app.command()(report)
app.add_typer(checkpoint_app, name="checkpoint")
app.command()(export)
app.command()(show)
app.command()(stats)
app.command()(verify)
app.command()(gc)
app.command()(repair)
app.add_typer(db_app, name="db")
app.command()(query)
app.add_typer(subset_app, name="subset")
app.command()(leakage)
app.command()(fingerprint)
app.add_typer(bundle_app, name="bundle")


def main() -> None:
    """Run the command line; an mlipdb error is one line on stderr and exit code 1."""
    try:
        app()
    except MlipdbError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
