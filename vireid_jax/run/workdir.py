"""A run's folder: one process at a time, one config, files that are whole or absent."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from vireid_jax.run.errors import UserError

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole: who is killed meanwhile leaves the old one."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Does as `replace_text`, for what is no text."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)


@contextlib.contextmanager
def claimed(path: str | Path) -> Iterator[Path]:
    """Makes the folder and keeps other processes out of it until the end.

    The kernel frees the lock when its process dies, however it dies. Raises UserError
    where the folder cannot be written to, or another process trains in it.
    """
    workdir = Path(path).expanduser().resolve()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a+")
    except OSError as error:
        raise UserError(
            f"--workdir {workdir} cannot be written to ({error.strerror}); give a"
            " folder of your own"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UserError(
                f"{lock.read() or 'another process'} is training in {workdir}; wait"
                " for it, stop it, or give another --workdir"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield workdir
