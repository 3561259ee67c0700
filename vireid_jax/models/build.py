"""Build a network from a config, and draw its first variables."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax import models
from vireid_jax.modality import MODALITIES


def create_model(
    config: ConfigDict | FrozenConfigDict, num_classes: int
) -> models.Network:
    """Create the network of `config.model`."""
    options = config.model.to_dict()
    del options["pretrained"]  # the source of its weights
    return models.create(num_classes=num_classes, **options)


def feature_of(config: ConfigDict | FrozenConfigDict) -> str:
    """Return the feature to test by: "all", or "global" if there are no parts."""
    return config.eval.feature if config.model.granularities else "global"


def init_variables(model: models.Network, key: jax.Array) -> dict[str, Any]:
    """Draw a network's variables; under `jax.eval_shape` only their shapes.

    Variables do not depend on the images' size; this one has the height that any valid
    number of stripes needs.
    """
    images = jnp.zeros((1, len(MODALITIES), 256, 32, 3))
    return dict(model.init(key, images, MODALITIES, train=True))
