"""Writing a network as files of a format; what was written is told as `Files`."""

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vireid_jax import __version__
from vireid_jax.data.any_image import CLIPPED, GREY
from vireid_jax.embed.embedder import Embedder
from vireid_jax.export.network import Network
from vireid_jax.run.environment import commit
from vireid_jax.run.errors import UserError
from vireid_jax.training.checkpoint import by_path

FORMATS = ("onnx", "jax", "safetensors")
STREAMS = ("separate", "both")
PLATFORMS = ("cpu", "cuda", "tpu")  # that a file of jax.export runs on
WEIGHTS = "network.safetensors"
_NEEDED = {"onnx": ("onnx", "onnxruntime"), "jax": ("flatbuffers",), "safetensors": ()}

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


def check_installed(format: str) -> None:
    """Raises UserError where a package is missing that the format needs."""
    missing = [name for name in _NEEDED[format] if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(
            f"--format {format} needs {' and '.join(missing)}; type pip install"
            " 'vireid-jax[export]'"
        )


def describe(embedder: Embedder, format: str) -> dict[str, Any]:
    """Says what a program must know of the files to use them: `model.json`."""
    height, width = embedder.size
    about = embedder.about
    inside = ["ImageNet normalisation"]
    inside += ["the sum of image and mirror"] if embedder.flip else []
    return {
        "format": format,
        "input": {
            "type": "uint8",
            "shape": ["batch", height, width, 3],
            "colours": "RGB, 0 to 255",
            "resizing": RESIZING,
        },
        "output": {"type": "float32", "shape": ["batch", embedder.dim]},
        "inside": [*inside, "L2 normalisation"],
        "modalities": list(embedder.modalities),
        "network": about.config["model"],
        "feature": embedder.feature,
        "mirror": embedder.flip,
        "step": about.step,
        "epoch": about.epoch,
        "trained_on": about.data["title"],
        "fingerprint": embedder.fingerprint,
        "commit": about.environment["commit"],
        "exported_by": {"vireid_jax": __version__, "commit": commit()},
    }


def write(
    embedder: Embedder,
    format: str,
    folder: Path,
    streams: str,
    about: dict[str, Any],
) -> Files:
    """Writes a network into a folder: a file a modality, or one of "both" streams.

    One of safetensors holds both in any case. `about` goes into files that can hold it.
    """
    separate = [(modality,) for modality in embedder.modalities]
    if format == "safetensors":
        _write_safetensors(embedder, folder / WEIGHTS)
        return Files("float32", dict.fromkeys(separate, folder / WEIGHTS))
    network = Network.of(embedder)
    groups = [embedder.modalities] if streams == "both" else separate
    paths = {}
    for group in groups:
        stem = group[0] if streams == "separate" else "both"
        paths[group] = folder / f"{stem}.{format}"
        content = (
            _onnx(network, group, {"model": json.dumps(about)})
            if format == "onnx"
            else _jax(network, group)
        )
        paths[group].write_bytes(content)
    return Files("float32", paths)


def _onnx(network: Network, group: tuple[str, ...], metadata: dict[str, str]) -> bytes:
    """Writes one graph; a stream alone has `images` and `embedding` as names."""
    from vireid_jax.export.graph import Graph

    graph = Graph()
    for modality in group:
        alone = len(group) == 1
        batch = "batch" if alone else f"{modality}_batch"
        images = graph.images("images" if alone else modality, batch, network.size)
        embedding = network.embed(graph, images, modality)
        name = "embedding" if alone else f"{modality}_embedding"
        graph.give(embedding, name, batch, network.dim)
    return graph.model(metadata).SerializeToString()


def _jax(network: Network, group: tuple[str, ...]) -> bytes:
    """Exports `images -> embedding`, or the tuple of all streams' from all images."""
    from jax import export

    from vireid_jax.export.arrays import Arrays

    def embed(*images: jax.Array) -> Any:
        streams = zip(images, group, strict=True)
        found = tuple(network.embed(Arrays(), x, modality) for x, modality in streams)
        return found if len(group) > 1 else found[0]

    batches = export.symbolic_shape(
        ", ".join(f"{modality}_batch" for modality in group)
    )
    shapes = (
        jax.ShapeDtypeStruct((batch, *network.size, 3), np.uint8) for batch in batches
    )
    exported = export.export(jax.jit(embed), platforms=PLATFORMS)(*shapes)
    return bytes(exported.serialize())


def _write_safetensors(embedder: Embedder, path: Path) -> None:
    """Writes all variables, not folded, by their places; `vireid_jax.load` reads it."""
    from safetensors.numpy import save_file

    leaves = by_path(jax.device_get(embedder.variables))
    tensors = {place: np.ascontiguousarray(leaf) for place, leaf in leaves.items()}
    save_file(tensors, path, metadata={"about": json.dumps(embedder.about.to_json())})
