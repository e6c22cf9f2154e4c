"""A teacher that runs in a process of another environment, for packages that cannot share one."""

import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from mlipdb import errors
from mlipdb.errors import ConfigError, MlipdbError, TeacherError, WorkerLostError
from mlipdb.labelling import wire
from mlipdb.labelling.batches import BatchLimits
from mlipdb.labelling.teacher import LabelRequest, TeacherInfo, TeacherOptions
from mlipdb.labels import Label
from mlipdb.structures import Structure, StructureError

SERVE = "mlipdb.labelling.serve"
LAST_WORDS = 2000  # characters of what a worker wrote on stderr that an error shows


class ForeignTeacher:
    """A teacher as another environment has it. Structures and labels go over pipes, as JSON and plain arrays.

    Its labels are under the method that they would be under in that environment. The worker ends with this object or
    with this process, however that ends.
    """

    def __init__(self, name: str, options: TeacherOptions, *, python: Path) -> None:
        """Raises ConfigError where the environment cannot run mlipdb, else what load_teacher raises there."""
        self._worker = _Worker(python, teacher=name)
        try:
            loaded = self._worker.ask(wire.Message("load", {"name": name, "options": _described(options)}))
        except BaseException:
            self.close()
            raise
        info = loaded.values["info"]
        self.info = TeacherInfo(**{**info, "atomic_numbers": frozenset(info["atomic_numbers"])})
        self.batch_limits = BatchLimits(**loaded.values["batch_limits"])

    def edges(self, structure: Structure) -> int:
        """The teacher's own count."""
        packed = wire.pack_structures([structure])
        return int(self._worker.ask(wire.Message("edges", packed.values, packed.arrays)).values["edges"])

    def label(self, structures: Sequence[Structure], request: LabelRequest) -> list[Label]:
        """The teacher's labels; its LabelError and MemoryError are raised here.

        Raises WorkerLostError when the worker died, which stops a run: what is stored by then is kept.
        """
        return wire.unpack_labels(self._worker.ask(wire.pack_request(structures, request)))

    @property
    def worker_pid(self) -> int:
        """The process that the teacher runs in."""
        return self._worker.pid

    @property
    def alive(self) -> bool:
        """Whether the worker is there to be asked."""
        return self._worker.alive

    def close(self) -> None:
        """End the worker."""
        self._worker.close()


class _Worker:
    """The process and the pipes to and from it."""

    def __init__(self, python: Path, *, teacher: str) -> None:
        self._python = python
        self._teacher = teacher
        self._turn = threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        command = [str(python), "-P", "-m", SERVE]  # -P: a source folder that it is started in is not its mlipdb
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said)
        except OSError as error:
            self._said.close()
            raise ConfigError(
                f"--worker-python {python} cannot be started ({error.strerror}); give the path of the other "
                "environment's python, such as /envs/fairchem/bin/python"
            ) from error
        self.close = weakref.finalize(self, _end, self._process, self._said)
        self.pid = self._process.pid
        self._greet()

    @property
    def alive(self) -> bool:
        """Whether the process runs and was not closed."""
        return self.close.alive and self._process.poll() is None

    def ask(self, message: wire.Message) -> wire.Message:
        """The answer to a message. Errors of the worker are raised here as they were there."""
        with self._turn:
            answer = self._exchange(message)
        if answer is None:
            raise self._death(f"at the message {message.word!r}")
        if answer.word == "error":
            raise self._error(answer.values["kind"], answer.values["text"])
        return answer

    def _exchange(self, message: wire.Message | None) -> wire.Message | None:
        """Say something, unless it is None, and take what comes back; None where the worker is gone.

        Interrupted in between, the worker is ended, lest the next answer be that to this question.
        """
        process = self._process
        if process.stdin is None or process.stdout is None or not self.close.alive:
            raise WorkerLostError(f"the worker of teacher {self._teacher} is closed; load the teacher again")
        try:
            if message is not None:
                wire.send(process.stdin, message)
            return wire.receive(process.stdout)
        except BrokenPipeError:
            return None
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        """Wait until it runs mlipdb. Raises ConfigError where it has none, or one that speaks another protocol."""
        hello = self._exchange(None)
        if hello is None:
            self._process.wait()
            said = self._last_words()
            self.close()
            need = f"{self._python} has no mlipdb that can serve a teacher: run `{self._python} -m pip install mlipdb`"
            raise ConfigError(f"{need} with this version (Python 3.11 or newer). It said: {said or 'nothing'}")
        if hello.values["protocol"] != wire.PROTOCOL:
            theirs = hello.values["version"]
            self.close()
            raise ConfigError(
                f"mlipdb {theirs} of {self._python} speaks protocol {hello.values['protocol']} and this one "
                f"{wire.PROTOCOL}; install the same version in both environments"
            )

    def _error(self, kind: str, text: str) -> Exception:
        if kind == "MemoryError":
            return MemoryError(text)
        known = StructureError if kind == StructureError.__name__ else getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, MlipdbError):
            return known(text)
        return TeacherError(f"teacher {self._teacher} in {self._python} failed with {kind}: {text}")

    def _death(self, when: str) -> WorkerLostError:
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        said = self._last_words()
        self.close()
        return WorkerLostError(
            f"the worker of teacher {self._teacher} died: process {self.pid} of {self._python}, {how}, {when}. "
            f"{'Signal 9 is often too little memory. ' if code == -9 else ''}"
            f"What is stored is kept; repeat the command to go on. It last said: {said or 'nothing'}"
        )

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace").strip()[-LAST_WORDS:]


def _end(process: "subprocess.Popen[bytes]", said: IO[bytes]) -> None:
    """Close the pipes, on which the worker ends by itself when it reads next; end it where it is at work."""
    process.terminate()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:  # what was not yet written to a worker that is gone
                continue
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said.close()


def _described(options: TeacherOptions) -> dict[str, Any]:
    """Options as JSON, with paths that hold anywhere on this machine; the worker is to run the teacher itself."""
    here = replace(options, worker_python=None)
    described = {name: getattr(here, name) for name in TeacherOptions.__dataclass_fields__}
    absolute = {name: str(value.absolute()) for name, value in described.items() if isinstance(value, Path)}
    return {**described, **absolute, "settings": dict(options.settings)}
