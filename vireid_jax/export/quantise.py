"""Int8 copies of ONNX files, by onnxruntime's static quantisation.

The convolutions compute in int8: weights have a scale for each output channel, maps
have one scale, from their values on calibration images. The gates stay float32 (they
have one pixel each, and weigh everything else), and so do layers after the last map.
"""

import logging

import numpy as np
from jaxtyping import UInt8

from vireid_jax.data.source import Records
from vireid_jax.export.formats import Files
from vireid_jax.modality import MODALITIES

CALIBRATION = 128  # images per modality
_AT_ONCE = 8


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
    """Write `NAME.int8.onnx` beside every file; `images` calibrate, by modality."""
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
