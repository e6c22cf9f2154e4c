"""A pool of worker processes that outlives its workers: one that is killed costs the call that it had, no other."""

import os
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from typing import Any

from mlipdb.errors import MlipdbError
from mlipdb.ingest.process import WorkerDied, WorkerProcess

PATIENCE = 7 * 86400.0  # seconds that one call may take
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class ProcessPool(Executor):
    """Fresh interpreters, never forks: the standard pool is of no use any more once one of its processes is killed.

    The future of a call whose process ended has a BrokenExecutor, and the next call gets a new process. Errors of
    mlipdb come back as they are, others as MlipdbError with the traceback.
    """

    def __init__(self, workers: int) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Call] | None] = queue.SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self._alive: set[WorkerProcess] = set()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are there now."""
        return sorted(worker.pid for worker in list(self._alive))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call a function that it can import, with arguments that can be sent."""
        future: Future[Any] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("this pool was shut down")
            self._calls.put((future, (fn, args, kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those that were taken, unless they are cancelled."""
        with self._closing:
            if not self._closed:
                self._closed = True
                if cancel_futures:
                    self._cancel()
                for _ in self._threads:
                    self._calls.put(None)
        if cancel_futures:
            for pid in self.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # its thread waits for it, and sees it go
        if wait:
            for thread in self._threads:
                thread.join()

    def _cancel(self) -> None:
        while True:
            try:
                item = self._calls.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                item[0].cancel()

    def _serve(self) -> None:
        """One worker after another, each until it dies or there is nothing left to do."""
        while (item := self._calls.get()) is not None:
            try:
                with WorkerProcess(call) as worker:
                    self._alive.add(worker)
                    try:
                        while item is not None:
                            _answer(worker, *item)
                            item = self._calls.get()
                    finally:
                        self._alive.discard(worker)
                    return
            except WorkerDied as error:
                if item is not None and not item[0].done():  # it died before it took the call
                    item[0].set_exception(BrokenExecutor(str(error)))


def _answer(worker: WorkerProcess, future: Future[Any], task: Call) -> None:
    """Have a call answered; raises WorkerDied, once the future knows, where another worker is needed."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        worker.submit(task)
        result = worker.result(PATIENCE)
    except WorkerDied as error:
        future.set_exception(BrokenExecutor(str(error)))
        raise
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        if isinstance(result, MlipdbError):
            future.set_exception(result)
        else:
            future.set_result(result)


def call(task: Call) -> Any:
    """What a worker does; an error of mlipdb is an answer, so that it keeps its kind."""
    function, arguments, named = task
    try:
        return function(*arguments, **named)
    except MlipdbError as error:
        return error
