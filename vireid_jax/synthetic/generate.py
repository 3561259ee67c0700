"""Render images: one, or many on many cores, the same bytes for any worker count.

A worker is a fresh interpreter that gets its job through a pipe. It imports neither the
caller's main script nor jax, so this is safe in a notebook, in a script without a main
guard, and beside running jax threads.
"""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from vireid_jax.run.environment import cores
from vireid_jax.run.errors import UserError
from vireid_jax.synthetic import bands
from vireid_jax.synthetic.knobs import Knobs
from vireid_jax.synthetic.plan import Spec
from vireid_jax.synthetic.raster import rasterise
from vireid_jax.synthetic.scene import compose

_ROWS = 192
# Visible and infrared are stored alike, so the file type does not depend on it.
_OPTIONS = {".jpg": (cv2.IMWRITE_JPEG_QUALITY, 92), ".bmp": ()}
_CHUNK = 40  # images that a worker returns at a time
_WORKER = "from vireid_jax.synthetic.generate import serve; serve()"

Made = tuple[Spec, bytes, UInt8[np.ndarray, "32 16"]]


class Shot(NamedTuple):
    """An image, and the person's own visible mask reduced by area."""

    image: UInt8[np.ndarray, "height width 3"]
    silhouette: UInt8[np.ndarray, "32 16"]


def check_size(size: tuple[int, int]) -> None:
    """Raise UserError for a `(height, width)` that cannot be drawn."""
    height, width = size
    if height < 32 or width < 16 or width > 2 * height:
        valid = "(height, width), at least (32, 16), width at most twice the height"
        raise UserError(f"size {size}: give {valid}")


def render(spec: Spec, *, seed: int, size: tuple[int, int], knobs: Knobs) -> Shot:
    """Draw the image that `spec` names in the world of this seed and these knobs.

    `size` is `(height, width)` in pixels. The image is RGB uint8 `[height, width, 3]`
    (infrared has three equal channels), the silhouette uint8 `[32, 16]`, 255 where
    only the person is seen.
    Raise UserError for a size below (32, 16) or wider than twice its height.
    """
    check_size(size)
    height, width = size
    # Drawn on at least 192 rows and averaged; the optics hide the edges of large ones.
    rows = max(height, min(2 * height, _ROWS))
    canvas = (rows, round(rows * width / height))
    scene = compose(spec, seed=seed, canvas=canvas, knobs=knobs)
    raster = rasterise(scene.actors, scene.view, canvas)
    infrared = bands.thermal if spec.variant == "thermal" else bands.near_infrared
    imaging = bands.visible if spec.modality == "visible" else infrared
    image = imaging(scene, raster, size)
    own = cv2.inRange(raster.labels, 1, len(scene.actors[0].parts))
    return Shot(image, cv2.resize(own, (16, 32), interpolation=cv2.INTER_AREA))


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

    `seed` and `knobs` choose the world, `size` is `(height, width)` in pixels, `suffix`
    is the file type, ".jpg" or ".bmp". `workers` is a number of processes: 1 renders in
    this one, None uses all cores. The bytes do not depend on it.
    Raise UserError for a bad size, number of workers or file type, RuntimeError if a
    worker dies.
    """
    check_size(size)
    workers = cores() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers={workers}: give at least 1, or None for all cores")
    if suffix not in _OPTIONS:
        raise UserError(f"suffix={suffix!r}: choose one of {', '.join(_OPTIONS)}")
    specs, world = list(specs), (seed, size, knobs, suffix)
    workers = min(workers, max(1, len(specs) // _CHUNK))
    if workers == 1:
        yield from _make(specs, *world)
        return
    chunks = [specs[at : at + _CHUNK] for at in range(0, len(specs), _CHUNK)]
    processes: list[Any] = []  # their pipes are never None
    try:
        for first in range(workers):
            processes.append(_start((chunks[first::workers], *world)))
        for number in range(len(chunks)):
            process = processes[number % workers]
            try:
                yield from pickle.load(process.stdout)
            except (EOFError, pickle.UnpicklingError) as error:
                raise RuntimeError(
                    f"a rendering process ended early (exit code {process.wait()}); its"
                    " error is above. Try workers=1 to see it in this process"
                ) from error
    finally:  # also when the caller stops early
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()


def _make(
    specs: Sequence[Spec], seed: int, size: tuple[int, int], knobs: Knobs, suffix: str
) -> Iterator[Made]:
    """Render and encode one image after the other."""
    for spec in specs:
        image, silhouette = render(spec, seed=seed, size=size, knobs=knobs)
        _, data = cv2.imencode(suffix, image[..., ::-1], _OPTIONS[suffix])
        yield spec, data.tobytes(), silhouette


def _start(job: tuple) -> subprocess.Popen:
    """Start a worker and send it its job, the arguments of `_make` with many chunks."""
    process: Any = subprocess.Popen(
        [sys.executable, "-c", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        process_group=0,  # Ctrl-C is for the caller; a worker ends when its pipe does
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    with contextlib.suppress(BrokenPipeError):  # if it dies, reading its answer fails
        pickle.dump(job, process.stdin)
        process.stdin.close()
    return process


def serve() -> None:
    """Do one job from stdin as a worker; write chunk after chunk to stdout."""
    cv2.setNumThreads(1)  # the processes share the cores
    chunks, *world = pickle.load(sys.stdin.buffer)
    try:
        for chunk in chunks:
            pickle.dump(list(_make(chunk, *world)), sys.stdout.buffer)
            sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)  # the caller is gone; Python would report it once more at its end
