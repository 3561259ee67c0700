"""Run exported files in the runtimes that they are for."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from vireid_jax.export.formats import Files
from vireid_jax.run.environment import cores, version

AT_ONCE = 8  # images: more leave a CPU's cache
_PADDED = 64  # for an embedder, which pads to its batch

Group = tuple[str, ...]  # the modalities of a file
Run = Callable[[list[np.ndarray]], Sequence[np.ndarray]]  # a file's inputs -> outputs


class Target(NamedTuple):
    """Exported files, opened in a runtime: `runs` by the modalities of a file."""

    runtime: str  # with its version
    precision: str
    runs: dict[Group, Run]
    at_once: int = AT_ONCE

    def __str__(self) -> str:
        """Return its name for tables and errors."""
        return f"{self.runtime}, {self.precision}"

    def embed(
        self, images: UInt8[np.ndarray, "rows H W 3"], modality: str
    ) -> Float32[np.ndarray, "rows dim"]:
        """Embed images, `at_once` at a time.

        A file of both streams needs images of both: the other gets a black one.
        """
        group = next(group for group in self.runs if modality in group)
        black = np.zeros_like(images[:1])
        embeddings = []
        for start in range(0, len(images), self.at_once):
            batch = images[start : start + self.at_once]
            inputs = [batch if m == modality else black for m in group]
            embeddings.append(self.runs[group](inputs)[group.index(modality)])
        return np.concatenate(embeddings)


def open_files(format: str, files: Files) -> list[Target]:
    """Open files in every installed runtime of the format."""
    targets = []
    for name, start in RUNTIMES[format].items():
        if importlib.util.find_spec(name):
            runs = {group: start(path, group) for group, path in files.paths.items()}
            at_once = _PADDED if start is in_vireid_jax else AT_ONCE
            title = f"{name} {version(name)}"
            targets.append(Target(title, files.precision, runs, at_once))
    return targets


def in_onnxruntime(path: Path, _: Group) -> Run:
    """Open an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return lambda images: session.run(None, dict(zip(names, images, strict=True)))


def in_openvino(path: Path, _: Group) -> Run:
    """Open an ONNX file in OpenVINO, on the CPU, in float32."""
    # Without this its import reports to Google Analytics, from a fork of this process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": cores(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda images: model(images).to_tuple()


def in_jax(path: Path, _: Group) -> Run:
    """Open a file of jax.export."""
    import jax
    from jax import export

    embed = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: list(map(np.asarray, jax.tree.leaves(embed(*images))))


def in_vireid_jax(path: Path, group: Group) -> Run:
    """Open a safetensors file by `vireid_jax.load`."""
    from vireid_jax.embed.embedder import load

    embedder = load(path)
    return lambda images: list(map(embedder.embed, images, group))


RUNTIMES: dict[str, dict[str, Callable[[Path, Group], Run]]] = {
    "onnx": {"onnxruntime": in_onnxruntime, "openvino": in_openvino},
    "jax": {"jax": in_jax},
    "safetensors": {"vireid_jax": in_vireid_jax},
}
