"""Build a network from a config, and draw its first variables."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax import models
from vireid_jax.modality import MODALITIES


def create_model(config: ConfigDict | FrozenConfigDict, num_classes: int) -> nn.Module:
    """Creates the network that `config.model` describes."""
    options = config.model.to_dict()
    del options["pretrained"]  # where its weights come from
    return models.create(num_classes=num_classes, **options)


def feature_of(config: ConfigDict | FrozenConfigDict) -> str:
    """Names what the config tests by: "all", or "global" where there are no parts."""
    return config.eval.feature if config.model.granularities else "global"


def init_variables(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    """Draws a network's variables; under `jax.eval_shape` only their shapes.

    Variables do not depend on the images' size, so a small one serves, as tall as any
    number of stripes in use asks for.
    """
    images = jnp.zeros((1, len(MODALITIES), 256, 32, 3))
    return dict(model.init(key, images, MODALITIES, train=True))
