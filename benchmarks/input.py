"""Measure the input stream alone: images/s read, decoded and batched.

    python -m benchmarks.input [--step_images_per_s X] [--seconds 2]

It writes 2,000 small JPEGs of 128x64 to a temporary array_record file, and streams
batches of 64 + 64 of them through `vireid_jax.data.pipeline` with 0, 2 and 4 threads,
decoding every image again or from the host cache. It prints JSON, then one line. Given
the images/s of a training step, it adds the ratio.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from vireid_jax.data.pipeline import batches
from vireid_jax.data.pk import PKStream
from vireid_jax.data.source import Records, index_records

SIZE = (128, 64)
IDENTITIES, SHOTS = 100, 10  # shots of each modality
P, K = 16, 4


def make_records(folder: Path) -> Records:
    """Write smooth figures before smooth backgrounds, as JPEGs in one array_record."""
    path = str(folder / "figures.array_record")
    writer = ArrayRecordWriter(path, "group_size:1")
    for i in range(IDENTITIES * 2 * SHOTS):
        identity, shot = divmod(i, 2 * SHOTS)
        rng = np.random.default_rng((identity, shot))
        corners = rng.integers(0, 256, (2, 2, 3), np.uint8)
        image = cv2.resize(corners, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        for top, length in ((20, 12), (50, 25), (95, 30)):  # head, trunk, legs
            colour = rng.integers(0, 256, 3).tolist()
            cv2.ellipse(
                image, (32, top), (length // 2 + 6, length), 0, 0, 360, colour, -1
            )
        example = tf_example_pb2.Example()
        feature = example.features.feature
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        feature["image"].bytes_list.value.append(jpeg)
        feature["filename"].bytes_list.value.append(f"{i:05d}.jpg".encode())
        feature["identity"].int64_list.value.append(identity)
        feature["camera"].int64_list.value.append(0)
        feature["modality"].int64_list.value.append(shot % 2)
        writer.write(example.SerializeToString())
    writer.close()
    return index_records(ArrayRecordDataSource([path]), "figures")


def images_per_second(
    records: Records, threads: int, cache: str, seconds: float
) -> float:
    """Time the stream for about `seconds`, after its first batch."""
    visible, infrared = records.of("visible"), records.of("infrared")
    stream = PKStream(visible.labels, infrared.labels, P, K, seed=0)
    if cache == "host":
        records.images(np.arange(len(records)), SIZE, cache)
    flow = batches(
        visible,
        infrared,
        stream,
        size=SIZE,
        num_steps=10**9,
        threads=threads,
        cache=cache,
    )
    next(flow)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(flow)
        steps += 1
    elapsed = time.perf_counter() - start
    flow.close()
    return steps * 2 * P * K / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each setting")
    parser.add_argument(
        "--step_images_per_s", type=float, help="images/s that the train step takes"
    )
    arguments = parser.parse_args()
    rates = {}
    with tempfile.TemporaryDirectory() as folder:
        records = make_records(Path(folder))
        for cache in ("none", "host"):
            for threads in (0, 2, 4):
                rate = images_per_second(records, threads, cache, arguments.seconds)
                rates[f"cache={cache} threads={threads}"] = round(rate)
    result = {"size": SIZE, "cpus": os.cpu_count(), "images_per_s": rates}
    usual = rates["cache=none threads=2"]
    line = f"input: {usual} images/s at 128x64 (2 threads, no cache)"
    if step := arguments.step_images_per_s:
        result["times_the_step"] = {k: round(v / step, 2) for k, v in rates.items()}
        line += f", {usual / step:.1f} times the step's {step:g}"
    print(json.dumps(result, indent=2))
    print(line)


if __name__ == "__main__":
    main()
