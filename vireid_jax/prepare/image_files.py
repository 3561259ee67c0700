"""Read image files ahead of their use, and find those that do not decode."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from vireid_jax.data.encoded import decode, truncation_error
from vireid_jax.data.pipeline import ahead
from vireid_jax.run.cpu import cores

_CHUNK = 32  # images a thread takes at a time


def read_images(root: Path, filenames: Sequence[str]) -> Iterator[tuple[bytes, str]]:
    """Yield each file's bytes and what is wrong with it ("": nothing), in order.

    Threads read and decode ahead: OpenCV releases the interpreter lock meanwhile.
    """

    def load(chunk: int) -> list[tuple[bytes, str]]:
        names = filenames[chunk * _CHUNK : (chunk + 1) * _CHUNK]
        return [_read(root / name) for name in names]

    for files in ahead(load, 0, math.ceil(len(filenames) / _CHUNK), cores()):
        yield from files


def _read(path: Path) -> tuple[bytes, str]:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return b"", f"cannot be read ({error.strerror})"
    reason = truncation_error(encoded)
    if not reason and decode(encoded) is None:
        reason = "cannot be decoded by OpenCV"
    return encoded, reason
