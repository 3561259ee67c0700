"""Compare two images: their cosine, and the verdict at a false-match rate."""

from pathlib import Path
from typing import NamedTuple

from vireid_jax.embed.embedder import Embedder
from vireid_jax.embed.thresholds import KINDS
from vireid_jax.run.errors import UserError


class Verdict(NamedTuple):
    """The cosine of two images; the rest is None where there is no threshold."""

    cosine: float
    same: bool | None = None
    threshold: float | None = None
    false_match_rate: float | None = None
    true_match_rate: float | None = None  # of pairs of one person, at this threshold


def compare_images(
    embedder: Embedder,
    images: tuple[Path, Path],
    modalities: tuple[str, str],
    rate: float | None = None,
) -> Verdict:
    """Embed both images and judge their cosine at a false-match rate.

    Without a `rate` take the lowest from 0.01 on; a checkpoint that has none gives no
    verdict. Raise UserError for an image that cannot be read, and for a rate that the
    checkpoint has no threshold of.
    """
    one, two = map(embedder.embed, images, modalities)
    cosine = float(one[0] @ two[0])
    kind = next("-".join(k) for k in KINDS if sorted(k) == sorted(modalities))
    stored = embedder.about.thresholds.get(kind, {})
    thresholds = {float(r): x for r, x in stored.get("thresholds", {}).items()}
    if rate is None:
        rate = min((r for r in thresholds if r >= 0.01), default=None)
        if rate is None:
            return Verdict(cosine)
    if rate not in thresholds:
        valid = f"valid values: {sorted(thresholds)}" if thresholds else "it has none"
        raise UserError(
            f"--false_match_rate is {rate}, and the checkpoint has no such threshold"
            f" for {kind} pairs: {valid}. They come from the identities held out in"
            " training, more for lower rates: config.data.validation_identities"
        )
    threshold, hits = thresholds[rate], stored["true_match_rates"][str(rate)]
    return Verdict(cosine, cosine >= threshold, threshold, rate, hits)
