"""The squared last map of the network, part by part, over the image."""

import itertools
from typing import TYPE_CHECKING, Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax.data.augment import normalise
from vireid_jax.modality import MODALITIES
from vireid_jax.models.heads import stripe_rows
from vireid_jax.report.pictures import data_uri

if TYPE_CHECKING:
    from vireid_jax.data.source import Records
    from vireid_jax.embed.embedder import Embedder

STAGE = "conv5"  # the last map: what pooling and part relations read
PEOPLE = 2


def activation_maps(
    embedder: "Embedder", config: ConfigDict | FrozenConfigDict, rows: "Records"
) -> tuple[list[dict[str, Any]], str]:
    """Return tiles of a few identities in both modalities, or none and the reason.

    Of each part, the rows that the network pools for it are coloured, from 0 to the
    part's own highest response; `share` is its part of the responses of all rows. Where
    granularities overlap a row, the row counts in each.
    """
    maps, size = [], tuple(config.data.size)
    for row in rows_in_both(rows.identity, rows.modality):
        modality, image = MODALITIES[rows.modality[row]], rows.image(row, size)
        responses = responses_of(embedder, image, modality)
        if responses is None:
            return [], f"this network has no map {STAGE!r}"
        tiles = [{"title": "image", "source": data_uri(image), "share": None}]
        for count in (1, *config.model.granularities):
            tiles += [_tile(image, responses, count, part) for part in range(count)]
        person = {"identity": rows.identity[row], "camera": rows.camera[row]}
        maps.append(person | {"modality": modality, "tiles": tiles})
    missing = "no identity of the test split has images of both modalities"
    return maps, "" if maps else missing


def rows_in_both(
    identity: Int[np.ndarray, "rows"], modality: Int[np.ndarray, "rows"]
) -> list[int]:
    """Draw identities seen in both modalities; return a row of each in each."""
    both = np.intersect1d(identity[modality == 0], identity[modality == 1])
    drawn = np.random.default_rng(0).permutation(both)[:PEOPLE]
    pairs = itertools.product(drawn, range(len(MODALITIES)))
    return [int(np.argmax((identity == i) & (modality == m))) for i, m in pairs]


def responses_of(
    embedder: "Embedder", image: UInt8[np.ndarray, "H W 3"], modality: str
) -> Float[np.ndarray, "h w"] | None:
    """Return the mean over channels of the squared last map of one image."""
    views = normalise(jnp.asarray(image)[None])[:, None]
    _, out = embedder.model.apply(embedder.variables, views, (modality,))
    if STAGE not in out:
        return None
    return np.square(np.asarray(out[STAGE][0, 0], np.float64)).mean(-1)


def _tile(
    image: np.ndarray, responses: np.ndarray, count: int, part: int
) -> dict[str, Any]:
    """Colour one part's rows by their responses, over the dark grey image."""
    own = np.zeros((len(responses), 1))
    own[stripe_rows(len(responses), count)[part]] = 1
    inside = responses * own
    # Cells, not a smooth hill: the map has no finer response than this.
    enlarge = lambda cells: cv2.resize(
        cells, image.shape[1::-1], interpolation=cv2.INTER_NEAREST
    )
    level = (255 * enlarge(inside / max(inside.max(), 1e-12))).astype(np.uint8)
    colour = cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float64)
    mixed = np.where(enlarge(own)[..., None], 0.45 * grey + 0.55 * colour, 0.35 * grey)
    title = "whole" if count == 1 else f"{part + 1} of {count}"
    share = float(inside.sum() / max(responses.sum(), 1e-12))
    return {"title": title, "source": data_uri(mixed.astype(np.uint8)), "share": share}
