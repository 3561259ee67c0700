"""Where the last map of the network answers, part by part, laid over the image."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vireid_jax.modality import MODALITIES
from vireid_jax.models.heads import stripe_rows
from vireid_jax.report.pictures import data_uri

STAGE = "conv5"  # the last map: what pooling and part relations see
PEOPLE = 2


def activation_maps(
    embedder: Any, config: Any, test: Any
) -> tuple[list[dict[str, Any]], str]:
    """Returns tiles of a few people in both modalities, or none and the reason.

    An answer is the mean over channels of the squared activation of `STAGE`. Of each
    part, the rows that the network pools for it are coloured, from 0 to the part's own
    highest answer; `share` is its part of the answers of all rows. Where granularities
    overlap a row, the row counts in each.
    """
    rows = people_in_both(test, PEOPLE)
    if not len(rows):
        return [], "no identity of the test split has images of both modalities"
    counts = (1, *config.model.granularities)
    found = []
    for row in rows:
        modality = MODALITIES[test.modality[row]]
        image = test.image(row, tuple(config.data.size))
        answers = answers_of(embedder, config, image, modality)
        if answers is None:
            return [], f"this network has no map {STAGE!r}"
        tiles = [{"title": "image", "source": data_uri(image), "share": None}]
        for count in counts:
            for number in range(count):
                tiles.append(_tile(image, answers, count, number))
        found.append(
            {
                "identity": int(test.identity[row]),
                "camera": int(test.camera[row]),
                "modality": modality,
                "filename": test.filename[row],
                "tiles": tiles,
            }
        )
    return found, ""


def people_in_both(test: Any, people: int) -> list[int]:
    """Draws identities seen in both modalities; returns a row of each in each."""
    seen = [set(test.identity[test.modality == m]) for m in range(len(MODALITIES))]
    both = sorted(set.intersection(*seen))
    drawn = np.random.default_rng(0).permutation(len(both))[:people]
    return [
        int(np.flatnonzero((test.identity == both[i]) & (test.modality == m))[0])
        for i in drawn
        for m in range(len(MODALITIES))
    ]


def answers_of(
    embedder: Any, config: Any, image: UInt8[np.ndarray, "H W 3"], modality: str
) -> Float[np.ndarray, "h w"] | None:
    """Returns the mean over channels of the squared last map of one image."""
    import jax.numpy as jnp

    from vireid_jax.data.augment import normalise
    from vireid_jax.models.build import create_model

    model = create_model(config, embedder.about.num_classes)
    views = normalise(jnp.asarray(image)[None])[:, None]
    _, out = model.apply(embedder.variables, views, (modality,))
    if STAGE not in out:
        return None
    return np.square(np.asarray(out[STAGE][0, 0], np.float64)).mean(-1)


def _tile(image, answers, count: int, number: int) -> dict[str, Any]:
    rows = stripe_rows(len(answers), count)[number]
    own = np.zeros_like(answers)
    own[rows] = answers[rows]
    scaled = own / max(own.max(), 1e-12)
    height, width = image.shape[:2]
    # Cells, not a smooth hill: the map has no finer answer than this.
    shown = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_NEAREST)
    inside = np.zeros(len(answers))
    inside[rows] = 1
    inside = cv2.resize(inside[:, None], (1, height), interpolation=cv2.INTER_NEAREST)
    inside = inside.reshape(height, 1, 1)
    colour = cv2.applyColorMap((255 * shown).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float64)
    over = 0.45 * grey + 0.55 * colour[..., ::-1]
    mixed = inside * over + (1 - inside) * (0.35 * grey)
    title = "whole" if count == 1 else f"{number + 1} of {count}"
    share = float(own.sum() / max(answers.sum(), 1e-12))
    return {"title": title, "source": data_uri(mixed.astype(np.uint8)), "share": share}
