"""Replay sets: structures of the foundation's training that are learnt again beside a fine-tuning's own."""

from mlipdb.trainers.replay.pick import HOW as HOW
from mlipdb.trainers.replay.pick import ReplayWish as ReplayWish
from mlipdb.trainers.replay.pick import pick as pick
