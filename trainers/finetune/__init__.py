"""Fine-tuning: a trained model goes on learning on other data, by one of seven strategies."""

from mlipdb.trainers.finetune.finetune import FinetuneWish as FinetuneWish
from mlipdb.trainers.finetune.finetune import finetune as finetune
from mlipdb.trainers.finetune.replay_set import ReplayChoice as ReplayChoice
from mlipdb.trainers.finetune.strategy import STRATEGIES as STRATEGIES
from mlipdb.trainers.finetune.strategy import Strategy as Strategy
from mlipdb.trainers.finetune.strategy import strategy_recipe as strategy_recipe
