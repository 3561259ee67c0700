"""Time preparing a release: `python -m benchmarks.prepare [--images 40000]`.

Print images/s of our builder, which also decodes every image to find broken ones, and
of the same builder with TFDS's own writer, which does not. The tree has SYSU-MM01's
layout and repeats some hundred synthetic images. Both run in turn, several times; on a
shared machine the best is closest to the program's own speed.
"""

import argparse
import contextlib
import io
import itertools
import os
import tempfile
import time
from pathlib import Path

import tensorflow_datasets as tfds
from vireid_jax.datasets.sysu_mm01 import sysu_mm01_dataset_builder as sysu_mm01

from vireid_jax.run.runtime import only_errors
from vireid_jax.synthetic import PRESETS, generate, plan
from vireid_jax.synthetic.layouts import plan_tree

TARGET = 3000


class PlainBuilder(sysu_mm01.Builder, skip_registration=True):
    """The rival: TFDS's shuffle, serializer and writer; nothing is decoded."""

    name = "sysu_mm01"

    def _generate_examples(self, root, split, images):
        for image in images:
            path = root / image.filename
            yield image.filename, {**image._asdict(), "image": path}

    def _download_and_prepare(self, dl_manager, download_config=None):
        plain = tfds.core.GeneratorBasedBuilder._download_and_prepare
        plain(self, dl_manager, download_config)


def write_release(root: Path, images: int, size: tuple[int, int]) -> int:
    tree = plan_tree("sysu_mm01")
    specs = plan("nir", range(20), 10)
    drawn = generate(specs, seed=0, size=size, knobs=PRESETS["easy"])
    files = itertools.cycle([data for _, data, _ in drawn])
    tree.write_index(root, "A benchmark's tree.")
    names = list(tree.images)
    kept = names[:: max(1, round(len(names) / images))]
    for name in kept:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(next(files))
    return len(kept)


def rate(builder_class, root: Path, images: int) -> float:
    with tempfile.TemporaryDirectory() as folder, only_errors():
        builder = builder_class(data_dir=folder, file_format="array_record")
        builder.source = root
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
        return images / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "SYSU-MM01"
        size = options.height, options.height // 2
        images = write_release(root, options.images, size)
        print(f"{images:,} images of {size[0]}x{size[1]}, images/s, "
              f"{len(os.sched_getaffinity(0))} cores; target {TARGET:,}")  # fmt: skip
        rates = {"ours": [], "plain TFDS": []}
        for _ in range(options.rounds):
            rates["ours"].append(rate(sysu_mm01.Builder, root, images))
            rates["plain TFDS"].append(rate(PlainBuilder, root, images))
        for name, found in rates.items():
            text = " ".join(f"{one:6.0f}" for one in found)
            print(f"{name:10}  best {max(found):6.0f}  all {text}")


if __name__ == "__main__":
    main()
