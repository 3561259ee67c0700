"""Parameters and multiply-accumulates of a network, stage by stage.

MACs are counted from the shapes that layers own and return, not from what XLA executes:
`ops.py` computes some layers in another form on CPU.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vireid_jax.modality import MODALITIES


class Row(NamedTuple):
    """One stage of a network: parameters of all copies, MACs of one image."""

    stage: str
    params: int
    macs: int
    output: tuple[int, ...]  # shape of the stage's output for one image


def complexity(
    model: nn.Module, size: tuple[int, int], train: bool = False
) -> list[Row]:
    """Count parameters and MACs of each stage for an image of `(height, width)`.

    Count the layers that one image passes at test, so neither classifiers nor students;
    with `train`, those of a forward pass in training. A MAC is a product of a
    convolution or linear layer, or the addition of its bias; a layer called several
    times (the gate of four branches) costs as often and is stored once. Norms,
    activations, pooling and softmaxes cost nothing, nor do the two products of
    activations in the attention of part relations.
    """
    mode: dict[str, Any] = {"train": True, "mutable": ["batch_stats"]} if train else {}
    if not train:
        model = model.clone(num_classes=None)
    images = jnp.zeros((1, len(MODALITIES), *size, 3))
    params: defaultdict[str, dict[tuple[str, ...], int]] = defaultdict(dict)
    macs: Counter[str] = Counter()
    outputs: dict[str, tuple[int, ...]] = {}

    def note(call: Callable, args: tuple, kwargs: dict[str, Any], context: Any) -> Any:
        """Call a module's method, then note its kernel, parameters and output."""
        out = call(*args, **kwargs)
        path = context.module.path
        layers = [name for name in path if name not in (*MODALITIES, "shared")]
        if context.method_name != "__call__" or not layers:
            return out
        stage = layers[0].replace("pool", "conv")  # AIN's `pool2` is the end of `conv2`
        own = context.module.variables.get("params", {})
        for name, leaf in own.items():
            if isinstance(leaf, Mapping):  # of a module inside
                continue
            params[stage][*path, name] = leaf.size
            if name == "kernel":  # its products for one output: a window's, or a part's
                shape = leaf.shape
                products = math.prod(shape[:-1]) if len(shape) == 4 else shape[-2]
                macs[stage] += out.size * (products + ("bias" in own))
            elif leaf.ndim > 1:
                raise TypeError(f"no rule for the MACs of {'/'.join(path)}/{name}")
        if len(layers) == 1:
            outputs[stage] = (out["neck"] if isinstance(out, dict) else out).shape[1:]
        return out

    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), images, MODALITIES)
    )
    with nn.intercept_methods(note):
        jax.eval_shape(lambda v: model.apply(v, images, MODALITIES, **mode), variables)
    # Images of all modalities pass at once, one each.
    return [
        Row(stage, sum(params[stage].values()), macs[stage] // len(MODALITIES), output)
        for stage, output in outputs.items()
    ]
