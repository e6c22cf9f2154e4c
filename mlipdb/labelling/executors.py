"""From the text of --executor to an executor: processes of this machine, a Dask cluster, or what a Parsl file says."""

import os
import runpy
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipdb.errors import ConfigError, MissingExtraError

KINDS = "processes[:NUMBER], dask:ADDRESS, parsl:FILE.py"
UNKNOWN_WORKERS = 16  # to keep busy where an executor starts them as they are needed


@dataclass(frozen=True)
class Workforce:
    """An executor, and how many workers to keep busy."""

    executor: Executor
    workers: int


@contextmanager
def open_executor(text: str) -> Iterator[Workforce]:
    """The executor of a text, shut down at the end: ``processes:4``, ``dask:tcp://host:8786`` or ``parsl:slurm.py``.

    A Dask cluster itself goes on. A file for Parsl is run, as Parsl's own examples are; its variable ``config`` counts.
    Raises ConfigError for other texts, MissingExtraError without the package.
    """
    kind, _, rest = text.partition(":")
    if kind == "processes":
        opened = _processes(rest)
    elif kind == "dask" and rest:
        opened = _dask(rest)
    elif kind == "parsl" and rest:
        opened = _parsl(Path(rest))
    else:
        raise ConfigError(f"executor {text!r} is unknown; give one of {KINDS}")
    with opened as workforce:
        yield workforce


@contextmanager
def _processes(text: str) -> Iterator[Workforce]:
    from mlipdb.labelling.process_pool import ProcessPool

    if text and not (text.isdecimal() and int(text)):
        raise ConfigError(f"executor 'processes:{text}': {text!r} is not a number from 1 up, such as processes:4")
    workers = int(text) if text else os.cpu_count() or 1
    pool = ProcessPool(workers)
    try:
        yield Workforce(pool, workers)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _dask(address: str) -> Iterator[Workforce]:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"executor dask:{address} needs Dask: pip install 'mlipdb[dask]'") from error
    try:
        client = Client(address, timeout="30s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler` and workers with "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    with client:
        # pure: a unit that is handed out again is done again, not answered from the scheduler's memory
        threads = sum(client.nthreads().values())
        yield Workforce(client.get_executor(pure=False), threads or UNKNOWN_WORKERS)


@contextmanager
def _parsl(file: Path) -> Iterator[Workforce]:
    try:
        from parsl import Config
        from parsl.concurrent import ParslPoolExecutor
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"executor parsl:{file} needs Parsl: pip install 'mlipdb[parsl]'") from error
    if not file.is_file():
        raise ConfigError(f"there is no file {file}; docs/labelling.md has one for SLURM to start from")
    config = runpy.run_path(str(file)).get("config")
    if not isinstance(config, Config):
        raise ConfigError(f"{file}: its variable `config` is a {type(config).__name__}, not a parsl.Config")
    with ParslPoolExecutor(config) as executor:
        yield Workforce(executor, _parsl_workers(config))


def _parsl_workers(config: Any) -> int:
    """How many workers its executors may have in the end, where they say."""
    found = 0
    for executor in config.executors:
        provider = getattr(executor, "provider", None)
        nodes = getattr(provider, "max_blocks", 1) * getattr(provider, "nodes_per_block", 1)
        each = getattr(executor, "max_workers_per_node", None) or getattr(executor, "max_threads", None) or 1
        found += int(min(nodes * each, sys.maxsize)) if each != float("inf") else UNKNOWN_WORKERS
    return found or UNKNOWN_WORKERS
