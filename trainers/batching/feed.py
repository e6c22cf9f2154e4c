"""Batches of a part of the data, prepared ahead by threads, in the planned order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
from jaxtyping import Bool, Int32, Int64

from mlipdb.trainers.batching.packing import PlannedBatch
from mlipdb.trainers.batching.pad import pad_graph
from mlipdb.trainers.batching.rank import ONLY, Rank
from mlipdb.trainers.batching.records import Record, RecordSource
from mlipdb.trainers.batching.targets import Convention, choose_rows, pad_targets
from mlipdb.trainers.graph import REPLAY, TARGET, Batch


@dataclass(frozen=True, eq=False, kw_only=True)
class FedBatch:
    """A padded batch of numpy arrays, with the ids of its structures."""

    batch: Batch
    ids: Int64[np.ndarray, " structures"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Replay:
    """A second origin of a feed's structures, from the place `start` on: its records, and its energy convention.

    Their graphs are of head REPLAY, all others of head TARGET.
    """

    source: RecordSource
    convention: Convention
    start: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Feed:
    """Makes the batches of one part of the data: ids are that part's structures, in the order that plans count them.

    row_count is the number of Hessian rows per structure and step. With replay the last structures are of another
    origin, and graphs say of which head they are; without it they do not.
    """

    source: RecordSource
    ids: Int64[np.ndarray, " structures"]
    convention: Convention
    replay: Replay | None = None
    row_count: int = 0
    seed: int = 0
    threads: int = 1

    def batches(self, plan: Sequence[PlannedBatch], *, epoch: int = 0) -> Iterator[FedBatch]:
        """The planned batches in order; the same whatever the number of threads."""
        return ahead([partial(self.prepare, planned, epoch=epoch) for planned in plan], threads=self.threads)

    def stacks(
        self, groups: Sequence[tuple[PlannedBatch, ...]], *, devices: int, epoch: int, rank: Rank = ONLY
    ) -> Iterator[FedBatch]:
        """The groups in order, each stacked along a leading axis of one batch per device of this rank.

        devices counts those of all ranks, and all ranks pass the same groups: each makes its share alone, and all make
        equally many stacks. Devices for which a group has no batch get one in which everything is masked.
        """
        own = rank.devices(devices)
        tasks = [partial(self._stack, group, devices=own, epoch=epoch, rank=rank) for group in groups]
        return ahead(tasks, threads=self.threads)

    def prepare(self, planned: PlannedBatch, *, epoch: int = 0) -> FedBatch:
        """Read, list neighbours where that is not done yet, choose Hessian rows, and pad."""
        ids, replayed = self.ids[planned.members], self._replayed(planned)
        records = self._records(ids, replayed)
        rows = [choose_rows(record, count=self.row_count, seed=self.seed, epoch=epoch) for record in records]
        targets = pad_targets(
            records, conventions=self._conventions(replayed), shape=planned.shape, rows=rows, row_count=self.row_count
        )
        graph = pad_graph(
            [record.structure for record in records], [record.neighbours for record in records], shape=planned.shape
        )
        if self.replay is not None:
            graph = replace(graph, head=_heads(replayed, graphs=planned.shape.graphs))
        return FedBatch(batch=Batch(graph, targets), ids=ids)

    def _replayed(self, planned: PlannedBatch) -> Bool[np.ndarray, " structures"]:
        """Which of the planned structures are of the second origin."""
        start = len(self.ids) if self.replay is None else self.replay.start
        replayed: Bool[np.ndarray, " structures"] = planned.members >= start
        return replayed

    def _records(
        self, ids: Int64[np.ndarray, " structures"], replayed: Bool[np.ndarray, " structures"]
    ) -> list[Record]:
        if self.replay is None:
            return self.source.get(ids)
        own, others = iter(self.source.get(ids[~replayed])), iter(self.replay.source.get(ids[replayed]))
        return [next(others if other else own) for other in replayed]

    def _conventions(self, replayed: Bool[np.ndarray, " structures"]) -> list[Convention]:
        other = self.convention if self.replay is None else self.replay.convention
        return [other if flag else self.convention for flag in replayed]

    def _stack(self, group: tuple[PlannedBatch, ...], *, devices: int, epoch: int, rank: Rank) -> FedBatch:
        fed = [self.prepare(planned, epoch=epoch) for planned in rank.share(group)]
        idle = not fed
        fed = fed or [self.prepare(group[0], epoch=epoch)]  # for its shape
        empty = emptied(fed[0].batch)
        batches = [] if idle else [item.batch for item in fed]
        batches += [empty] * (devices - len(batches))
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        ids = fed[0].ids[:0] if idle else np.concatenate([item.ids for item in fed])
        return FedBatch(batch=stacked, ids=ids)


def _heads(replayed: Bool[np.ndarray, " structures"], *, graphs: int) -> Int32[np.ndarray, " graphs"]:
    heads = np.full(graphs, TARGET, np.int32)
    heads[: len(replayed)][replayed] = REPLAY
    return heads


def emptied(batch: Batch) -> Batch:
    """The batch with every mask False: it has a shape, and nothing in it counts."""
    empty: Batch = jax.tree.map(lambda leaf: np.zeros_like(leaf) if leaf.dtype == np.bool_ else leaf, batch)
    return empty


def ahead(tasks: Sequence[Callable[[], FedBatch]], *, threads: int) -> Iterator[FedBatch]:
    """Results of the tasks in order, a few computed ahead by threads; an error in one is raised in its turn."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[FedBatch]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
