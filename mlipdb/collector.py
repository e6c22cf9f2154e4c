"""Python's search for reference cycles, made rare while millions of small objects come and go that have none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 100)


@contextmanager
def patient_collector() -> Iterator[None]:
    """Look for reference cycles seldom within the context: it took a fifth of an ingest's time and found none."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
