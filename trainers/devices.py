"""The devices of a training: those of one process, or of several that train together."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlipdb.errors import ConfigError, MlipdbError, TrainError
from mlipdb.trainers.batching.packing import PlannedBatch
from mlipdb.trainers.batching.rank import ONLY, Rank
from mlipdb.trainers.graph import Batch

AXIS = "devices"
ALIKE = PartitionSpec()  # type: ignore[no-untyped-call]  # JAX has no annotations here
SPREAD = PartitionSpec(AXIS)  # type: ignore[no-untyped-call]  # JAX has no annotations here
HEARTBEAT = 300  # seconds of silence after which a process counts as dead, and ends the others
FAREWELL = 20  # seconds that the end of a process waits for that of the others
PLACE = re.compile(r"(?P<number>\d+)/(?P<count>\d+)@(?P<address>\S+:\d+)")
T = TypeVar("T")


@dataclass(frozen=True, eq=False, kw_only=True)
class Devices:
    """The devices of all processes, those of process 0 first; rank says which process this is."""

    all: tuple[jax.Device, ...]
    rank: Rank = ONLY

    @property
    def count(self) -> int:
        """Devices of all processes together."""
        return len(self.all)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank.number == 0

    @property
    def mesh(self) -> Mesh | None:
        """The devices as one axis; None for one device, which needs no sharding."""
        return Mesh(np.array(self.all), (AXIS,)) if self.count > 1 else None

    def alike(self, tree: T) -> T:
        """The tree with its arrays on every device; they must be the same in all processes."""
        return self._placed(tree, ALIKE)

    def spread(self, batch: Batch) -> Batch:
        """A batch on the one device; or this process's stack of batches, as its part of the stack of all processes."""
        return self._placed(batch, SPREAD)

    def batches(self, group: Sequence[PlannedBatch]) -> list[PlannedBatch | None]:
        """Which planned batch of a group each device has, as Feed.stacks shares them out; None for an idle device."""
        own = self.rank.devices(self.count)
        found: list[PlannedBatch | None] = []
        for number in range(self.rank.count):
            share = Rank(number, self.rank.count).share(tuple(group))
            found += [*share, *[None] * (own - len(share))]
        return found

    def _placed(self, tree: T, spec: PartitionSpec) -> T:
        if self.mesh is None:
            return _mapped(jnp.asarray, tree)
        sharding = NamedSharding(self.mesh, spec)
        place: Callable[..., Any] = jax.make_array_from_process_local_data
        return _mapped(lambda leaf: place(sharding, np.asarray(leaf)), tree)


def _mapped(place: Callable[[Any], Any], tree: T) -> T:
    mapped: T = jax.tree.map(lambda leaf: place(leaf) if eqx.is_array_like(leaf) else leaf, tree)
    return mapped


def all_devices() -> Devices:
    """Those that JAX sees. Raises ConfigError where processes have different numbers of devices."""
    found = tuple(sorted(jax.devices(), key=lambda device: (device.process_index, device.id)))
    rank = Rank(jax.process_index(), jax.process_count())
    own = rank.devices(len(found))
    if own != jax.local_device_count():
        raise ConfigError(
            f"process {rank.number} has {jax.local_device_count()} devices, the others do not: {len(found)} on "
            f"{rank.count} processes; start processes that have equally many"
        )
    return Devices(all=found, rank=rank)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def join(where: str) -> None:
    """Make this process one of several that train together; call it before anything uses a device.

    where is NUMBER/COUNT@HOST:PORT, the same address for all, at which process 0 listens; or `auto`, which asks SLURM,
    Open MPI or Kubernetes. It waits for the others, five minutes at most. Raises ConfigError where this cannot be.
    """
    try:
        jax.distributed.initialize(
            **_arguments(where), heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=FAREWELL
        )
        with _stdout_as_stderr():
            from_first(lambda: b"")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"cannot join the other processes ({error}). Outside of SLURM and the like say where they meet: "
            "--processes 0/2@HOST:PORT on the first of two, 1/2@HOST:PORT on the second"
        ) from error


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """What libraries print goes to stderr: CPU collectives greet on stdout when processes first meet."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _arguments(where: str) -> dict[str, Any]:
    if where == "auto":
        return {}
    found = PLACE.fullmatch(where)
    if found is None:
        raise ConfigError(f"--processes is {where!r}; it is auto or NUMBER/COUNT@HOST:PORT, such as 0/2@node1:9876")
    rank = Rank(int(found["number"]), int(found["count"]))
    return {"coordinator_address": found["address"], "num_processes": rank.count, "process_id": rank.number}


def from_first(make: Callable[[], bytes]) -> bytes:
    """What process 0 makes, in every process; alone, what it makes. An error in making it is raised in all of them."""
    if jax.process_count() == 1:
        return make()
    if jax.process_index():
        said = _broadcast(b"")
        if said[:1] != b"=":
            raise TrainError(f"the first process cannot go on: {said[1:].decode()}")
        return said[1:]
    try:
        made = make()
    except BaseException as error:
        _broadcast(b"!" + (str(error) if isinstance(error, MlipdbError) else repr(error)).encode())
        raise
    _broadcast(b"=" + made)
    return made


@contextmanager
def others_needed(name: str) -> Iterator[None]:
    """Where the loss of another process ends a training of this name, an error that says how to go on."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise TrainError(
            f"process {jax.process_index()} lost another, or a device failed ({error}). The last checkpoint is kept: "
            f"start all processes again with --resume {name}"
        ) from error


def require_same(made: bytes, what: str) -> None:
    """Raise TrainError in a process where `made` is not what it is in the first: such would learn from other data."""
    if from_first(lambda: made) != made:
        raise TrainError(
            f"process {jax.process_index()} has {what} that differ from the first process's; let all of them read one "
            "database, with one version of mlipdb"
        )


def _broadcast(said: bytes) -> bytes:
    """The bytes of process 0, in every process; the others' are ignored."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    own = np.zeros(length, np.uint8) if jax.process_index() else np.frombuffer(said, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(own)))
