"""Train the demonstration teacher that ships as mlipdb/data/nequix-demo.nqx.

    python scripts/train_demo_teacher.py [--epochs 200]

A small Nequix on the training part of the sample that ships, with the split of `mlipdb quickstart`: the crystals that
quickstart tests on are new to it. Ten minutes on two cores.
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import mlipdb
from mlipdb.ingest import IngestSettings, ingest, parse_method
from mlipdb.subsets import subset as subsets
from mlipdb.trainers.checkpoint import load_model
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.evaluate import evaluate, table
from mlipdb.trainers.live import make_reporter
from mlipdb.trainers.models.nqx import save_nqx
from mlipdb.trainers.quickstart import SAMPLE, SEED
from mlipdb.trainers.run_files import last_checkpoint
from mlipdb.trainers.train import train

SETTINGS = (
    'model.hidden_irreps="32x0e + 32x1o + 16x2e"',
    "model.lmax=2",
    "model.n_layers=3",
    "model.radial_mlp_size=32",
    "optimizer.ema_decay=0.995",
    "loss.stress_mae=50.0",
)


def main() -> None:
    """Ingest, freeze, train, evaluate and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("mlipdb/data/nequix-demo.nqx"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        db = mlipdb.create(Path(scratch) / "db")
        settings = IngestSettings(reader="mptrj", method=parse_method("PBE/GPAW"), workers=0)
        ingest(db, [Path(str(files("mlipdb") / "data" / SAMPLE))], settings=settings)
        subsets.freeze(db, "crystals", filter="all", seed=SEED)
        recipe = load_recipe("nano", settings=(*SETTINGS, f"epochs={options.epochs}"))
        result = train(db, "crystals", recipe=recipe, reporter=make_reporter(sys.stderr), name="demo")
        # The last checkpoint, not the best: five crystals are too few to choose by, and a teacher must know its own.
        last = last_checkpoint(result.folder) or result.best
        print(table(evaluate(db, str(last), subset="crystals")))
        save_nqx(options.out, load_model(last))
    print(f"wrote {options.out}, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
