"""AdamW or SGD-nesterov with clipping; warm-up and cosine. Rates are arguments."""

import math
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from vireid_jax.config import OPTIMIZERS
from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Builds the direction of a step from `config.optimizer`, before the learning rate.

    The rate stays outside: as a traced argument of the step it never recompiles.
    Weight decay spares norms and biases. Source: AGW's SGD; AdamW is our choice.
    """
    c = config.optimizer
    clip = optax.clip_by_global_norm(c.clip_norm)
    is_kernel = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
    decay = optax.add_decayed_weights(c.weight_decay, mask=is_kernel)
    if c.name == "adamw":
        return optax.chain(clip, optax.scale_by_adam(), decay)
    if c.name == "sgd":
        return optax.chain(clip, decay, optax.trace(decay=0.9, nesterov=True))
    raise UserError(
        f"config.optimizer.name is {c.name!r}; legal values are {list(OPTIMIZERS)}"
    )


def learning_rate(config: ConfigDict, step: int, num_steps: int) -> float:
    """Returns the rate of 0-based `step`: linear warm-up, then cosine to the final one.

    Warm-up starts at 1% of the peak and takes `schedule.warmup` of all steps; the
    cosine ends at `schedule.final` of the peak.
    """
    peak, c = config.optimizer.learning_rate, config.schedule
    warmup = round(c.warmup * num_steps)
    if step < warmup:
        return peak * (0.01 + 0.99 * step / warmup)
    done = (step - warmup) / max(num_steps - warmup, 1)
    return peak * (c.final + (1 - c.final) * 0.5 * (1 + math.cos(math.pi * done)))


def rate_factors(params: dict[str, Any], pretrained: bool, factor: float) -> Any:
    """Returns per parameter what multiplies the rate: `factor` where weights came in.

    Pretrained are all stages of the network; the heads start anew.
    """
    stages = (*MODALITIES, "shared")
    return {
        name: jax.tree.broadcast(
            factor if pretrained and name in stages else 1.0, branch
        )
        for name, branch in params.items()
    }
