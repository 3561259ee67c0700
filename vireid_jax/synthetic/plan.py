"""Which images a data set holds: identities, cameras, modalities, file names."""

import dataclasses
from collections.abc import Iterable

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError

CAMERAS: dict[str, dict[str, tuple[int, ...]]] = {
    # RegDB has one visible and one thermal camera, mounted side by side.
    "thermal": {"visible": (1,), "infrared": (2,)},
    # SYSU-MM01 has four visible and two near-infrared cameras.
    "nir": {"visible": (1, 2, 4, 5), "infrared": (3, 6)},
}


@dataclasses.dataclass(frozen=True)
class Spec:
    """Name one image; its pixels are a function of this, a seed and the knobs."""

    variant: str
    identity: int
    camera: int
    modality: str
    index: int

    @property
    def filename(self) -> str:
        """Return the file name; names sort by identity, camera and index."""
        camera = f"c{self.camera}_{self.modality}"
        return f"{self.identity:06d}_{camera}_{self.index:03d}.jpg"


def plan(
    variant: str, identities: Iterable[int], images_per_modality: int = 10
) -> list[Spec]:
    """List the images of a data set, ordered by file name.

    Every identity gets `images_per_modality` visible and as many infrared images,
    dealt in turn to the cameras of that modality.

    Raise UserError for an unknown variant, a negative identity or no images.
    """
    if variant not in CAMERAS:
        raise UserError(f"variant {variant!r} is unknown: choose {', '.join(CAMERAS)}")
    if images_per_modality < 1:
        raise UserError(f"images_per_modality={images_per_modality}: give at least 1")
    specs = []
    for identity in identities:
        if identity < 0:
            raise UserError(f"identity {identity}: identities start at 0")
        for modality in MODALITIES:
            cameras = CAMERAS[variant][modality]
            for number in range(images_per_modality):
                camera = cameras[number % len(cameras)]
                specs.append(Spec(variant, int(identity), camera, modality, number))
    return sorted(specs, key=lambda spec: spec.filename)
