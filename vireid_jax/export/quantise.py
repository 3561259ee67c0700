"""Int8 copies of ONNX files, by onnxruntime's static quantisation.

The convolutions compute in int8: weights with a scale for each output channel, maps
with one in all, from what these maps were on calibration images. The gates stay float32
(one pixel each, and they weigh all else), and so does everything behind the last map.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vireid_jax.data.source import Records
from vireid_jax.export.formats import Files
from vireid_jax.modality import MODALITIES

CALIBRATION = 128  # images a modality
_AT_ONCE = 8


def calibration_images(
    train: Records, size: tuple[int, int], modalities: tuple[str, ...]
) -> dict[str, UInt8[np.ndarray, "_ H W 3"]]:
    """Draws images of a training split by modality, always the same ones."""
    found = {}
    for modality in modalities:
        rows = np.flatnonzero(train.modality == MODALITIES.index(modality))
        count = min(CALIBRATION, len(rows))
        chosen = np.random.default_rng(0).choice(rows, count, replace=False)
        found[modality] = train.images(np.sort(chosen), size)
    return found


def quantise(files: Files, images: dict[str, UInt8[np.ndarray, "_ H W 3"]]) -> Files:
    """Writes `NAME.int8.onnx` beside every file; `images` calibrate, by modality."""
    paths = {}
    for group, path in files.paths.items():
        names = ["images"] if len(group) == 1 else group
        given = {name: images[m] for name, m in zip(names, group, strict=True)}
        paths[group] = path.with_suffix(".int8.onnx")
        _quantise(path, paths[group], given)
    return Files("int8", paths)


def _quantise(path: Path, out: Path, images: dict[str, np.ndarray]) -> None:
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Gives images some at a time."""

        def __init__(self):
            self._batches = _batches(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    nodes = onnx.load(path).graph.node
    gates = [node.name for node in nodes if any("/gate/" in x for x in node.input)]
    with _silent():
        quantization.quantize_static(
            path,
            out,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=gates,
        )


def _batches(images: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    count = min(map(len, images.values()))
    for start in range(0, count, _AT_ONCE):
        yield {name: x[start : start + _AT_ONCE] for name, x in images.items()}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Holds back onnxruntime's advice to preprocess, which the folding has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
