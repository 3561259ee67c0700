"""The views of a batch: which columns of images belong to which modality."""

import jax.numpy as jnp
from jax import Array

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError

Views = tuple[str, ...]  # the modality of each column of images, visible ones first


def check_images(images: Array, views: Views) -> None:
    """Raise UserError unless images are floats `[batch, views, H, W, 3]`."""
    floats = jnp.issubdtype(images.dtype, jnp.floating)
    if not floats or images.ndim != 5 or images.shape[1::3] != (len(views), 3):
        raise UserError(
            f"images are {images.dtype} {images.shape}; a network takes normalised"
            f" floats [batch, {len(views)}, height, width, 3], a column for each of"
            f" the views {views}. Repeat a single channel three times; normalise uint8"
            " by vireid_jax.data.augment.normalise first"
        )


def columns_by_modality(views: Views) -> dict[str, slice]:
    """Return the neighbouring columns of the view axis that each modality fills.

    Raise UserError where infrared comes before visible, or a name is unknown.
    """
    if list(views) != [m for m in MODALITIES for view in views if view == m]:
        raise UserError(f"views {views} must list {MODALITIES} in this order")
    return {
        m: slice(views.index(m), views.index(m) + views.count(m))
        for m in MODALITIES
        if m in views
    }
