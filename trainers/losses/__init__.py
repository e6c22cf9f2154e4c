"""Losses as small terms; each is an entry point of the group `mlipdb.losses`."""

from mlipdb.trainers.losses.base import AbstractLoss as AbstractLoss
from mlipdb.trainers.losses.base import Term as Term
from mlipdb.trainers.losses.weighted import WeightedLosses as WeightedLosses
from mlipdb.trainers.losses.weighted import make_losses as make_losses
