"""Read image files ahead of their use, and find those that do not decode."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from vireid_jax.data.encoded import flaw
from vireid_jax.run.cpu import cores

_CHUNK = 32  # images a thread takes at a time
_AHEAD = 4  # chunks a thread may be ahead of their use


def read_images(root: Path, filenames: Sequence[str]) -> Iterator[tuple[bytes, str]]:
    """Yield each file's bytes and what is wrong with it ("": nothing), in order.

    Threads read and decode ahead: OpenCV lets go of the interpreter meanwhile.
    """
    chunks = (filenames[i : i + _CHUNK] for i in range(0, len(filenames), _CHUNK))
    threads = cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_read, root, chunk))
                if len(waiting) > threads * _AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:  # also when the caller stops early
            pool.shutdown(cancel_futures=True)


def _read(root: Path, filenames: Sequence[str]) -> list[tuple[bytes, str]]:
    read = []
    for filename in filenames:
        try:
            encoded = (root / filename).read_bytes()
        except OSError as error:
            read.append((b"", f"cannot be read ({error.strerror})"))
        else:
            read.append((encoded, flaw(encoded) or _undecodable(encoded)))
    return read


def _undecodable(encoded: bytes) -> str:
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        pixels = None
    return "is nothing that OpenCV can decode" if pixels is None else ""
