"""Write a network as files of a format."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from vireid_jax.data.any_image import CLIPPED, GREY
from vireid_jax.embed.embedder import Embedder
from vireid_jax.run.environment import commit
from vireid_jax.training.step import make_embed_step

NEEDED = {"onnx": ("onnx", "onnxruntime"), "jax": ("flatbuffers",), "safetensors": ()}
FORMATS = tuple(NEEDED)
STREAMS = ("separate", "both")
PLATFORMS = ("cpu", "cuda", "tpu")  # that a file of jax.export runs on
WEIGHTS = "network.safetensors"

RESIZING = (
    "To the network's height and width, proportions not kept: OpenCV's INTER_AREA where"
    " neither side grows, else INTER_LINEAR. Before that one channel is repeated three"
    f" times, alpha is laid over grey {GREY}, and more than 8 bits a channel, or"
    f" floats, are stretched: the darkest and the brightest {CLIPPED:g} percent of each"
    " image become 0 and 255. vireid_jax.data.any_image.read_image does all of this."
)


class Files(NamedTuple):
    """Files of one precision, by the modalities that each embeds."""

    precision: str
    paths: dict[tuple[str, ...], Path]


def describe(embedder: Embedder, format: str) -> dict[str, Any]:
    """Return `model.json`: what a program must know to use the files."""
    height, width = embedder.size
    about = embedder.about
    mirror = ["the sum of image and mirror"] if embedder.flip else []
    version = importlib.metadata.version("vireid-jax")
    return {
        "format": format,
        "input": {
            "type": "uint8",
            "shape": ["batch", height, width, 3],
            "colours": "RGB, 0 to 255",
            "resizing": RESIZING,
        },
        "output": {"type": "float32", "shape": ["batch", embedder.dim]},
        "inside": ["ImageNet normalisation", *mirror, "L2 normalisation"],
        "modalities": list(embedder.modalities),
        "network": about.config["model"],
        "feature": embedder.feature,
        "mirror": embedder.flip,
        "step": about.step,
        "epoch": about.epoch,
        "trained_on": about.data["title"],
        "fingerprint": embedder.fingerprint,
        "commit": about.environment["commit"],
        "exported_by": {"vireid_jax": version, "commit": commit()},
    }


def write(
    embedder: Embedder, format: str, folder: Path, streams: str, about: dict[str, Any]
) -> Files:
    """Write a network into a folder: a file per modality, or one of "both" streams.

    A safetensors file always holds both. `about` goes into ONNX files as metadata.
    """
    separate = [(modality,) for modality in embedder.modalities]
    if format == "safetensors":  # all variables by path, for `vireid_jax.load`
        from safetensors.numpy import save_file

        leaves = flatten_dict(jax.device_get(embedder.variables), sep="/")
        tensors = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
        path = folder / WEIGHTS
        save_file(
            tensors, path, metadata={"about": json.dumps(embedder.about.to_json())}
        )
        return Files("float32", dict.fromkeys(separate, path))
    paths = {}
    for group in [embedder.modalities] if streams == "both" else separate:
        paths[group] = folder / f"{'both' if streams == 'both' else group[0]}.{format}"
        if format == "onnx":
            from vireid_jax.export.graph import onnx_model

            model = onnx_model(embedder, group, {"model": json.dumps(about)})
            paths[group].write_bytes(model.SerializeToString())
        else:
            paths[group].write_bytes(_jax(embedder, group))
    return Files("float32", paths)


def _jax(embedder: Embedder, group: tuple[str, ...]) -> bytes:
    """Export `images -> embedding`, or a tuple of all streams' from all images."""
    from jax import export

    model, variables = embedder.model, jax.device_get(embedder.variables)
    flip, feature = embedder.flip, embedder.feature
    steps = [make_embed_step(model, m, flip=flip, feature=feature) for m in group]

    def embed(*images: jax.Array) -> Any:
        out = tuple(step(variables, x) for step, x in zip(steps, images, strict=True))
        return out if len(group) > 1 else out[0]

    batches = export.symbolic_shape(", ".join(f"{m}_batch" for m in group))
    images = [jax.ShapeDtypeStruct((n, *embedder.size, 3), np.uint8) for n in batches]
    exported = export.export(jax.jit(embed), platforms=PLATFORMS)(*images)
    return bytes(exported.serialize())
