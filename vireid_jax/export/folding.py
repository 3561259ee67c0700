"""One modality's weights for use alone: its own stream and norms, batch norms folded.

At test a batch norm is a scale and a shift of each channel. Behind a convolution or a
linear map both go into its kernel and bias; the neck's, behind a pooling that is not
linear, stay as `scale` and `bias`. An instance norm stays, too: its statistics are each
image's own.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from vireid_jax.modality import MODALITIES

Weights = dict[str, Float[np.ndarray, "..."]]  # by place, as "conv2/0/conv1/conv/bias"

EPSILON = 1e-5  # of every norm, as in models/norm.py
_UNUSED = ("classifier", "student_")  # in training only
_BEFORE = ("conv2", "conv", "linear")  # what a batch norm may stand behind


def fold(variables: dict[str, Any], modality: str) -> Weights:
    """Returns what an image of `modality` meets, and nothing of the other's.

    A place is that in the variables without the stream's name (`visible`, `infrared`,
    `shared`) and without a modality behind a norm's. Kernels keep their layouts
    (`[height, width, in, out]`). Computed in float64, given in the variables' type.
    """
    own = {}
    for collection, tree in variables.items():
        rest = _resolve(tree, modality)
        streams = rest.pop(modality, {}) | rest.pop("shared", {})
        own[collection] = streams | rest
    found = {}
    _fold(own["params"], own["batch_stats"], "", found)
    return found


def _resolve(tree: dict[str, Any], modality: str) -> dict[str, Any]:
    """Leaves out the other modality's, and the modality behind a norm's name."""
    (other,) = set(MODALITIES) - {modality}
    return {
        name.removesuffix(f"_{modality}"): _resolve(value, modality)
        if isinstance(value, dict)
        else np.asarray(value)
        for name, value in tree.items()
        if not name.endswith(other) and not name.startswith(_UNUSED)
    }


def _fold(params: dict, statistics: dict, place: str, found: Weights) -> None:
    """Adds the weights of a layer and of those inside it to `found`."""
    for name, value in params.items():
        if not isinstance(value, dict):
            found[place + name] = value
        elif "mean" not in statistics.get(name, {}):
            _fold(value, statistics.get(name, {}), f"{place}{name}/", found)
    for name, seen in statistics.items():
        if "mean" not in seen:
            continue
        gain, shift = _gain_and_shift(params[name], seen)
        before = next((layer for layer in _BEFORE if layer in params), None)
        if before is None:
            dtype = seen["mean"].dtype
            found[f"{place}{name}/scale"] = gain.astype(dtype)
            found[f"{place}{name}/bias"] = shift.astype(dtype)
        else:
            _fold_into(found, f"{place}{before}/", gain, shift)


def _gain_and_shift(norm: dict, seen: dict) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = (seen[name].astype(np.float64) for name in ("mean", "var"))
    gain = norm["scale"] / np.sqrt(variance + EPSILON)
    return gain, norm.get("bias", 0) - mean * gain


def _fold_into(found: Weights, place: str, gain: np.ndarray, shift: np.ndarray) -> None:
    kernel = found[f"{place}kernel"]
    if kernel.ndim == 3:  # one a part: the norm's channels are all parts' in turn
        shape = (len(kernel), 1, kernel.shape[-1])
        gain, shift = gain.reshape(shape), shift.reshape(shape)
    bias = found.get(f"{place}bias", 0) * gain + shift
    found[f"{place}kernel"] = (kernel * gain).astype(kernel.dtype)
    found[f"{place}bias"] = bias.astype(kernel.dtype)
