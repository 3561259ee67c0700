"""Find the builder of a data set, and prepare the set: completely, or not at all."""

import contextlib
import errno
import functools
import importlib
import io
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vireid_jax.datasets
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import lock

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST,
    errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP,  # of flock
)  # fmt: skip


def find_builder(
    name: str, config: str | Mapping[str, Any] | None, data_dir: str | Path | None
) -> Any:
    """Return the TFDS builder of the data set `name`; see `load_records`.

    Raise UserError for an unknown name or config, and if the dataset_info.json of a
    prepared set cannot be read.
    """
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    known = sorted(
        path.parent.name
        for folder in vireid_jax.datasets.__path__
        for path in Path(folder).glob("*/*_dataset_builder.py")
    )
    if name not in known:
        raise UserError(f"data set is {name!r}; valid values: {known}")
    package = f"{vireid_jax.datasets.__name__}.{name}"
    module = importlib.import_module(f"{package}.{name}_dataset_builder")
    configs = sorted(module.Builder.builder_configs)
    if isinstance(config, Mapping) and hasattr(module, "make_config"):
        config = module.make_config(**config)
    elif config is not None and config not in configs:
        raise UserError(f"config is {config!r}; valid values for {name}: {configs}")
    make = functools.partial(module.Builder, config=config, file_format="array_record")
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser().absolute()
    try:
        return make(data_dir=root)
    except (AssertionError, OSError, ParseError, ValueError) as error:
        # TFDS reads dataset_info.json here, but its error does not name the file.
        unread = make(data_dir=os.devnull)
        folder = root / unread.data_path.relative_to(os.devnull)
        reason = str(error).partition("\n")[0].rstrip(".")
        step = next_step(unread, folder)
        if isinstance(error.__cause__, PermissionError):
            step = "make it readable, or give another folder, --config.data.dir=DIR"
        path = folder / "dataset_info.json"
        raise UserError(f"{path} cannot be read ({reason}); {step}") from error


def next_step(builder: Any, folder: Path | None = None) -> str:
    """Return the remedy for a damaged or changed set: how to replace it."""
    step = f"delete this set (rm -r {shlex.quote(str(folder or builder.data_path))})"
    step += " and run the same command again"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return f"check the release, {step} with the release (manual_dir=)"
    return step


def prepare(
    builder: Any, manual_dir: str | Path | None, skip_unreadable: bool = False
) -> None:
    """Prepare a set that is missing; a second process waits for the first.

    `manual_dir` is the release of a set that needs one; with `skip_unreadable` its
    images that cannot be decoded are left out, and listed in unreadable.txt. Raise
    UserError for a missing or damaged release, and for a folder that is full or cannot
    be written to.
    """
    folder = Path(builder.data_path)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
        command = [*builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split(), "--data_dir"]
        command.append(shlex.quote(str(builder.data_dir_root)))
        if builder.builder_config:
            command += ["--config", builder.builder_config.name]
        raise UserError(
            f"{folder} is missing; it is made from the files of a release "
            f"(manual_dir=). {' '.join(command)}"
        )
    if manual_dir is not None:
        manual_dir = Path(manual_dir).expanduser().absolute()
        if hasattr(builder, "root"):  # its errors are clearer than those of TFDS
            builder.root(manual_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.with_name(f".{folder.name}.lock")
        with lock(path, waiting=f"waiting for another process to prepare {folder}\n"):
            if not folder.exists():
                _prepare_aside(builder, folder, manual_dir, skip_unreadable)
    except (OSError, RuntimeError) as error:
        # TFDS and the array_record writer wrap the system's errors: only words remain.
        is_about = lambda number: os.strerror(number) in str(error)
        number = next(filter(is_about, _FULL + _UNWRITABLE), None)
        if number is None or (manual_dir and str(manual_dir) in str(error)):
            raise
        existing = next(path for path in folder.parents if os.path.exists(path))
        remedy = "free some space" if number in _FULL else "make it writable"
        raise UserError(
            f"{folder} cannot be prepared: {os.strerror(number)} "
            f"({shutil.disk_usage(existing).free / 1e6:,.1f} MB are free). Nothing was "
            f"kept; {remedy} and run the same command again, or give another folder, "
            "--config.data.dir=DIR"
        ) from error


def _prepare_aside(
    builder: Any, folder: Path, manual_dir: Path | None, skip_unreadable: bool
) -> None:
    """Prepare the set in a folder beside its own, and move it when it is complete."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()  # our builders have their own
    aside = folder.with_name(f".{folder.name}.preparing")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        new = type(builder)(
            config=builder.builder_config, data_dir=aside, file_format="array_record"
        )
        new.source, new.skip_unreadable = manual_dir, skip_unreadable
        download = tfds.download.DownloadConfig(manual_dir=manual_dir)
        with contextlib.redirect_stdout(io.StringIO()):  # about downloads
            new.download_and_prepare(download_config=download)
        if unreadable := getattr(new, "unreadable", None):
            text = "".join(f"{line}\n" for line in unreadable)
            (Path(new.data_path) / "unreadable.txt").write_text(text)
        try:
            os.rename(new.data_path, folder)
        except OSError:
            if not folder.exists():  # else TFDS, which takes no lock, has made it
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
