"""A run's folder: the names in it, and the lock that keeps other processes out."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from vireid_jax.run.errors import UserError
from vireid_jax.run.files import lock

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"


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
        yield workdir
