"""Kill a program without warning, as a power cut would, to see what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence


def run_and_kill(arguments: Sequence[str], *, after: float, ready: str | None = None) -> bool:
    """Run Python with arguments and SIGKILL it and its children `after` seconds; whether it was still running.

    With ready, time counts from the first line of its output that holds that word, so that the start of the
    interpreter does not count.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None  # asked for above
    said = []
    for line in process.stdout if ready else ():
        said.append(line)
        if ready is not None and ready in line:
            break
    if ready and not (said and ready in said[-1]):
        raise RuntimeError(f"{arguments} ended without saying {ready!r}: {''.join(said)}")
    time.sleep(after)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running
