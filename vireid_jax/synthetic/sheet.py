"""A contact sheet: one row a person, visible images beside infrared ones."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from vireid_jax.synthetic.generate import render
from vireid_jax.synthetic.knobs import Knobs
from vireid_jax.synthetic.plan import plan

_INK = (70, 74, 80)
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
    blocks = []
    bands = [(variants[0], "visible"), *((variant, "infrared") for variant in variants)]
    for variant, modality in bands:
        specs = plan(variant, identities, columns)
        specs = [spec for spec in specs if spec.modality == modality]
        specs.sort(key=lambda spec: (spec.identity, spec.index))
        shots = [render(s, seed=seed, size=size, knobs=knobs).image for s in specs]
        shots = [_margin(shot, 1) for shot in shots]
        rows = [shots[at : at + columns] for at in range(0, len(shots), columns)]
        block = np.concatenate([_margin(np.concatenate(row, 1), 1) for row in rows])
        header = np.full((_HEADER, block.shape[1], 3), 255, np.uint8)
        title = _TITLES[variant] if modality == "infrared" else modality
        font = cv2.FONT_HERSHEY_SIMPLEX, 0.62, _INK, 1, cv2.LINE_AA
        cv2.putText(header, title, (3, _HEADER - 11), *font)
        blocks.append(_margin(np.concatenate([header, block]), _GAP))
    return np.concatenate(blocks, 1)


def _margin(image: np.ndarray, width: int) -> np.ndarray:
    """Add white paper around an image."""
    return np.pad(image, [(width, width), (width, width), (0, 0)], constant_values=255)
