"""`mlipdb quickstart`."""

import sys
from pathlib import Path

import typer

FOLDER = "mlipdb-quickstart"


def quickstart(context: typer.Context) -> None:
    """Ingest, query, label, train and evaluate on data that ships; no network. Database: ./mlipdb-quickstart."""
    from mlipdb.trainers.live import make_reporter
    from mlipdb.trainers.quickstart import quickstart as run

    path = Path(context.find_root().params.get("db") or FOLDER)
    run(path, say=lambda text: print(text, flush=True), reporter=make_reporter(sys.stderr))
