"""Training from a database: freeze the subset, prepare, run the loop, and keep the run in the catalog."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlipdb.database import Database
from mlipdb.errors import TrainError
from mlipdb.methods import find_method
from mlipdb.subsets import subset as subsets
from mlipdb.subsets.subset import FrozenSubset
from mlipdb.trainers.cookbook import load_recipe, save_recipe
from mlipdb.trainers.devices import all_devices, from_first, is_first, others_needed, require_same
from mlipdb.trainers.foundation_place import placed
from mlipdb.trainers.loop import Run, run_training, stopped
from mlipdb.trainers.position import Position
from mlipdb.trainers.prepare import Prepared, Say, label_method, prepare
from mlipdb.trainers.progress import Reporter
from mlipdb.trainers.recipe import Recipe
from mlipdb.trainers.run_files import best_checkpoint, tidy
from mlipdb.trainers.runs import find_run, free_name, run_folder, start_run, update_run
from mlipdb.trainers.settings import to_mapping
from mlipdb.trainers.student import check_kernel, check_losses
from mlipdb.trainers.trackers import Together, check_trackers, make_trackers
from mlipdb.trainers.trust import check_trust


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training left: its name, subset, folder, best checkpoint, and the metrics that are in the catalog."""

    name: str
    subset: str
    folder: Path
    best: Path
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What defines a training, however often it is interrupted."""

    name: str
    subset: FrozenSubset
    recipe: Recipe
    teacher_id: int | None
    method_id: int | None
    accepted: bool = False  # labels that contradict others
    parent: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The plan as the run row keeps it."""
        return {
            "recipe": to_mapping(self.recipe),
            "subset": self.subset.name,
            "teacher_id": self.teacher_id,
            "method_id": self.method_id,
            "accept_labels": self.accepted,
        }


def train(
    db: Database,
    subset: str,
    *,
    recipe: Recipe,
    reporter: Reporter,
    teacher: str | None = None,
    name: str | None = None,
    accept_labels: bool = False,
    parent: str | None = None,
) -> TrainResult:
    """Train a student on a frozen subset, or on a filter, which is frozen first.

    teacher names the method whose atomic energies and Hessian rows are learnt beside the labels. Raises TrainError
    where a teacher's labels contradict the DFT labels, unless accept_labels says that this is known; MlipdbError when
    the data lacks what the recipe needs, TrainError when the training goes astray: the run's row then says ``failed``.
    parent is the run that a fine-tuning starts from.

    Of several processes (devices.join) all call this alike; the first alone writes and speaks.
    """

    def begin() -> bytes:
        plan = _planned(
            db, subset, recipe=recipe, teacher=teacher, name=name, accept_labels=accept_labels, say=reporter.say
        )
        _register(db, replace(plan, parent=parent))
        return plan.name.encode()

    return _guarded(db, _plan(db, from_first(begin).decode()), reporter=reporter, go_on=False)


def _planned(
    db: Database,
    subset: str,
    *,
    recipe: Recipe,
    teacher: str | None,
    name: str | None,
    accept_labels: bool,
    say: Say,
) -> _Plan:
    """What is to be trained, checked before anything is written but the subset."""
    teacher_id = None if teacher is None else find_method(db, teacher, kind="teacher")
    check_trackers(recipe.log)
    check_kernel(recipe.model, recipe.kernel)
    check_losses(recipe.model, weights_in_force(recipe, taught=teacher is not None))
    method_id = label_method(db, recipe)
    frozen = subsets.resolve(db, subset)
    learnt = (teacher_id, method_id)
    check_trust(db, learnt, ids=frozen.splits["train"], accept=accept_labels, say=say)
    name = name or free_name(db, f"{frozen.name}-{recipe.model.get('name', 'nequix')}")
    return _Plan(
        name=name, subset=frozen, recipe=recipe, teacher_id=teacher_id, method_id=method_id, accepted=accept_labels
    )


def resume(db: Database, name: str, *, reporter: Reporter) -> TrainResult:
    """Go on with a run from its last checkpoint; it ends with the same bits as if it had not been interrupted.

    Raises NotFoundError for an unknown run, TrainError when its subset is not what it was.
    """

    def begin() -> bytes:
        recipe, folder = _plan(db, name).recipe, run_folder(db, name)
        update_run(db, name, state="running", metrics=find_run(db, name).metrics)
        tidy(folder)
        _make_folder(folder, recipe=recipe)  # a kill may have come between the row and the folder
        return name.encode()

    return _guarded(db, _plan(db, from_first(begin).decode()), reporter=reporter, go_on=True)


def _plan(db: Database, name: str) -> _Plan:
    """The plan of a run from its row. Raises as resume does."""
    facts = find_run(db, name)
    if facts.kind != "train":
        raise TrainError(f"run {name!r} is of kind {facts.kind!r}; only a training can be resumed")
    frozen = subsets.load(db, facts.config["subset"])
    if frozen.hash != facts.subset_hash:
        raise TrainError(f"subset {frozen.name!r} is no longer the one of run {name!r}; start another run")
    return _Plan(
        name=name,
        subset=frozen,
        recipe=load_recipe(name, base=facts.config["recipe"]),
        teacher_id=facts.config["teacher_id"],
        method_id=facts.config["method_id"],
        accepted=facts.config.get("accept_labels", False),
    )


def weights_in_force(recipe: Recipe, *, taught: bool) -> dict[str, float]:
    """Weights of the loss terms: those of [loss], and with a teacher those of [distillation.loss] added."""
    weights = dict(recipe.loss)
    for term, weight in recipe.distillation.loss.items() if taught else ():
        weights[term] = weights.get(term, 0.0) + weight
    return weights


def _register(db: Database, plan: _Plan) -> None:
    """Make the run's row, then its folder with the resolved recipe."""
    folder = run_folder(db, plan.name)
    if folder.exists():
        raise TrainError(f"{folder} exists; choose another --name, or go on with --resume {plan.name}")
    recipe = plan.recipe
    start_run(
        db,
        plan.name,
        kind="train",
        config=plan.config,
        subset=plan.subset,
        methods={"teacher": plan.teacher_id, "label": recipe.data.method or "source", "energy": recipe.data.energy},
        path=folder,
        parent=plan.parent,
    )
    _make_folder(folder, recipe=recipe)


def _make_folder(folder: Path, *, recipe: Recipe) -> None:
    """The run's folder with the resolved recipe; whatever part of it is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "recipe.toml").is_file():
        save_recipe(recipe, folder / "recipe.toml")


def _guarded(db: Database, plan: _Plan, *, reporter: Reporter, go_on: bool) -> TrainResult:
    """Run; when it fails or is interrupted the run's row says so. All but the first process are silent."""
    folder, log = run_folder(db, plan.name), plan.recipe.log
    trackers = make_trackers(log, folder, config=plan.config, database=db.uuid) if is_first() else ()
    reporter = Together((reporter, *trackers) if is_first() else ())
    try:
        return _run(db, plan, reporter=reporter, go_on=go_on)
    except BaseException as error:
        if not is_first():
            raise
        reason = str(error) or type(error).__name__
        update_run(db, plan.name, state="failed", metrics={**find_run(db, plan.name).metrics, "error": reason})
        raise
    finally:
        reporter.close()


def _run(db: Database, plan: _Plan, *, reporter: Reporter, go_on: bool) -> TrainResult:
    devices, say, recipe = all_devices(), reporter.say, placed(db, plan.recipe)
    say(f"run {plan.name}: {len(plan.subset.ids)} structures of subset {plan.subset.name}, {devices.count} device(s)")
    prepared = prepare(db, plan.subset, recipe=recipe, teacher_id=plan.teacher_id, devices=devices.count, say=say)
    require_same(prepared.digest, "structures, batch shapes or constants")
    folder = run_folder(db, plan.name)

    def on_epoch(position: Position) -> None:
        update_run(db, plan.name, state="running", metrics=_metrics(prepared, position, recipe=plan.recipe))

    run = Run(
        prepared=prepared,
        recipe=recipe,
        weights=weights_in_force(plan.recipe, taught=plan.teacher_id is not None),
        folder=folder,
        reporter=reporter,
        on_epoch=on_epoch,
        devices=devices,
    )
    with others_needed(plan.name):
        metrics = _metrics(prepared, run_training(run, resume=go_on), recipe=plan.recipe)

    def finish() -> bytes:
        update_run(db, plan.name, state="finished", metrics=metrics)
        return b""

    from_first(finish)
    best = best_checkpoint(folder) or folder
    return TrainResult(name=plan.name, subset=plan.subset.name, folder=folder, best=best, metrics=metrics)


def _metrics(prepared: Prepared, position: Position, *, recipe: Recipe) -> dict[str, Any]:
    """What the run row holds: facts of the data, then the epochs behind; of a fine-tuning how it began and ended."""
    best = {"epoch": position.best_epoch, "loss": position.best_loss}
    found = {"data": prepared.report, "best": best, "epochs": list(position.history)}
    reason = stopped(recipe, position)
    return found | ({"start": position.start} if position.start else {}) | ({"stopped": reason} if reason else {})
