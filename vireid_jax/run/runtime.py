"""What a command sets before its first array: memory, compile cache, logging."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from logging import captureWarnings
from pathlib import Path

from absl import logging

from vireid_jax.run.writers import Once


def set_up() -> None:
    """Prepare this process for jax: for commands, never called by the library."""
    silence_opencv()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu":
        keep_freed_memory()

    import jax

    # A step handed to a CPU takes its buffers at once, though it waits for the one
    # before it: with steps in flight they lie in memory twice or more (measured).
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    keep_compiled()
    # absl's default logs every probe for a device and every save.
    logging.set_verbosity(logging.WARNING)
    # Python's warnings go the same way as the libraries' own, each once.
    captureWarnings(True)
    logging.get_absl_handler().addFilter(Once())


# glibc's numbers for mallopt, and their values: never map a buffer by itself, never
# return the top of the heap (-1: any limit would be below 2 GB, less than a step's
# buffers), grow the heap by 64 MB, one heap for all threads.
_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD, _M_ARENA_MAX = -4, -1, -2, -8
_MALLOPT = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 2**26, _M_ARENA_MAX: 1}


def keep_freed_memory() -> None:
    """Stop glibc from returning memory to the kernel at every free.

    Otherwise a step spends a good part of its time in page faults (measured). Other C
    libraries and other systems are left as they are.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt"):
        for option, value in _MALLOPT.items():
            libc.mallopt(option, value)


def silence_opencv() -> None:
    """Keep OpenCV from printing: an error of ours names the file it cannot decode."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def keep_compiled() -> None:
    """Keep compiled programs in ~/.cache/vireid_jax, where jax has no cache yet.

    Any cache that the user chose, or refused by JAX_COMPILATION_CACHE_DIR="", stays.
    """
    import jax

    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None and jax.config.values["jax_compilation_cache_dir"] is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder / "vireid_jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


@contextlib.contextmanager
def only_errors() -> Iterator[None]:
    """Hide absl's warnings, where a library warns of what is intended."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
