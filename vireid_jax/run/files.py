"""Files and locks: a file is complete or missing, and one process writes it."""

import contextlib
import os
import platform
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked there
    fcntl = None  # type: ignore[assignment]

from vireid_jax.run.errors import UserError

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
"""Files of a run, in its workdir."""


def replace_text(path: Path, text: str) -> None:
    """Write a text file atomically: a crash leaves the old file intact."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a binary file atomically: an error or crash leaves the old file intact."""
    # Not `tempfile`: its files are readable by their owner alone, whatever the umask.
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        new.write_bytes(content)
        os.replace(new, path)
    finally:
        with contextlib.suppress(OSError):  # it was renamed
            new.unlink()


def sweep(folder: Path, name: str = "*", seconds: float = 0) -> None:
    """Remove what killed processes left of `replace_bytes`, `seconds` ago or more.

    Only with the folder's lock held, or for files older than any write in progress.
    """
    for path in folder.glob(f".{name}.????????.new"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds:
                path.unlink()


@contextlib.contextmanager
def lock(path: Path, *, waiting: str = "") -> Iterator[None]:
    """Hold the lock file `path`; the kernel frees it when this process dies.

    If another process holds it, print the text `waiting` and wait; without that text
    raise BlockingIOError, with the name of the process.
    """
    with path.open("a+") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not waiting:
                    file.seek(0)
                    raise BlockingIOError(file.read() or "another process") from error
                sys.stderr.write(waiting)
                fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextlib.contextmanager
def claimed(path: str | Path) -> Iterator[Path]:
    """Create the folder and keep other processes out of it until the end.

    Raise UserError where the folder is not writable, or another process trains in it.
    """
    workdir = Path(path).expanduser().resolve()
    with contextlib.ExitStack() as held:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock(workdir / ".lock"))
        except BlockingIOError as error:
            raise UserError(
                f"{error} is training in {workdir}; wait for it, stop it, or give"
                " another --workdir"
            ) from error
        except OSError as error:
            raise UserError(
                f"--workdir {workdir} is not writable ({error.strerror}); give a folder"
                " that you own"
            ) from error
        sweep(workdir, seconds=60)  # evaluation writes there without the lock
        yield workdir


def check_parent(path: Path, flag: str = "--out") -> None:
    """Raise UserError unless the folder that is to hold `path` exists."""
    folder = path.expanduser().absolute().parent
    if not folder.is_dir():
        raise UserError(f"{flag} {path}: there is no folder {folder}; create it first")


def check_new_folder(path: Path) -> None:
    """Raise UserError unless `path` is an empty folder, or can become one."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(
            f"--out {path} is not empty, and nothing is overwritten; give a new folder,"
            " or delete that one"
        )
