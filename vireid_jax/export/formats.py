"""Write a network as files of a format, and quantise ONNX files to int8."""

import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import UInt8

from vireid_jax.data.any_image import CLIPPED, GREY
from vireid_jax.data.source import Records
from vireid_jax.embed.embedder import Embedder
from vireid_jax.modality import MODALITIES
from vireid_jax.run.environment import commit
from vireid_jax.training.step import make_embed_step

NEEDED = {"onnx": ("onnx", "onnxruntime"), "jax": ("flatbuffers",), "safetensors": ()}
FORMATS = tuple(NEEDED)
STREAMS = ("separate", "both")
PLATFORMS = ("cpu", "cuda", "tpu")  # that a file of jax.export runs on
WEIGHTS = "network.safetensors"
CALIBRATION = 128  # images per modality
_AT_ONCE = 8

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


def calibration_images(
    train: Records, size: tuple[int, int], modalities: tuple[str, ...]
) -> dict[str, UInt8[np.ndarray, "_ H W 3"]]:
    """Draw images of a training split by modality, always the same ones."""
    images = {}
    for modality in modalities:
        rows = np.flatnonzero(train.modality == MODALITIES.index(modality))
        count = min(CALIBRATION, len(rows))
        chosen = np.random.default_rng(0).choice(rows, count, replace=False)
        images[modality] = train.images(np.sort(chosen), size)
    return images


def quantise(files: Files, images: dict[str, UInt8[np.ndarray, "_ H W 3"]]) -> Files:
    """Write `NAME.int8.onnx` beside every ONNX file; `images` calibrate, by modality.

    By onnxruntime's static quantisation. The convolutions compute in int8: weights have
    a scale for each output channel, maps have one scale, from their values on the
    calibration images. The gates stay float32 (they have one pixel each, and weigh
    everything else), and so do layers after the last map.
    """
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Return a few images at a time, None at the end."""

        def __init__(self, group: tuple[str, ...]):
            names = ["images"] if len(group) == 1 else group
            inputs = dict(zip(names, (images[m] for m in group), strict=True))
            self._batches = (
                {name: x[start : start + _AT_ONCE] for name, x in inputs.items()}
                for start in range(0, min(map(len, inputs.values())), _AT_ONCE)
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    paths, before = {}, logging.root.manager.disable
    for group, path in files.paths.items():
        paths[group] = path.with_suffix(".int8.onnx")
        nodes = onnx.load(path).graph.node
        gates = [node.name for node in nodes if any("/gate/" in x for x in node.input)]
        # onnxruntime advises to preprocess, but the folding has done that.
        logging.disable(logging.WARNING)
        try:
            quantization.quantize_static(
                path,
                paths[group],
                Reader(group),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=gates,
            )
        finally:
            logging.disable(before)
    return Files("int8", paths)
