"""OSNets of reference: torch's keys, weights by recipe, images, published sizes."""

import functools
import json
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vireid_jax import models
from vireid_jax.models.build import init_variables
from vireid_jax.weights import pretrained

FOLDER = Path(__file__).parent / "golden"
read = lambda name: json.loads((FOLDER / name).read_text())
COMPLEXITY = read("osnet.json")["complexity"]
KEYS = {name: about["keys"] for name, about in read("osnet_variants.json").items()}
KEYS["osnet_x0_25"] = {
    key: shape
    for key, shape in read("osnet_x0_25_keys.json").items()
    if not key.endswith("num_batches_tracked")
}
# IBN is the base with other norms.
KEYS["osnet_x1_0"] = {
    key: shape for key, shape in KEYS["osnet_ibn_x1_0"].items() if ".IN." not in key
} | {"conv1.bn.running_mean": [64], "conv1.bn.running_var": [64]}
CLASSES = 395


def recipe(name):
    """Draw torch weights from their names, as the golden outputs' were drawn."""
    tensors = {}
    for key, shape in KEYS[name].items():
        rng = np.random.RandomState(zlib.crc32(f"{name}:{key}".encode()))
        z = rng.standard_normal(shape)
        if key.endswith("running_var"):
            z = 0.5 + rng.random_sample(shape)
        elif key.endswith("running_mean"):
            z = 0.1 * z
        elif len(shape) == 1:
            z = 1 + 0.2 * z if key.endswith("weight") else 0.1 * z
        else:
            z = z / np.sqrt(np.prod(shape[1:]))
        tensors[key] = z.astype(np.float32)
    return tensors


@functools.cache
def shapes_of(model):
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))


def zeros_of(model):
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes_of(model))


def with_torch_weights(model, name):
    return pretrained.insert_weights(zeros_of(model), recipe(name), "the recipe")


def golden_images(name):
    """Return the images of the golden outputs, `[2, 1, H, W, 3]`."""
    seed = {"osnet_ain_x0_25": 20240603, "osnet_ibn_x1_0": 20240604}.get(name, 20240601)
    size = (256, 128) if seed == 20240601 else (128, 64)
    images = np.random.RandomState(seed).standard_normal((2, 3, *size))
    return images.astype(np.float32).transpose(0, 2, 3, 1)[:, None]


def leaves_of(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def features(folder, name, images):
    """Return the features of the single network that was written into the folder."""
    model = models.create_single(name)
    tensors, _ = pretrained.read_file(folder / f"{name}.safetensors")
    variables = pretrained.insert_weights(shapes_of(model), tensors, "it")
    return jax.jit(model.apply)(variables, jnp.asarray(images))[0][:, 0]


def nothing_in(folder):
    return not folder.exists() or not list(folder.iterdir())
