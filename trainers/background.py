"""Work beside the training: one piece at a time, by a thread."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Background:
    """Does what it is given in the order that it is given; leaving the `with` block waits for it.

    An error in the work is raised by the next call. No more than one piece waits to be done, so that a slow disk slows
    the training down and does not fill the memory.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: tuple[Future[None], Callable[[], None]] | None = None

    def __enter__(self) -> "Background":
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Finish what was begun, also when the training failed: it is what to go on from."""
        try:
            if error is None:
                self.wait()
        finally:
            self._pool.shutdown(wait=True)

    def start(self, work: Callable[[], None], *, then: Callable[[], None]) -> None:
        """Do the work once that before it is done; `then` is called in the thread of the caller, by a later call."""
        self.wait()
        self._running = self._pool.submit(work), then

    def poll(self) -> None:
        """Call `then` of work that is done."""
        if self._running is not None and self._running[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait for the work, and call its `then`."""
        if self._running is None:
            return
        (future, then), self._running = self._running, None
        future.result()
        then()
