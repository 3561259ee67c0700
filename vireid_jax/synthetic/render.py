"""One image of one person: scene, raster, band."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from vireid_jax.run.errors import UserError
from vireid_jax.synthetic import background, bands
from vireid_jax.synthetic.knobs import Knobs
from vireid_jax.synthetic.plan import Spec
from vireid_jax.synthetic.raster import rasterise
from vireid_jax.synthetic.scene import compose

_ROWS = 192


class Shot(NamedTuple):
    """An image, and the person's own visible mask reduced by area."""

    image: UInt8[np.ndarray, "height width 3"]
    silhouette: UInt8[np.ndarray, "32 16"]


def check_size(size: tuple[int, int]) -> None:
    """Raise UserError for a `(height, width)` that cannot be drawn."""
    height, width = size
    if height < 32 or width < 16 or width > 2 * height:
        raise UserError(
            f"size {size}: give (height, width), at least (32, 16), width at most"
            " twice the height"
        )


def render(spec: Spec, *, seed: int, size: tuple[int, int], knobs: Knobs) -> Shot:
    """Draw the image that `spec` names in the world of this seed and these knobs.

    `size` is `(height, width)` in pixels. The image is RGB uint8 `[height, width, 3]`
    (infrared has three equal channels), the silhouette uint8 `[32, 16]`, 255 where
    only the person is seen.
    Raise UserError for a size below (32, 16) or wider than twice its height.
    """
    check_size(size)
    height, width = size
    # Drawn on at least 192 rows and averaged; the optics hide the edges of large ones.
    rows = max(height, min(2 * height, _ROWS))
    canvas = (rows, round(rows * width / height))
    scene, rng = compose(spec, seed=seed, canvas=canvas, knobs=knobs)
    raster = rasterise(scene.actors, scene.view, canvas)
    place = background.place(seed, scene.window[0])
    if spec.modality == "visible":
        imaging = bands.visible
    else:
        imaging = bands.thermal if spec.variant == "thermal" else bands.near_infrared
    image = imaging(scene, raster, place, size, rng)
    own = cv2.inRange(raster.labels, 1, len(scene.actors[0].parts))
    return Shot(image, cv2.resize(own, (16, 32), interpolation=cv2.INTER_AREA))
