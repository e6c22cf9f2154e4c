"""A small foundation to fine-tune, shared by the tests of fine-tuning."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlipdb.database import Database
from mlipdb.subsets.subset import freeze
from mlipdb.testing.training import TINY, training_database
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.finetune import FinetuneWish, ReplayChoice, finetune, strategy_recipe
from mlipdb.trainers.progress import PlainReporter, Reporter
from mlipdb.trainers.train import TrainResult, train

SMALL = ("batch.graphs=2", "epochs=2", "checkpoint.every_steps=1", "data.threads=1", "log.tensorboard=false")
KEPT = ReplayChoice(source="kept")


@pytest.fixture(scope="session")
def db(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """The training database with the run ``base``, and the subsets ``target`` (water-like) and ``kept`` (the rest)."""
    db = training_database(tmp_path_factory.mktemp("finetune") / "db", structures=27)
    freeze(db, "target", filter='elements HAS ALL "H","O"', fractions=(60, 40, 0), seed=0)
    freeze(db, "kept", filter='elements HAS "C"', fractions=(60, 40, 0), seed=3)
    recipe = load_recipe("nano", settings=[*TINY, "epochs=4"])
    train(db, "toy", recipe=recipe, reporter=PlainReporter(io.StringIO()), name="base")
    return db


@pytest.fixture(scope="session")
def base(db: Database) -> Path:
    """The folder of the foundation's run."""
    return db.path / "runs" / "base"


@pytest.fixture(scope="session")
def tune(db: Database) -> Callable[..., TrainResult]:
    """Fine-tune ``base``, or another foundation, on ``target`` by a strategy, with settings over a small recipe."""

    def run(
        strategy: str, *settings: str, foundation: str = "base", reporter: Reporter | None = None, **options: Any
    ) -> TrainResult:
        wish = FinetuneWish(**{"foundation": foundation, "subset": "target", **options})
        recipe = strategy_recipe(strategy, settings=[*SMALL, *settings])
        return finetune(db, wish, recipe=recipe, reporter=reporter or PlainReporter(io.StringIO(), every=0.0))

    return run


@pytest.fixture(scope="session")
def tuned(tune: Callable[..., TrainResult]) -> Callable[[str], TrainResult]:
    """The run of each strategy, made once."""
    made: dict[str, TrainResult] = {}

    def of(strategy: str) -> TrainResult:
        if strategy not in made:
            replay = KEPT if "replay" in strategy else None
            made[strategy] = tune(strategy, name=f"whole-{strategy}", replay=replay)
        return made[strategy]

    return of
