"""An embedder of random weights, and folders of images of noise for it."""

import jax
import numpy as np
from PIL import Image
from small_run import Small

from vireid_jax.embed.embedder import Embedder
from vireid_jax.models.build import init_variables
from vireid_jax.training.run_info import RunInfo

SIZE = (64, 32)
NAMES = ["a/1.png", "a/2.bmp", "b.jpg", "c d.tiff", "é<b>.png"]


def embedder_of(seed=0, **changes):
    """Return a stem and a head with random weights."""
    variables = init_variables(Small(3), jax.random.key(seed))
    about = RunInfo(config={}, num_classes=3, step=7)
    options = {"size": SIZE, "batch_size": 4, "about": about} | changes
    return Embedder(Small(3), variables, **options)


def fill(folder, names=NAMES):
    """Write images of noise; return the folder."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (50 + number, 30, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder
