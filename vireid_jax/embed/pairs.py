"""Compare two images: their cosine, and the verdict at a false-match rate."""

from pathlib import Path
from typing import Any, NamedTuple

from vireid_jax.embed.thresholds import KINDS
from vireid_jax.run.errors import UserError


class Verdict(NamedTuple):
    """What was found; the last four are None where there is no threshold."""

    cosine: float
    same: bool | None
    threshold: float | None
    false_match_rate: float | None
    true_match_rate: float | None  # of pairs of one person, at this threshold


def compare_images(
    embedder: Any,
    images: tuple[Path, Path],
    modalities: tuple[str, str],
    rate: float | None = None,
) -> Verdict:
    """Embeds both images and judges their cosine at a false-match rate.

    Without a `rate` it is the lowest from 0.01 on; where the checkpoint has none, there
    is no verdict. Raises UserError for an image that cannot be read, and for a rate
    that the checkpoint has no threshold of, naming those it has.
    """
    one, two = (
        embedder.embed(image, modality)[0]
        for image, modality in zip(images, modalities, strict=True)
    )
    cosine = float(one @ two)
    kind = next("-".join(k) for k in KINDS if sorted(k) == sorted(modalities))
    found = embedder.about.get("thresholds", {}).get(kind, {})
    thresholds = {float(r): x for r, x in found.get("thresholds", {}).items()}
    if rate is None:
        rate = min((r for r in thresholds if r >= 0.01), default=None)
        if rate is None:
            return Verdict(cosine, None, None, None, None)
    if rate not in thresholds:
        legal = f"legal are {sorted(thresholds)}" if thresholds else "it has none"
        raise UserError(
            f"--false_match_rate is {rate}, and the checkpoint has no such threshold"
            f" for {kind} pairs: {legal}. They come from the identities held out in"
            " training, more for lower rates: config.data.validation_identities"
        )
    threshold = thresholds[rate]
    hits = found["true_match_rates"][str(rate)]
    return Verdict(cosine, cosine >= threshold, threshold, rate, hits)
