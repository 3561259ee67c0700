"""Files and locks: a file is whole or absent, and one process at a time writes it."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked there
    fcntl = None  # type: ignore[assignment]

from vireid_jax.run.errors import UserError


def replace_text(path: Path, text: str) -> None:
    """Write a text file atomically: a crash leaves the old file intact."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically: a crash leaves the old file intact."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; the kernel frees it when this process dies.

    Raises BlockingIOError, with the name of the process that holds it, unless `wait`.
    """
    with path.open("a+") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                file.seek(0)
                raise BlockingIOError(file.read() or "another process") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def check_parent(path: Path, flag: str = "--out") -> None:
    """Raise UserError unless the folder that is to hold `path` exists."""
    folder = path.expanduser().absolute().parent
    if not folder.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {folder}; create it first")
