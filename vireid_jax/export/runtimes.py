"""Running exported files where they will be run, by nothing but the files."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from vireid_jax.export.formats import Files
from vireid_jax.run.cpu import cores
from vireid_jax.run.environment import version

AT_ONCE = 8  # images: more leave a CPU's cache
_PADDED = 64  # for an embedder, which pads less to its batch

Group = tuple[str, ...]  # the modalities of a file
Run = Callable[[list[np.ndarray]], Sequence[np.ndarray]]  # a file's inputs -> outputs


class Target(NamedTuple):
    """Exported files, opened in a runtime: `runs` by the modalities of a file."""

    runtime: str  # with its version
    precision: str
    runs: dict[Group, Run]
    at_once: int = AT_ONCE

    def __str__(self) -> str:
        """Names it in tables and errors."""
        return f"{self.runtime}, {self.precision}"

    def embed(
        self, images: UInt8[np.ndarray, "rows H W 3"], modality: str
    ) -> Float32[np.ndarray, "rows dim"]:
        """Embeds images some at a time.

        A file of both streams wants images of both: it gets a black one for the other.
        """
        group = next(group for group in self.runs if modality in group)
        black = np.zeros_like(images[:1])
        found = []
        for start in range(0, len(images), self.at_once):
            some = images[start : start + self.at_once]
            given = [some if m == modality else black for m in group]
            found.append(self.runs[group](given)[group.index(modality)])
        return np.concatenate(found)


def open_files(format: str, files: Files) -> list[Target]:
    """Opens files in every runtime of the format that is installed."""
    found = []
    for name, start in RUNTIMES[format].items():
        if importlib.util.find_spec(name):
            runs = {group: start(path, group) for group, path in files.paths.items()}
            at_once = _PADDED if start is in_vireid_jax else AT_ONCE
            title = f"{name} {version(name)}"
            found.append(Target(title, files.precision, runs, at_once))
    return found


def in_onnxruntime(path: Path, _: Group) -> Run:
    """Opens an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]
    return lambda images: session.run(None, dict(zip(names, images, strict=True)))


def in_openvino(path: Path, _: Group) -> Run:
    """Opens an ONNX file in OpenVINO, on the CPU, which is told to keep to float32."""
    # Else its import tells Google Analytics, from a copy of this process.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": cores(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(images: list[np.ndarray]) -> list[np.ndarray]:
        found = model(images)
        return [found[one] for one in model.outputs]

    return run


def in_jax(path: Path, _: Group) -> Run:
    """Opens a file of jax.export."""
    import jax
    from jax import export

    embed = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)

    def run(images: list[np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(x) for x in jax.tree.leaves(embed(*images))]

    return run


def in_vireid_jax(path: Path, group: Group) -> Run:
    """Opens a safetensors file by `vireid_jax.load`."""
    from vireid_jax.embed.embedder import load

    embedder = load(path)
    return lambda images: list(map(embedder.embed, images, group))


RUNTIMES: dict[str, dict[str, Callable[[Path, Group], Run]]] = {
    "onnx": {"onnxruntime": in_onnxruntime, "openvino": in_openvino},
    "jax": {"jax": in_jax},
    "safetensors": {"vireid_jax": in_vireid_jax},
}
