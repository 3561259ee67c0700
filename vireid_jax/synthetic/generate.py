"""Renders many images on many cores: in order, the same bytes for any worker count.

A worker is a fresh interpreter that is told everything through a pipe. It imports
neither the caller's main script nor jax, so this is safe in a notebook, in a script
without a main guard, and beside running jax threads.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import cv2
import numpy as np
from jaxtyping import UInt8

from vireid_jax.run.cpu import cores
from vireid_jax.run.errors import UserError
from vireid_jax.synthetic.knobs import Knobs
from vireid_jax.synthetic.plan import Spec
from vireid_jax.synthetic.render import Shot, render

# Visible and infrared are stored alike, so the file type never tells the modality.
_OPTIONS = {".jpg": (cv2.IMWRITE_JPEG_QUALITY, 92), ".bmp": ()}
_CHUNK = 40  # images that a worker returns at a time
_LENGTH = 8  # bytes before each message

Made = tuple[Spec, bytes, UInt8[np.ndarray, "32 16"]]


def encode(shot: Shot, suffix: str = ".jpg") -> bytes:
    """Return the file of a shot's image, a JPEG or a BMP."""
    image = shot.image[..., ::-1]
    return cv2.imencode(suffix, image, _OPTIONS[suffix])[1].tobytes()


def _make(
    specs: Sequence[Spec], seed: int, size, knobs: Knobs, suffix: str
) -> Iterator[Made]:
    """Render and encode one image after the other."""
    for spec in specs:
        shot = render(spec, seed=seed, size=size, knobs=knobs)
        yield spec, encode(shot, suffix), shot.silhouette


def generate(
    specs: Sequence[Spec],
    *,
    seed: int,
    size: tuple[int, int],
    knobs: Knobs,
    workers: int | None = None,
    suffix: str = ".jpg",
) -> Iterator[Made]:
    """Yield (spec, file bytes, silhouette uint8 `[32, 16]`) in the order of `specs`.

    Args:
      specs: the images to make.
      seed: the world.
      size: `(height, width)` in pixels.
      knobs: how hard the world is.
      workers: processes; 1 renders in this one, None uses all cores. The bytes do
        not depend on it.
      suffix: ".jpg" or ".bmp", the file type.

    Raises:
      UserError: for a bad size, number of workers or file type.
      RuntimeError: if a worker dies.
    """
    if workers is None:
        workers = cores()
    if workers < 1:
        raise UserError(f"workers={workers}: give at least 1, or None for all cores.")
    if suffix not in _OPTIONS:
        raise UserError(f"suffix={suffix!r}: choose one of {', '.join(_OPTIONS)}.")
    specs = list(specs)
    workers = min(workers, max(1, len(specs) // _CHUNK))
    if workers == 1:
        yield from _make(specs, seed, size, knobs, suffix)
        return
    chunks = [specs[at : at + _CHUNK] for at in range(0, len(specs), _CHUNK)]
    processes = []
    try:
        for first in range(workers):
            job = chunks[first::workers], seed, size, knobs, suffix
            processes.append(_start(job))
        for number, chunk in enumerate(chunks):
            made = _receive(processes[number % workers])
            for spec, (data, silhouette) in zip(chunk, made, strict=True):
                yield spec, data, silhouette
    finally:  # also when the caller stops early
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()


def _start(job: tuple) -> subprocess.Popen:
    """Start a worker and hand it its job."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vireid_jax.synthetic.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C is for us; the worker ends when its pipe does
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        pickle.dump(job, process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: reading its answer reports that
    return process


def _receive(process: subprocess.Popen) -> list[tuple[bytes, np.ndarray]]:
    """Return the next chunk that a worker made."""
    length = int.from_bytes(process.stdout.read(_LENGTH), "big")
    message = process.stdout.read(length)
    if not length or len(message) < length:
        raise RuntimeError(
            f"a rendering process ended early (exit code {process.wait()}); its error "
            "stands above. Try workers=1 to see it in this process."
        )
    return pickle.loads(message)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Do one job from `source`, writing chunk after chunk to `sink`."""
    cv2.setNumThreads(1)  # the processes share the cores
    chunks, *world = pickle.load(source)
    for chunk in chunks:
        made = [(data, mask) for _, data, mask in _make(chunk, *world)]
        message = pickle.dumps(made)
        sink.write(len(message).to_bytes(_LENGTH, "big"))
        sink.write(message)
        sink.flush()
