"""A run's folder: one process at a time, one config, files that are whole or absent."""

import contextlib
import fcntl
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax.config import flat, with_defaults

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"

# What may differ when a run goes on: none of it changes a number.
_FREE = ("data.dir", "data.threads", "data.workers", "data.cache", "log.tensorboard")


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

    The kernel frees the lock when its process dies, however it dies. Raises ValueError
    where the folder cannot be written to, or another process trains in it.
    """
    workdir = Path(path).expanduser().resolve()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a+")
    except OSError as error:
        raise ValueError(
            f"--workdir {workdir} cannot be written to ({error.strerror}); give a"
            " folder of your own"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ValueError(
                f"{lock.read() or 'another process'} is training in {workdir}; wait"
                " for it, stop it, or give another --workdir"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield workdir


def decisive(config: ConfigDict | FrozenConfigDict) -> dict[str, Any]:
    """Lists by dotted key what of a config changes a number."""
    return {key: value for key, value in flat(config).items() if key not in _FREE}


def check_same_config(workdir: Path, config: ConfigDict | FrozenConfigDict) -> None:
    """Raises ValueError where a run of another config has work in the folder.

    It names each key that differs. What changes no number may: where data lie, and how
    many threads read them.
    """
    path = workdir / CONFIG
    has_work = any((workdir / "checkpoints").glob("[0-9]*"))
    metrics = workdir / METRICS
    has_work = has_work or (metrics.exists() and metrics.stat().st_size > 0)
    if not has_work or not path.exists():
        return
    try:
        old = with_defaults(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no config ({error}), so what began this run is not known; give"
            " another --workdir"
        ) from error
    old, new = decisive(old), decisive(config)
    other = [
        f"config.{key} is {new.get(key, 'absent')!r}, was {old.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]
    if other:
        raise ValueError(
            f"{workdir} holds a run of another config: {'; '.join(other)}. Give its"
            " config to go on, or another --workdir to begin anew"
        )
