"""Which graphs of a batch are of which head, where the batch has several."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TypeVar

import jax.numpy as jnp

from mlipdb.trainers.graph import Batch

T = TypeVar("T")
REPLAYED = "replay."  # before the name of a term or error of the replay's graphs


def of_head(batch: Batch, head: int) -> Batch:
    """The batch with the labels of other heads' graphs masked; the graph stays as it is."""
    own = jnp.asarray(batch.graph.head) == head
    masks = {item.name: getattr(batch.targets, item.name) for item in fields(batch.targets) if "has_" in item.name}
    chosen = {name: mask & jnp.broadcast_to(own, mask.shape) for name, mask in masks.items()}  # graphs or rows, graphs
    return Batch(batch.graph, replace(batch.targets, **chosen))


def split_heads(found: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
    """What is of the target, and what is of the replay, under the same names."""
    target = {name: value for name, value in found.items() if not name.startswith(REPLAYED)}
    return target, {name.removeprefix(REPLAYED): value for name, value in found.items() if name not in target}
