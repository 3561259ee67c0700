"""Embed the images of a folder into a file; a stopped command resumes."""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from vireid_jax.embed.embedder import Embedded, Embedder
from vireid_jax.embed.feature_files import (
    SUFFIXES,
    check_suffix,
    read_features,
    write_features,
)
from vireid_jax.modality import MODALITIES
from vireid_jax.run.console import progress_bar
from vireid_jax.run.environment import version
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import check_parent, lock, replace_text, sweep

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
BATCHES_A_SAVE = 16  # a killed process has to do at most these again

# In the folder OUT.partial, until the work is done:
_ROWS = "features.f32"  # the embeddings so far, without a header
_PROGRESS = "progress.json"  # how many images they are of, and their checksum
_LOCK = ".lock"


def list_images(folder: Path) -> list[str]:
    """List a folder's images, those below it too, in the order of their names.

    Names are relative, with `/`; links to folders are not followed. Raise UserError
    where there is no such folder, it has no image, a link leads to a file outside it,
    or a name is no line of UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give a folder of images")
    names = []
    for parent, _, files in os.walk(folder, onerror=_raise):
        for path in (Path(parent, name) for name in files):
            # A link to nothing is listed, and reported as unreadable; a pipe is not.
            is_image = path.is_file() or not path.exists()
            if is_image and path.suffix.lower() in IMAGES:
                _check_name(path, folder)
                names.append(path.relative_to(folder).as_posix())
    if not names:
        raise UserError(f"{folder} has no image; valid suffixes: {', '.join(IMAGES)}")
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error


def _check_name(path: Path, folder: Path) -> None:
    if path.is_symlink() and not is_inside(path, folder):
        raise UserError(
            f"{path} links to {os.path.realpath(path)}, outside {folder}; use a copy"
        )
    if any(sign < " " or "\ud800" <= sign <= "\udfff" for sign in path.name):
        raise UserError(
            f"rename {os.fsencode(path)!r}: it is no UTF-8 or has control characters"
        )


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether a path, its links followed, is in the folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def embed_folder(
    embedder: Embedder,
    folder: Path,
    filename: Sequence[str],
    modality: str,
    console: Console,
    start: int = 0,
) -> Iterator[Embedded]:
    """Yield the embeddings of a folder's images from `start` on, with a progress bar.

    Indices count from `start`.
    """
    with progress_bar("embed", console) as bar:
        task = bar.add_task("embed", total=len(filename), completed=start)
        paths = [folder / name for name in filename[start:]]
        for batch in embedder.embed_stream(paths, modality):
            yield batch
            bar.advance(task, len(batch.indices) + len(batch.errors))


def extract(
    embedder: Embedder,
    folder: Path,
    modality: str,
    out: Path,
    *,
    unreadable: str = "skip",
    console: Console | None = None,
) -> dict[str, str]:
    """Embed a folder's images into the file `out`; return errors by file name.

    An image with an error is not in the file. `unreadable` is "skip" or "refuse". Raise
    UserError where no image can be read, or with "refuse" where one cannot. Called
    again after it was stopped or killed, resume, to the same bytes.
    """
    check_out(out)
    filename = list_images(folder)
    console = console or Console(quiet=True)
    partial = out.with_name(f"{out.name}.partial")
    partial.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(partial / _LOCK))
        except BlockingIOError as error:
            raise UserError(f"{error} is writing {out}; wait for it") from error
        listed = out.with_name(f"{out.name}.unreadable.txt")
        sweep(partial)
        sweep(out.parent, listed.name)
        key = _key(embedder, folder, filename, modality)
        start, checksum, errors = _resume(partial, key, embedder.dim)
        batches = embed_folder(embedder, folder, filename, modality, console, start)
        done = start
        with (partial / _ROWS).open("ab" if start else "wb") as file:
            for number, batch in enumerate(batches, 1):
                file.write(batch.embeddings.tobytes())
                checksum = zlib.crc32(batch.embeddings.tobytes(), checksum)
                errors |= {filename[start + i]: why for i, why in batch.errors.items()}
                done += len(batch.indices) + len(batch.errors)
                if number % BATCHES_A_SAVE == 0 or done == len(filename):
                    file.flush()  # rows first: the file may have more than the count
                    progress = {"key": key, "images": done, "checksum": checksum}
                    text = json.dumps(progress | {"errors": errors})
                    replace_text(partial / _PROGRESS, text)
                if errors and unreadable == "refuse":
                    break
        if errors and unreadable == "refuse":
            raise UserError(f"{next(iter(errors.values()))}; nothing was written")
        read = [name for name in filename if name not in errors]
        if not read:
            raise UserError(
                f"none of the {len(filename)} images in {folder} can be read; the"
                f" first: {next(iter(errors.values()))}"
            )
        shape = (len(read), embedder.dim)
        features = np.memmap(partial / _ROWS, np.float32, "r", shape=shape)
        about = {
            "network": embedder.fingerprint,
            "modality": modality,
            "dim": embedder.dim,
            "feature": embedder.feature,
            "flip": embedder.flip,
            "size": list(embedder.size),
            "step": embedder.about.step,
            "folder": str(folder.resolve()),
            "version": version("vireid-jax"),
        }
        write_features(out, read, features, about)
        lines = "".join(f"{name}\t{error}\n" for name, error in errors.items())
        replace_text(listed, lines) if lines else listed.unlink(missing_ok=True)
        for name in (_PROGRESS, _ROWS, _LOCK):
            (partial / name).unlink()
    with contextlib.suppress(OSError):  # it holds files of others
        partial.rmdir()
    return errors


def _resume(partial: Path, key: str, dim: int) -> tuple[int, int, dict[str, str]]:
    """Return how many images are done, their checksum and errors; drop rows beyond.

    Nothing is done where the work is of other images or another network, or damaged.
    """
    try:
        progress = json.loads((partial / _PROGRESS).read_text())
        images, errors = progress["images"], progress["errors"]
        size = 4 * dim * (images - len(errors))
        os.truncate(partial / _ROWS, size)
        checksum = 0
        with (partial / _ROWS).open("rb") as file:
            while content := file.read(2**24):
                checksum = zlib.crc32(content, checksum)
        if (progress["key"], progress["checksum"]) == (key, checksum):
            return images, checksum, errors
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return 0, 0, {}


def _key(
    embedder: Embedder, folder: Path, filename: Sequence[str], modality: str
) -> str:
    """Hash what decides the rows: the network, and the files as they are now."""
    lines = [embedder.fingerprint, modality, str(embedder.batch_size)]
    for name in filename:
        lines.append(name)
        with contextlib.suppress(OSError):  # it will be reported as unreadable
            status = (folder / name).stat()
            # With ctime: that of a file made readable changes, and no other does.
            times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            lines.append("\t".join(map(str, times)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_out(out: Path) -> None:
    """Raise UserError for a path where no feature file can be written."""
    check_suffix(out)
    check_parent(out)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give a file's name")


class Gallery(NamedTuple):
    """Embedded images to rank."""

    features: np.ndarray  # float32 [rows, dim]
    filename: list[str]
    folder: Path  # that the names are relative to
    modality: str


def open_gallery(
    embedder: Embedder,
    path: Path,
    modality: str | None,
    images: Path | None,
    console: Console,
) -> Gallery:
    """Read a feature file, or embed a folder's images with `modality`.

    Images of a folder that cannot be read are left out, and printed. `images` is where
    a feature file's images are now. Raise UserError for features of another network,
    and for a folder without images or modality.
    """
    if path.suffix in SUFFIXES and not path.is_dir():
        features, filename, about = read_features(path)
        if about["network"] != embedder.fingerprint:
            raise UserError(
                f"{path} has embeddings of {about['dim']} numbers, by the network"
                f" {about['network'][:12]}; this checkpoint's, of {embedder.dim}, is"
                f" {embedder.fingerprint[:12]}. Embed the gallery with it: python -m"
                " vireid_jax.extract"
            )
        if modality not in (None, about["modality"]):
            raise UserError(
                f"--gallery_modality {modality}: {path} holds {about['modality']}"
                " images; leave the flag out"
            )
        folder = images or Path(about["folder"])
        return Gallery(features, filename, folder, about["modality"])
    filename = list_images(path)
    if modality is None:
        raise UserError(
            f"the folder {path} needs --gallery_modality; valid values: {MODALITIES}"
        )
    read, parts = [], []
    for batch in embed_folder(embedder, path, filename, modality, console):
        read += [filename[index] for index in batch.indices]
        parts.append(batch.embeddings)
        for error in batch.errors.values():
            console.print(f"Left out: {error}", soft_wrap=True, markup=False)
    if not read:
        raise UserError(f"none of the {len(filename)} images in {path} can be read")
    return Gallery(np.concatenate(parts), read, path, modality)
