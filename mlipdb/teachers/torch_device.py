"""Where and in which arithmetic a torch teacher runs, and what its running out of memory looks like."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mlipdb.errors import ConfigError

DTYPES = {"float32": torch.float32, "float64": torch.float64}
FULL = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")  # of RuntimeErrors with no type


def choose_device(name: str | None) -> torch.device:
    """The device of a name such as cpu or cuda:0; without one the first accelerator, else the processor.

    Raises ConfigError when this machine, or the torch installed here, does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an assertion where torch was built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name} cannot be used with torch {torch.__version__} here: {reason}") from error
    return device


def choose_dtype(name: str | None, *, default: str) -> torch.dtype:
    """The arithmetic of a name, float32 or float64."""
    chosen = name or default
    if chosen not in DTYPES:
        raise ConfigError(f"--dtype {chosen} is not one of {', '.join(DTYPES)}")
    return DTYPES[chosen]


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` or ``float64``."""
    return str(dtype).removeprefix("torch.")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns what torch raises when memory is full into MemoryError, and gives the accelerator's cache back."""
    try:
        yield
    except RuntimeError as error:
        full = isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in FULL)
        if not full:
            raise
        reason = str(error).splitlines()[0]
    else:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # after the except clause, whose traceback holds the tensors
    raise MemoryError(reason)
