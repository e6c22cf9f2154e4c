"""A recipe: every setting of a training run, read from TOML, checked, and written back in full."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """How weights move. After a linear warm-up the learning rate follows a schedule down to final_learning_rate.

    The schedule is a cosine that ends with the run, or a plateau: times plateau_factor whenever the force error of
    validation has not fallen for more than plateau_patience validations.
    """

    name: Literal["muon", "adamw"] = "muon"
    amsgrad: bool = False
    epsilon: float = 1e-8
    learning_rate: float = 0.01
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: float = 0.8
    plateau_patience: int = 5
    final_learning_rate: float = 1e-6
    warmup_epochs: float = 0.1
    warmup_start: float = 0.2
    weight_decay: float = 1e-3
    clip_norm: float = 100.0
    ema_decay: float = 0.999


@dataclass(frozen=True, kw_only=True)
class DistillationRecipe:
    """What is learnt from a teacher, when the run has one; weights are by loss name.

    The weight of Hessian rows is halved once, when the force MAE of validation is below hessian_halving times the
    teacher's; 0 for never. alignment structure is least-squares, and what that leaves of a structure's energy is spread
    evenly over its atoms.
    """

    loss: dict[str, float] = field(default_factory=lambda: {"atomic_energies_mae": 20.0, "hessian_rows": 2.0})
    rows_per_structure: int = 1
    hessian_halving: float = 0.0
    alignment: Literal["least-squares", "structure", "none"] = "least-squares"


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Which labels are learnt and from which E0s, and how much memory may hold neighbour lists."""

    energy: Literal["energy_uncorrected", "energy_corrected", "free_energy", "energy_zero"] = "energy_uncorrected"
    method: str = ""
    e0: str = "fit"
    cache_gib: float = 2.0
    threads: int = 2


@dataclass(frozen=True, kw_only=True)
class BatchRecipe:
    """How large a batch is: graphs on average, or an edge budget when edges is not 0."""

    graphs: int = 16
    edges: int = 0


@dataclass(frozen=True, kw_only=True)
class CheckpointRecipe:
    """When the state is saved between the ends of epochs; 0 means only there."""

    every_steps: int = 500


@dataclass(frozen=True, kw_only=True)
class LogRecipe:
    """Where numbers go beside the catalog: event files for TensorBoard, a project of Weights & Biases.

    wandb names that project; empty for none.
    """

    tensorboard: bool = True
    wandb: str = ""


@dataclass(frozen=True, kw_only=True)
class FinetuneRecipe:
    """What a run starts from, where that is a trained model; an empty foundation means random weights.

    foundation is a run, a published name or a path, NAME@HEAD for one head of several, and sha256 the checksum of its
    weights, by which it is found where the name leads nowhere. learns are patterns
    of the names of arrays that learn; with lora_rank above 0 only low-rank changes of all matrices do, times
    lora_alpha / lora_rank. head is what the new readout is called. e0 is reestimate (offsets to the foundation's,
    fitted on the labels), foundation, or as for data.e0.

    replay names a frozen subset, replay_method the method of its labels (empty: those that came with the structures),
    replay_energy which of their energies (empty: data.energy); their mean loss counts replay_weight times beside the
    target's. When the replay force error of validation is above replay_bound times that at the start and above
    replay_allowance (meV/Å), or the energy error so and above replay_energy_allowance (meV/atom), the run stops, or
    lowers its rate to half, and that epoch's model is not the one to use; bound 0 for never. patience ends the run
    after as many validations without a better one; 0 for never.
    """

    foundation: str = ""
    sha256: str = ""
    strategy: str = ""
    head: str = "target"
    e0: str = "reestimate"
    learns: tuple[str, ...] = ("*",)
    lora_rank: int = 0
    lora_alpha: float = 1.0
    replay: str = ""
    replay_method: str = ""
    replay_energy: Literal["", "energy_uncorrected", "energy_corrected", "free_energy", "energy_zero"] = ""
    replay_weight: float = 1.0
    replay_bound: float = 0.0
    replay_allowance: float = 10.0
    replay_energy_allowance: float = 5.0
    replay_action: Literal["stop", "lower"] = "stop"
    patience: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run. model holds the entry point of `mlipdb.models` and that model's own options.

    loss_settings holds, by loss, what that loss has beside its weight, such as delta of a Huber loss.
    loss_schedule holds points [epoch, factor] for a loss, on whose weight the factor is: linear in between, constant
    before the first and after the last. kernel is what computes the convolutions of a Nequix.
    """

    epochs: int = 100
    seed: int = 0
    validate_every: int = 1
    kernel: Literal["auto", "plain", "cuequivariance"] = "auto"
    model: dict[str, Any] = field(default_factory=lambda: {"name": "nequix"})
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    loss: dict[str, float] = field(default_factory=lambda: {"energy_mae": 20.0, "forces_l2": 20.0, "stress_mae": 5.0})
    loss_settings: dict[str, dict[str, float]] = field(default_factory=dict)
    loss_schedule: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    distillation: DistillationRecipe = field(default_factory=DistillationRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    batch: BatchRecipe = field(default_factory=BatchRecipe)
    checkpoint: CheckpointRecipe = field(default_factory=CheckpointRecipe)
    log: LogRecipe = field(default_factory=LogRecipe)
    finetune: FinetuneRecipe = field(default_factory=FinetuneRecipe)
