"""Find the builder of a data set, and prepare the set: whole, or not at all."""

import contextlib
import errno
import functools
import hashlib
import importlib
import io
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import vireid_jax.datasets
from vireid_jax.modality import MODALITIES
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

    Raises UserError for an unknown name or config, and where the dataset_info.json of
    a prepared set cannot be read.
    """
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    known = sorted(
        path.parent.name
        for folder in vireid_jax.datasets.__path__
        for path in Path(folder).glob("*/*_dataset_builder.py")
    )
    if name not in known:
        raise UserError(f"data set is {name!r}; the builders are {known}.")
    module = importlib.import_module(
        f"vireid_jax.datasets.{name}.{name}_dataset_builder"
    )
    config = _find_config(module, name, config)
    make = functools.partial(module.Builder, config=config, file_format="array_record")
    root = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser().absolute()
    try:
        return make(data_dir=root)
    except (AssertionError, OSError, ParseError, ValueError) as error:
        # TFDS reads dataset_info.json here, but its error does not say where that is.
        unread = make(data_dir=os.devnull)
        folder = root / unread.data_path.relative_to(os.devnull)
        reason = str(error).partition("\n")[0].rstrip(".")
        step = next_step(unread, folder)
        if isinstance(error.__cause__, PermissionError):
            step = "make it readable, or give another folder, --config.data.dir=DIR"
        raise UserError(
            f"{folder / 'dataset_info.json'} cannot be read ({reason}); {step}."
        ) from error


def next_step(builder: Any, folder: Path | None = None) -> str:
    """Tell the user how to replace a prepared set that is not as it should be."""
    folder = shlex.quote(str(folder or builder.data_path))
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return (
            f"check the release, delete this set (rm -r {folder}) and run the same "
            "command again with the release (manual_dir=)"
        )
    return f"delete this set (rm -r {folder}) and run the same command again"


def prepare(
    builder: Any, manual_dir: str | Path | None, skip_unreadable: bool = False
) -> None:
    """Prepare a set that is not there yet; a second process waits for the first.

    `manual_dir` is the release of a set that needs one. An image of it that cannot be
    decoded is an error, or is left out with `skip_unreadable`, which lists these in
    unreadable.txt beside the records.
    Raises UserError for a release not given or flawed, or a folder that is full or
    cannot be written to.
    """
    folder = Path(builder.data_path)
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual_dir is None:
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        raise UserError(
            f"{folder} is not prepared; it is made of files that are given "
            f"(manual_dir=). {instructions} --data_dir "
            f"{shlex.quote(str(builder.data_dir_root))}{_config_flag(builder)}"
        )
    if manual_dir is not None:
        manual_dir = Path(manual_dir).expanduser().absolute()
        if hasattr(builder, "root"):  # else TFDS says less clearly what is amiss
            builder.root(manual_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not folder.exists():
                _prepare_aside(builder, folder, manual_dir, skip_unreadable)
    except (OSError, RuntimeError) as error:
        _refuse_folder(folder, error, manual_dir)
        raise


def check_same_release(builder: Any, source: Path, split: str, records: Any) -> None:
    """Raise UserError unless a prepared split was made of the release at `source`.

    Compares names, identities, cameras, modalities and the bytes of every image: a
    synthetic tree has the names of the real release.
    """
    folder = Path(builder.data_path)
    root = builder.root(source.expanduser().absolute())
    base = root if root.is_dir() else root.parent
    listed = builder.read(root, builder.config_name).get(split, [])
    left_out = folder / "unreadable.txt"
    lines = left_out.read_text().splitlines() if left_out.exists() else []
    is_left_out = lambda image: any(x.startswith(f"{image.filename} ") for x in lines)
    there = {
        (name, int(identity), int(camera), MODALITIES[modality]): digest.tobytes()
        for name, identity, camera, modality, digest in zip(
            records.filename,
            records.identity,
            records.camera,
            records.modality,
            records.digest,
            strict=True,
        )
    }
    wanted = [image for image in listed if not is_left_out(image)]
    other = [
        image.filename
        for image in wanted
        if there.get(tuple(image)) != _digest(base / image.filename)
    ]
    if other or len(wanted) != len(there):
        first = f", the first being {other[0]!r}" if other else ""
        raise UserError(
            f"{folder} is there and was not made of {source}: {len(other)} of its"
            f" {len(wanted)} images of {split!r} are not the ones there{first}. To"
            f" replace the set, delete it (rm -r {shlex.quote(str(folder))}) and run"
            " the same command again; to keep both, give another folder,"
            " --config.data.dir=DIR."
        )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _config_flag(builder: Any) -> str:
    """Return what names the builder's config to `python -m vireid_jax.prepare`."""
    config = builder.builder_config
    return f" --config {config.name}" if config else ""


def _find_config(
    module: Any, name: str, config: str | Mapping[str, Any] | None
) -> Any | None:
    configs = sorted(module.Builder.builder_configs)
    if isinstance(config, Mapping):
        if not hasattr(module, "make_config"):
            raise UserError(
                f"{name} takes no config arguments, but was given {dict(config)}; name "
                f"one of its configs {configs}, or leave it out."
            )
        return module.make_config(**config)
    if config is not None and config not in configs:
        raise UserError(f"config is {config!r}; {name} has {configs}.")
    return config


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing `folder`; their death frees it as well."""
    path = folder.with_name(f".{folder.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock(path))
        except BlockingIOError:
            sys.stderr.write(f"waiting for another process to prepare {folder}\n")
            held.enter_context(lock(path, wait=True))
        yield


def _prepare_aside(
    builder: Any, folder: Path, manual_dir: Path | None, skip_unreadable: bool = False
) -> None:
    """Prepare the set in a folder beside its own, and move it when it is whole."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()  # our builders have one of their own
    aside = folder.with_name(f".{folder.name}.preparing")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        new = type(builder)(
            config=builder.builder_config, data_dir=aside, file_format="array_record"
        )
        new.source, new.skip_unreadable = manual_dir, skip_unreadable
        # Its messages speak of downloads of unknown size.
        with contextlib.redirect_stdout(io.StringIO()):
            new.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        if unreadable := getattr(new, "unreadable", None):
            text = "".join(f"{line}\n" for line in unreadable)
            (Path(new.data_path) / "unreadable.txt").write_text(text)
        _move(Path(new.data_path), folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move(new: Path, folder: Path) -> None:
    try:
        os.rename(new, folder)
    except OSError:
        if not folder.exists():  # else TFDS, which asks for no lock, made it meanwhile
            raise


def _refuse_folder(
    folder: Path, error: Exception, manual_dir: str | Path | None
) -> None:
    """Raise UserError if `error` says that the folder is full or not writable.

    TFDS and the array_record writer wrap the system's errors: only words are left.
    """
    is_about = lambda number: os.strerror(number) in str(error)
    number = next(filter(is_about, _FULL + _UNWRITABLE), None)
    if number is None or (manual_dir and str(manual_dir) in str(error)):
        return
    there = next(path for path in folder.parents if os.path.exists(path))
    if number in _FULL:
        step = "free some space and run the same command again"
    else:
        step = "make it writable and run the same command again"
    raise UserError(
        f"{folder} cannot be prepared: {os.strerror(number)} "
        f"({shutil.disk_usage(there).free / 1e6:,.1f} MB are free). Nothing was kept; "
        f"{step}, or give another folder, --config.data.dir=DIR."
    ) from error
