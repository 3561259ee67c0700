"""Parameters and multiply-accumulates of a network, stage by stage.

MACs are counted from the shapes that layers own and return, not from what XLA executes:
`ops.py` computes some layers in another form on CPU.
"""

import math
from collections.abc import Mapping
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
    mode = {"train": True, "mutable": ["batch_stats"]} if train else {}
    if not train:
        model = model.clone(num_classes=None)
    images = jnp.zeros((1, len(MODALITIES), *size, 3))
    init = lambda: model.init(jax.random.key(0), images, MODALITIES)
    params: dict[str, dict[tuple[str, ...], int]] = {}
    macs: dict[str, int] = {}
    outputs: dict[str, tuple[int, ...]] = {}

    def note(call, args, kwargs, context) -> Any:
        """Call a module's method, then note its kernel, parameters and output."""
        out = call(*args, **kwargs)
        module, path = context.module, context.module.path
        if context.method_name != "__call__" or not path:
            return out
        stage, is_stage = _stage_of(path)
        own = {
            name: leaf
            for name, leaf in module.variables.get("params", {}).items()
            if not isinstance(leaf, Mapping)
        }
        for name, leaf in own.items():
            if leaf.ndim > 1 and name != "kernel":
                raise TypeError(f"no rule for the MACs of {'/'.join(path)}/{name}")
            params.setdefault(stage, {})[*path, name] = leaf.size
        if "kernel" in own:
            each = _products(own["kernel"].shape) + ("bias" in own)
            macs[stage] = macs.get(stage, 0) + out.size * each
        if is_stage:
            rows = out["neck"] if isinstance(out, dict) else out
            outputs[stage] = rows.shape[1:]
        return out

    variables = jax.eval_shape(init)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda v: model.apply(v, images, MODALITIES, **mode), variables)
    # Images of all modalities pass at once, one each.
    return [
        Row(
            stage,
            sum(params.get(stage, {}).values()),
            macs.get(stage, 0) // len(MODALITIES),
            output,
        )
        for stage, output in outputs.items()
    ]


def _stage_of(path: tuple[str, ...]) -> tuple[str, bool]:
    """Return a module's stage, and whether the module is all of it.

    AIN's `pool2` is the end of `conv2`, as in all other variants.
    """
    if path[0] in (*MODALITIES, "shared"):
        path = path[1:]
    return path[0].replace("pool", "conv") if path else "", len(path) == 1


def _products(kernel: tuple[int, ...]) -> int:
    """Count the products behind one output: of a window, or of one part's matrix."""
    return math.prod(kernel[:-1]) if len(kernel) == 4 else kernel[-2]
