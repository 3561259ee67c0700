"""Decode the batches of a stream ahead of the train step, in threads.

Grain does the scheduling. One element of its data set is a complete batch, addressed by
step, so order and contents cannot depend on which thread decodes what.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

from vireid_jax.data.any_image import Images, read_image
from vireid_jax.data.pk import PKStream
from vireid_jax.data.source import Records
from vireid_jax.run.errors import UserError

Batch = dict[str, np.ndarray]
_THREADS = 2  # that read ahead where no config has a number of them


def batches(
    visible: Records,
    infrared: Records | None,
    stream: PKStream,
    *,
    size: tuple[int, int],
    start_step: int = 0,
    num_steps: int,
    threads: int = 2,
    process_index: int = 0,
    process_count: int = 1,
    cache: str = "none",
) -> Iterator[Batch]:
    """Yield the training batches of steps start_step .. start_step + num_steps - 1.

    A batch is a dict of `visible` and `infrared` (uint8 `[batch, height, width, 3]`,
    RGB) and `visible_id` (labels of both, int32 `[batch]`). Its rows are this process's
    share: `batch` = P*K / process_count; raise UserError where that leaves a remainder.
    With `infrared=None` both sides are visible images, for a stream that was made so.

    `threads` decode ahead (0: none); the bytes are the same for every number.
    `cache="host"` keeps each decoded image in memory. With `cache="device"` nothing is
    decoded: `visible` and `infrared` are row numbers, int32 `[batch]`.
    """
    share = _share(stream.P * stream.K, process_index, process_count)
    sides = visible, visible if infrared is None else infrared

    def load(step: int) -> Batch:
        *rows, labels = (part[share] for part in stream[step])
        if cache == "device":
            images = [side_rows.astype(np.int32) for side_rows in rows]
        else:
            images = [
                records.images(side_rows, size, cached=cache == "host")
                for records, side_rows in zip(sides, rows, strict=True)
            ]
        return {"visible": images[0], "infrared": images[1], "visible_id": labels}

    if cache == "device":  # drawing row numbers is faster than a thread's hand-over
        return map(load, range(start_step, start_step + num_steps))
    return ahead(load, start_step, num_steps, threads)


def eval_batches(
    records: Records,
    rows: Int[np.ndarray, " rows"],
    *,
    size: tuple[int, int],
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yield every image of `rows` exactly once, in order, in batches of one shape.

    A batch is a dict of `image` (uint8 `[batch, height, width, 3]`), `row` (int32
    `[batch]`, from `rows`; -1 in padding) and `mask` (bool `[batch]`, False in padding,
    whose images are black): this process's share of `batch_size`. Raise UserError when
    that does not divide among the processes.
    """
    num_batches = math.ceil(len(rows) / batch_size)
    padded = np.full(num_batches * batch_size, -1, np.int32)
    padded[: len(rows)] = rows
    share = _share(batch_size, process_index, process_count)
    shares = padded.reshape(-1, batch_size)[:, share]

    def load(index: int) -> Batch:
        mask = shares[index] >= 0
        image = np.zeros((len(mask), *size, 3), np.uint8)
        image[mask] = records.images(shares[index][mask], size)
        return {"image": image, "row": shares[index], "mask": mask}

    return ahead(load, 0, num_batches, _THREADS)


def file_batches(
    sources: Images, *, size: tuple[int, int], batch_size: int
) -> Iterator[dict[str, Any]]:
    """Yield files and arrays of any kind, in order, in batches of one shape.

    A batch is a dict of `image` (uint8 `[batch, height, width, 3]`, black at the end
    where images are missing), `indices` (in `sources`, of the others) and `errors` (by
    index, why an image could not be read).
    """

    def load(batch: int) -> dict[str, Any]:
        image = np.zeros((batch_size, *size, 3), np.uint8)
        indices: list[int] = []
        errors: dict[int, str] = {}
        first = batch * batch_size
        for index in range(first, min(first + batch_size, len(sources))):
            try:
                image[len(indices)] = read_image(sources[index], size)
                indices.append(index)
            except ValueError as error:
                errors[index] = str(error)
            except OSError as error:
                errors[index] = f"{sources[index]}: {error.strerror or error}"
        return {"image": image, "indices": indices, "errors": errors}

    count = math.ceil(len(sources) / batch_size)
    # One batch is read sooner than threads start.
    return ahead(load, 0, count, _THREADS if count > 1 else 0)


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    local, remainder = divmod(batch_size, process_count)
    if remainder:
        raise UserError(
            f"a batch of {batch_size} images does not divide among {process_count} "
            f"processes; make it a multiple of {process_count}"
        )
    return slice(process_index * local, (process_index + 1) * local)


def ahead(
    load: Callable[[int], Any], start: int, count: int, threads: int
) -> Iterator[Any]:
    """Yield load(start), load(start + 1), ...: `count` of them, computed ahead."""
    if not threads or not count:
        return map(load, range(start, start + count))
    # Grain's default buffer is 500 elements, and an element is a complete batch.
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    steps = grain.MapDataset.range(start, start + count)
    return iter(steps.map(load).to_iter_dataset(ahead))
