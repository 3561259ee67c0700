"""A contact sheet: one row a person, visible images beside infrared ones."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from vireid_jax.synthetic.knobs import Knobs
from vireid_jax.synthetic.plan import plan
from vireid_jax.synthetic.render import render

_PAPER, _INK = (255, 255, 255), (70, 74, 80)
_GAP, _HEADER = 6, 34
_TITLES = {"thermal": "thermal infrared", "nir": "near infrared"}


def contact_sheet(
    variants: Sequence[str],
    identities: Sequence[int],
    *,
    seed: int,
    size: tuple[int, int],
    knobs: Knobs,
    columns: int = 4,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw one row a person: `columns` visible and `columns` infrared images.

    With two variants, the columns are visible, thermal and NIR of the same people.
    """
    strips = []
    for number, variant in enumerate([variants[0], *variants]):
        modality = "infrared" if number else "visible"
        rows = []
        for identity in identities:
            specs = plan(variant, [identity], columns)
            specs = [spec for spec in specs if spec.modality == modality]
            specs.sort(key=lambda spec: spec.index)
            shots = [render(s, seed=seed, size=size, knobs=knobs).image for s in specs]
            rows.append(np.concatenate([_margin(shot, 1) for shot in shots], 1))
        strip = np.concatenate([_margin(row, 1) for row in rows])
        header = np.full((_HEADER, strip.shape[1], 3), 255, np.uint8)
        title = _TITLES[variant] if number else modality
        where, font = (3, _HEADER - 11), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(header, title, where, font, 0.62, _INK, 1, cv2.LINE_AA)
        strips.append(_margin(np.concatenate([header, strip]), _GAP))
    return np.concatenate(strips, 1)


def _margin(image: np.ndarray, width: int) -> np.ndarray:
    """Add paper around an image."""
    edges = (width,) * 4
    return cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=_PAPER)
