"""Compiled programs kept on disk: the second run of a command does not compile again."""

import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import Any

import filelock
import jax
from jax.experimental.compilation_cache import compilation_cache

from mlipdb.download import cache_directory

LIMIT = 2 << 30  # bytes; JAX drops those not used for longest
SECONDS = 0.3  # a program that compiles in less is not worth a file

reset_cache: Any = compilation_cache.reset_cache


@cache
def keep_programs() -> Path | None:
    """From now on this process reads and writes compiled programs in the folder returned, below the cache.

    None, and nothing changes, where JAX's own settings (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE) say
    something else, or where the folder cannot be written.
    """
    settings: Any = jax.config  # its methods have no types
    if settings.jax_compilation_cache_dir or not settings.jax_enable_compilation_cache:
        return None
    folder = cache_directory() / "programs" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _drop_unfinished(folder)
    except (OSError, filelock.Timeout):
        return None
    settings.update("jax_compilation_cache_dir", str(folder))
    settings.update("jax_compilation_cache_max_size", LIMIT)  # with a limit JAX locks the folder as it writes
    settings.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    reset_cache()  # JAX looks at its settings once, and may have compiled already
    return folder


def _processor() -> str:
    """Which instructions the processor has: a program for another one may end the process."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(flags.encode()).hexdigest()[:12]}"


def _drop_unfinished(folder: Path) -> None:
    """Remove what a killed process left half written: JAX writes the program first, then the time of its use."""
    with filelock.FileLock(folder / ".lockfile", timeout=10):
        for program in folder.glob("*-cache"):
            if not program.with_name(f"{program.name.removesuffix('-cache')}-atime").exists():
                program.unlink()
