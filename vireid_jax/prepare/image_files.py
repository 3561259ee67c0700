"""Read image files ahead of their use, and find those that do not decode."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vireid_jax.data.encoded import decode, truncation_error
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
        encoded, error = b"", ""
        try:
            encoded = (root / filename).read_bytes()
        except OSError as reason:
            error = f"cannot be read ({reason.strerror})"
        else:
            error = truncation_error(encoded)
            if not error and decode(encoded) is None:
                error = "cannot be decoded by OpenCV"
        read.append((encoded, error))
    return read
