"""The weights of one modality alone, with batch norms folded into the layers before.

At test a batch norm is a scale and a shift of each channel. After a convolution or a
linear map both go into its kernel and bias; the neck's follows a pooling that is not
linear, so it stays as `scale` and `bias`. Instance norms stay, too: their statistics
are each image's own.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from vireid_jax.modality import MODALITIES

Weights = dict[str, Float[np.ndarray, "..."]]  # by path, as "conv2/0/conv1/conv/bias"

EPSILON = 1e-5  # of every norm, as in models/norm.py
_UNUSED = ("classifier", "student_")  # in training only
_BEFORE = ("conv2", "conv", "linear")  # layers that a batch norm can follow


def fold(variables: dict[str, Any], modality: str) -> Weights:
    """Return the weights that an image of `modality` passes through, by path.

    A path is that in the variables, without the stream's name (`visible`, `infrared`,
    `shared`) and without the modality in a norm's name. Kernels keep their layouts
    (`[height, width, in, out]`). Computed in float64, returned in the variables' dtype.
    """
    own = {}
    for collection, tree in variables.items():
        rest = _resolve(tree, modality)
        own[collection] = rest.pop(modality, {}) | rest.pop("shared", {}) | rest
    weights: Weights = {}
    _fold(own["params"], own["batch_stats"], "", weights)
    return weights


def _resolve(tree: dict[str, Any], modality: str) -> dict[str, Any]:
    """Remove the other modality's layers, and the modality from names of norms."""
    (other,) = set(MODALITIES) - {modality}
    return {
        name.removesuffix(f"_{modality}"): _resolve(value, modality)
        if isinstance(value, dict)
        else np.asarray(value)
        for name, value in tree.items()
        if not name.endswith(other) and not name.startswith(_UNUSED)
    }


def _fold(params: dict, statistics: dict, path: str, weights: Weights) -> None:
    """Add the weights of a layer and of those inside it to `weights`."""
    for name, value in params.items():
        if not isinstance(value, dict):
            weights[path + name] = value
        elif "mean" not in statistics.get(name, {}):
            _fold(value, statistics.get(name, {}), f"{path}{name}/", weights)
    for name, running in statistics.items():
        if "mean" not in running:
            continue
        mean, variance = (running[key].astype(np.float64) for key in ("mean", "var"))
        gain = params[name]["scale"] / np.sqrt(variance + EPSILON)
        shift = params[name].get("bias", 0) - mean * gain
        before = next((layer for layer in _BEFORE if layer in params), None)
        if before is None:
            values = {f"{path}{name}/scale": gain, f"{path}{name}/bias": shift}
        else:
            layer = f"{path}{before}"
            values = {
                f"{layer}/kernel": weights[f"{layer}/kernel"] * gain,
                f"{layer}/bias": weights.get(f"{layer}/bias", 0) * gain + shift,
            }
        dtype = running["mean"].dtype
        weights |= {key: value.astype(dtype) for key, value in values.items()}
