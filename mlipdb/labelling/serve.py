"""`python -m mlipdb.labelling.serve`: the other end of a ForeignTeacher. It answers on its stdout until stdin ends."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlipdb.errors import MlipdbError
from mlipdb.labelling import wire
from mlipdb.labelling.load import load_teacher
from mlipdb.labelling.teacher import Teacher, TeacherOptions
from mlipdb.version import __version__


def serve(questions: wire.Readable, answers: wire.Writable) -> None:
    """Say hello, then answer message by message; returns when the other side is gone."""
    wire.send(answers, wire.Message("hello", {"protocol": wire.PROTOCOL, "version": __version__}))
    first = wire.receive(questions)
    if first is None:
        return
    loaded: list[Teacher] = []
    _answer(answers, lambda: _load(first.values, keep=loaded))
    while loaded and (message := wire.receive(questions)) is not None:
        _answer(answers, lambda: _do(loaded[0], message))


def _answer(answers: wire.Writable, work: Callable[[], wire.Message]) -> None:
    """Send what the work gives, or its error: those that the other side knows by name, others with their kind."""
    try:
        answer = work()
    except (MlipdbError, MemoryError) as error:
        answer = wire.Message("error", {"kind": type(error).__name__, "text": str(error)})
    except Exception as error:  # noqa: BLE001 - it is raised on the other side, which alone can tell the user
        answer = wire.Message("error", {"kind": f"{type(error).__module__}.{type(error).__name__}", "text": str(error)})
    wire.send(answers, answer)


def _load(values: Mapping[str, Any], *, keep: list[Teacher]) -> wire.Message:
    given = dict(values["options"])
    paths = {name: Path(given[name]) for name in ("weights", "cache") if given[name] is not None}
    teacher = load_teacher(values["name"], TeacherOptions(**{**given, **paths}))
    keep.append(teacher)
    info = {**asdict(teacher.info), "atomic_numbers": sorted(teacher.info.atomic_numbers)}
    return wire.Message("loaded", {"info": info, "batch_limits": asdict(teacher.batch_limits)})


def _do(teacher: Teacher, message: wire.Message) -> wire.Message:
    if message.word == "edges":
        return wire.Message("edges", {"edges": teacher.edges(wire.unpack_structures(message)[0])})
    structures, request = wire.unpack_request(message)
    return wire.pack_labels(teacher.label(structures, request))


def main() -> None:
    """Serve on stdin and stdout; whatever packages print goes to stderr, so that it cannot get between messages."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other side's, which then ends this process
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
