"""Compare `python -m vireid_jax.extract` with embedding arrays in memory.

    python -m benchmarks.extract
    python -m benchmarks.extract --network osnet_x0_25 --size 128x64 --images 4096

The rival is what `python -m benchmarks --only eval` times: the same network with random
weights and without the mirror, on arrays of its size. `extract` also reads JPEG files
of twice that size, scales them, and writes the feature file. Both take turns; compiling
is not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.cases import Case
from benchmarks.pairs import check_outputs, paired_ratio

BATCH = 64


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extract")
    parser.add_argument("--network", default="osnet_x1_0")
    parser.add_argument("--size", default="256x128", help="height x width")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    from vireid_jax.run.runtime import set_up

    set_up()
    from benchmarks.ours import config_of, variables_of
    from vireid_jax.data.any_image import read_image
    from vireid_jax.embed.embedder import Embedder
    from vireid_jax.embed.feature_files import read_features
    from vireid_jax.embed.folder import extract
    from vireid_jax.models.build import create_model

    size = height, width = tuple(map(int, arguments.size.split("x")))
    job = Case(arguments.network, height, width, BATCH).job("eval")
    model = create_model(config_of(job), job["classes"])
    embedder = Embedder(
        model,
        variables_of(model),
        size=size,
        flip=False,
        batch_size=BATCH,
        modalities=["visible"],
    )
    rng, ours, rival = np.random.default_rng(0), [], []
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder) / "images", Path(folder) / "features.npz"
        images.mkdir()
        for number in range(arguments.images):
            coarse = rng.integers(0, 256, (16, 8, 3), np.uint8)
            image = cv2.resize(coarse, (2 * width, 2 * height))
            cv2.imwrite(f"{images}/{number:06d}.jpg", image)
        paths = sorted(images.iterdir())
        expected = {"embeddings": embedder.embed(paths, "visible")}
        arrays = np.stack([read_image(path, size) for path in paths])
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            extract(embedder, images, "visible", out)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            embedder.embed(arrays, "visible")
            rival.append(time.perf_counter() - start)
        stored = {"embeddings": read_features(out).features}
        check_outputs(expected, stored, "the feature file")
    ratio = paired_ratio(ours, rival)
    a_second = (arguments.images / float(np.median(s)) for s in (ours, rival))
    print(
        "{:.0f} images/s from files, {:.0f} from memory;".format(*a_second),
        f"memory's time is {ratio['value']:.3f} of extract's"
        f" (95% interval {ratio['low']:.3f} to {ratio['high']:.3f})",
    )


if __name__ == "__main__":
    main()
