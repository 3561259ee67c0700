"""Decode the batches of a stream ahead of the train step, in threads.

Grain does the scheduling. One element of its data set is one whole batch, addressed by
step, so order and contents cannot depend on who decodes what.
"""

import functools
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
    RGB) and `visible_id` and `infrared_id` (labels, int32 `[batch]`). Its rows are this
    process's share: `batch` = P*K / process_count. `infrared=None` takes the second
    side from the visible images too, for a stream that was made so. `size` is (height,
    width).

    `threads` decode ahead (0: when asked); the bytes are the same for every number.
    `cache="host"` keeps each decoded image in this process's memory. With
    `cache="device"` nothing is decoded: `visible` and `infrared` are the row numbers,
    int32 `[batch]`. Raises UserError when P*K does not divide among the processes.
    """
    load = functools.partial(
        _load_train_batch,
        visible=visible,
        infrared=visible if infrared is None else infrared,
        stream=stream,
        share=_share(stream.P * stream.K, process_index, process_count),
        size=size,
        cache=cache,
    )
    return _in_order(load, start_step, num_steps, threads, cache)


def eval_batches(
    records: Records,
    rows: Int[np.ndarray, " rows"],
    *,
    size: tuple[int, int],
    batch_size: int,
    threads: int = 2,
    process_index: int = 0,
    process_count: int = 1,
    cache: str = "none",
) -> Iterator[Batch]:
    """Yield every image of `rows` exactly once, in order, in batches of one shape.

    A batch is a dict of `image` (uint8 `[batch, height, width, 3]`), `row` (int32
    `[batch]`, as given in `rows`; -1 in padding) and `mask` (bool `[batch]`, False in
    padding, whose images are black). Its rows are this process's share of a batch of
    `batch_size`; every process yields the same number of batches.
    Raises UserError when `batch_size` does not divide among the processes.
    """
    num_batches = math.ceil(len(rows) / batch_size)
    padded = np.full(num_batches * batch_size, -1, np.int32)
    padded[: len(rows)] = rows
    share = _share(batch_size, process_index, process_count)
    load = functools.partial(
        _load_eval_batch,
        records=records,
        rows=padded.reshape(-1, batch_size)[:, share],
        size=size,
        cache=cache,
    )
    return _in_order(load, 0, num_batches, threads, cache)


def file_batches(
    sources: Images,
    *,
    size: tuple[int, int],
    batch_size: int,
    threads: int = 2,
) -> Iterator[dict[str, Any]]:
    """Yield files and arrays of any kind, in order, in batches of one shape.

    A batch is a dict of `image` (uint8 `[batch, height, width, 3]`, black where there
    are no more), `places` (of its first rows, in `sources`) and `unreadable` (by place,
    why an image could not be read; it has no row).
    """
    load = functools.partial(
        _load_files, sources=sources, size=size, batch_size=batch_size
    )
    count = math.ceil(len(sources) / batch_size)
    if count == 1:  # threads would take longer to begin
        return map(load, range(1))
    return _in_order(load, 0, count, threads, "none")


def _load_files(
    index: int, *, sources: Images, size: tuple[int, int], batch_size: int
) -> dict[str, Any]:
    image = np.zeros((batch_size, *size, 3), np.uint8)
    places, unreadable = [], {}
    first = index * batch_size
    for place in range(first, min(first + batch_size, len(sources))):
        try:
            image[len(places)] = read_image(sources[place], size)
            places.append(place)
        except ValueError as error:
            unreadable[place] = str(error)
        except OSError as error:
            unreadable[place] = f"{sources[place]}: {error.strerror or error}"
    return {"image": image, "places": places, "unreadable": unreadable}


def _load_train_batch(
    step: int,
    *,
    visible: Records,
    infrared: Records,
    stream: PKStream,
    share: slice,
    size: tuple[int, int],
    cache: str,
) -> Batch:
    visible_rows, infrared_rows, labels = (part[share] for part in stream[step])
    if cache == "device":
        found = visible_rows.astype(np.int32), infrared_rows.astype(np.int32)
    else:
        found = (
            visible.images(visible_rows, size, cache),
            infrared.images(infrared_rows, size, cache),
        )
    return {
        "visible": found[0],
        "infrared": found[1],
        "visible_id": labels,
        "infrared_id": labels.copy(),
    }


def _load_eval_batch(
    index: int,
    *,
    records: Records,
    rows: Int[np.ndarray, "batches batch"],
    size: tuple[int, int],
    cache: str,
) -> Batch:
    mask = rows[index] >= 0
    image = np.zeros((len(mask), *size, 3), np.uint8)
    image[mask] = records.images(rows[index][mask], size, cache)
    return {"image": image, "row": rows[index], "mask": mask}


def _share(batch_size: int, process_index: int, process_count: int) -> slice:
    if batch_size % process_count:
        raise UserError(
            f"a batch of {batch_size} images does not divide among {process_count} "
            f"processes; make it a multiple of {process_count}."
        )
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


def _in_order(
    load: Callable[[int], Any], start: int, count: int, threads: int, cache: str
) -> Iterator[Any]:
    """Yield load(start), load(start + 1), ...: `count` of them, computed ahead."""
    if count == 0:
        return iter(())
    if cache == "device":  # to draw row numbers takes less than to hand them over
        return map(load, range(start, start + count))
    # Grain's default buffer is 500 elements, and an element is a whole batch.
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    steps = grain.MapDataset.range(start, start + count)
    return iter(steps.map(load).to_iter_dataset(ahead))
