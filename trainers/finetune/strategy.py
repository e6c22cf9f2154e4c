"""The strategies of fine-tuning: what learns, and what is learnt beside the target's labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mlipdb.errors import ConfigError, did_you_mean
from mlipdb.trainers.cookbook import load_recipe
from mlipdb.trainers.models.base import AbstractTrunked
from mlipdb.trainers.models.heads import AbstractHeaded
from mlipdb.trainers.recipe import Recipe

RECIPE = "finetune"  # that ships; the learning rates of the table are for its optimiser
RANK = 4

Parts = Literal["readout", "last-layer", "gains"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One strategy.

    parts are those of the model that learn, all where there are none; with lora_rank above 0 low-rank changes of all
    matrices learn instead. replay says whose labels of the replayed structures are learnt: labels are their own, pseudo
    the foundation's, none without replay.
    """

    name: str
    about: str
    parts: tuple[Parts, ...] = ()
    lora_rank: int = 0
    replay: Literal["none", "labels", "pseudo"] = "none"
    learning_rate: float

    def learns(self, model: AbstractTrunked | AbstractHeaded) -> tuple[str, ...]:
        """Patterns of the names of the model's arrays that learn."""
        patterns = {
            "readout": model.readout_arrays,
            "last-layer": model.last_layer_arrays,
            "gains": model.gain_arrays,
        }
        return tuple(pattern for part in self.parts for pattern in patterns[part]) or ("*",)


_ALL = (
    Strategy(name="naive", about="all weights learn, on the target alone", learning_rate=1e-3),
    Strategy(
        name="freeze-conv",
        about="the readout and the gains of norms learn",
        parts=("readout", "gains"),
        learning_rate=3e-3,
    ),
    Strategy(
        name="freeze-backbone",
        about="the last layer and the readout learn",
        parts=("last-layer", "readout"),
        learning_rate=1e-3,
    ),
    Strategy(
        name="lora",
        about="low-rank changes of all matrices learn",
        lora_rank=RANK,
        learning_rate=3e-3,
    ),
    Strategy(
        name="replay",
        about="all weights learn, a readout for each of target and replay, with the replay's own labels",
        replay="labels",
        learning_rate=2e-4,
    ),
    Strategy(
        name="pseudo-replay",
        about="the same, with labels of the foundation",
        replay="pseudo",
        learning_rate=2e-4,
    ),
    Strategy(
        name="replay-lora",
        about="low-rank changes learn, with the replay's own labels",
        lora_rank=RANK,
        replay="labels",
        learning_rate=3e-3,
    ),
)
STRATEGIES = MappingProxyType({strategy.name: strategy for strategy in _ALL})


def find_strategy(name: str) -> Strategy:
    """The strategy of a name. Raises ConfigError with a suggestion."""
    if name not in STRATEGIES:
        raise ConfigError(
            f"strategy {name!r} is unknown.{did_you_mean(name, STRATEGIES)} Known: {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]


def strategy_recipe(name: str, *, base: str = RECIPE, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of a strategy, with `key=value` settings over it: base, a shipped recipe or a file, is beneath.

    The strategy's learning rate is for the shipped recipe; another base keeps its own. A replay that weighs nothing is
    none, and has the learning rate of that. Raises ConfigError.
    """
    strategy = find_strategy(name)
    own = [f"finetune.strategy={name}", f"finetune.lora_rank={strategy.lora_rank}"]
    weight = load_recipe(base, settings=[*own, *settings]).finetune.replay_weight
    if strategy.replay != "none" and not weight:
        strategy = STRATEGIES["lora" if strategy.lora_rank else "naive"]
    own += [f"optimizer.learning_rate={strategy.learning_rate}"] if base == RECIPE else []
    return load_recipe(base, settings=[*own, *settings])
