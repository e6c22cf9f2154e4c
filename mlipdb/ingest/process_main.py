"""The program of a worker process: tasks come in and answers go out on threads of their own, so that work goes on."""

import gc
import os
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from mlipdb.collector import THRESHOLDS
from mlipdb.ingest.parcel import dump, receive, send_dumped
from mlipdb.ingest.process import Failure
from mlipdb.store.memory import keep_freed_memory

END = 0
NICE = 5  # the parent has to keep all workers busy and write what they made: it comes first where cores are short


def main() -> None:
    """Serve the parent at the other end of the connection whose number is the first argument."""
    connection = Connection(int(sys.argv[1]))
    os.nice(NICE)
    keep_freed_memory()
    gc.set_threshold(*THRESHOLDS)
    service = receive(connection)
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()  # bounded by what the parent hands out
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    threading.Thread(target=_send, args=(connection, answers), daemon=True).start()
    answers.put(dump(None))
    while True:
        task = tasks.get()
        try:
            answer = service(task)
        except Exception:  # noqa: BLE001 - the parent raises it again
            answer = Failure(traceback.format_exc())
        answers.put(dump(answer))


def _receive(connection: Connection, tasks: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            tasks.put(receive(connection))
        except (EOFError, OSError):
            os._exit(END)  # the parent has gone: whatever is under way is of no use to anybody


def _send(connection: Connection, answers: "queue.SimpleQueue[Any]") -> None:
    while True:
        try:
            send_dumped(connection, answers.get(), pid=os.getppid())
        except OSError:
            os._exit(END)
