"""AdamW or SGD-nesterov with clipping; rates from warm-up and cosine."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from vireid_jax.modality import MODALITIES
from vireid_jax.training.step import Schedule


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Build the direction of a step from `config.optimizer`, before the learning rate.

    The rate stays outside: as an argument of the step it never triggers recompilation.
    Weight decay spares norms and biases. Source: AGW's SGD; AdamW is our choice.
    """
    c = config.optimizer
    clip = optax.clip_by_global_norm(c.clip_norm)
    is_kernel = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    decay = optax.add_decayed_weights(c.weight_decay, mask=is_kernel)
    if c.name == "sgd":
        return optax.chain(clip, decay, optax.trace(decay=0.9, nesterov=True))
    return optax.chain(clip, optax.scale_by_adam(), decay)


def learning_rate(config: ConfigDict, step: int, num_steps: int) -> float:
    """Return the rate of 0-based `step`: linear warm-up, then cosine to the final one.

    Warm-up starts at 1% of the peak and takes `schedule.warmup` of all steps; the
    cosine ends at `schedule.final` of the peak.
    """
    peak, c = config.optimizer.learning_rate, config.schedule
    warmup = round(c.warmup * num_steps)
    if step < warmup:
        return peak * (0.01 + 0.99 * step / warmup)
    done = (step - warmup) / max(num_steps - warmup, 1)
    return peak * (c.final + (1 - c.final) * 0.5 * (1 + math.cos(math.pi * done)))


def make_schedule(rates: Sequence[float]) -> Schedule:
    """Return what changes from step to step; `rates` are those of all steps of a run.

    The length is rounded up to a power of two: runs of about the same length share a
    compiled step. Signed responses of pseudo-infrared views come in slowly: from random
    weights they teach nothing (our choice).
    """
    num_steps = len(rates)
    padding = 2 ** math.ceil(math.log2(num_steps)) - num_steps
    signed = [0.5 * step / num_steps for step in range(1, num_steps + 1)]
    pad: Any = lambda values: np.pad(np.float32(values), (0, padding), "edge")
    return Schedule(pad(rates), pad(signed))


def rate_factors(params: dict[str, Any], pretrained: bool, factor: float) -> Any:
    """Return for each parameter what multiplies the rate: `factor` if it is pretrained.

    All stages of the network are; the heads start from random weights.
    """
    stages = (*MODALITIES, "shared")
    return {
        name: jax.tree.broadcast(
            factor if pretrained and name in stages else 1.0, branch
        )
        for name, branch in params.items()
    }
