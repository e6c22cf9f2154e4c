"""Worker processes: fresh interpreters that do one kind of work and end with the process that started them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from types import TracebackType
from typing import Any

from mlipdb.errors import IngestError, MlipdbError
from mlipdb.ingest.parcel import dump, receive, send_dumped

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from mlipdb.ingest.process_main import main; main()"
)
# Workers share the cores among themselves; a thread pool in each of them would only fill memory.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

START_PATIENCE = 300.0  # seconds for an interpreter to start up; a busy machine may take many


@dataclass(frozen=True)
class Failure:
    """An error that the service raised, as text."""

    traceback: str


class WorkerDied(IngestError):
    """A worker process ended on its own, with exitcode (minus the signal that killed it), or hung (None)."""

    def __init__(self, message: str, *, exitcode: int | None) -> None:
        super().__init__(message)
        self.exitcode = exitcode

    @property
    def killed(self) -> bool:
        """Whether something outside ended it, as the system does when memory runs short."""
        return self.exitcode in (-signal.SIGKILL, -signal.SIGTERM)


class WorkerProcess:
    """A fresh interpreter that answers each task with service(task), in order. Use as a context.

    Never forked, because the parent may hold threads and locks; the parent's main module is not imported. It has a
    process group of its own, so that Ctrl-C reaches the parent alone, and ends when the parent does, however that ends.
    """

    def __init__(self, service: Callable[[Any], Any]) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                env=os.environ | _ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,
            )
        self.pid = self._process.pid
        self._ready = False
        self._send(service)

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ready(self) -> bool:
        """Whether it has started up; never waits."""
        if not self._ready and self._connection.poll():
            self._await_start(0.0)
        return self._ready

    def submit(self, task: Any) -> None:
        """Hand it a task; it takes tasks in as they come and works them off in order."""
        self._send(task)

    def result(self, patience: float) -> Any:
        """The answer to the oldest task that was not answered yet.

        Raises WorkerDied where the process ended or gave no answer for `patience` seconds, MlipdbError where the
        service raised an error.
        """
        if not self._ready:
            self._await_start(START_PATIENCE)
        answer = self._receive(patience)
        if isinstance(answer, Failure):
            raise MlipdbError(f"a worker process failed; please report this:\n{answer.traceback}")
        return answer

    def stop(self) -> None:
        """End it, hung or not."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _await_start(self, patience: float) -> None:
        self._receive(patience)  # says nothing but that it is there
        self._ready = True

    def _send(self, message: Any) -> None:
        try:
            send_dumped(self._connection, dump(message), pid=self.pid)
        except OSError as error:
            raise self._death() from error

    def _receive(self, patience: float) -> Any:
        try:
            if not self._connection.poll(patience):
                self.stop()
                raise WorkerDied(f"worker process {self.pid} gave no answer for {patience:.0f} s", exitcode=None)
            return receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._death() from error

    def _death(self) -> WorkerDied:
        code = self._process.wait()
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was ended by signal {-code} ({signal.Signals(-code).name})"
        if code == -signal.SIGKILL:
            how += "; the system does so when memory runs short"
        return WorkerDied(f"worker process {self.pid} {how}", exitcode=code)
