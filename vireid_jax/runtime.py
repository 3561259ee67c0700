"""What a program sets before its first array: memory, compile cache, silence."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from logging import captureWarnings
from pathlib import Path

from absl import logging

from vireid_jax.journal import Once

# glibc's numbers for mallopt, and what to set: never map a buffer by itself, never give
# the top of the heap back (-1; any limit would be below 2 GB, and a step's buffers are
# above), grow the heap by 64 MB, one heap for all threads.
_MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1)}
_MALLOPT |= {"M_TOP_PAD": (-2, 64 * 2**20), "M_ARENA_MAX": (-8, 1)}


def set_up() -> None:
    """Prepares this process for jax. Call it once, first."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if sys.platform == "linux" and os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":
        _keep_freed_memory()

    import jax

    # A step handed to a CPU takes its buffers at once, though it waits for the one
    # before it: with steps in flight they lie in memory twice or more (measured).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if cache is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder / "vireid_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    # absl's default tells every probe for a device and every save in prose.
    logging.set_verbosity(logging.WARNING)
    # Python's warnings go the same way as the libraries' own, and each is said once.
    captureWarnings(True)
    logging.get_absl_handler().addFilter(Once())


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Holds back absl's warnings, where a library warns of what is meant to be so."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _keep_freed_memory() -> None:
    """Stops glibc from giving large buffers back to the kernel at every free.

    A step frees and takes hundreds of megabytes; without this it spends a good part of
    its time in page faults. Other C libraries ignore it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in _MALLOPT.values():
        mallopt(option, value)
