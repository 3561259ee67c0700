"""Compare two images: one person's, or two people's?

    python -m vireid_jax.compare night/7.png day/3.jpg --checkpoint runs/demo \
        --modalities infrared visible --false_match_rate 0.01

prints the cosine of their embeddings, and "same" where it reaches the threshold at
which that share of pairs of two people passed for one, among the identities that
training held out (`config.data.validation_identities`). The verdict is not in the exit
code: that is 0 either way. docs/embed.md says what it is worth.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import one_line_errors
from vireid_jax.run.runtime import set_up
from vireid_jax.thresholds import KINDS


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
    is no verdict. Raises ValueError for an image that cannot be read, and for a rate
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
        raise ValueError(
            f"--false_match_rate is {rate}, and the checkpoint has no such threshold"
            f" for {kind} pairs: {legal}. They come from the identities held out in"
            " training, more for lower rates: config.data.validation_identities"
        )
    threshold = thresholds[rate]
    hits = found["true_match_rates"][str(rate)]
    return Verdict(cosine, cosine >= threshold, threshold, rate, hits)


def sentence(verdict: Verdict) -> str:
    """Says a verdict in a line."""
    if verdict.same is None:
        return (
            f"cosine {verdict.cosine:.3f}. No verdict: the checkpoint has no threshold"
            " for such pairs, since training held no or few identities out"
            " (config.data.validation_identities), or was done by an older version."
        )
    told = (
        f"{'same' if verdict.same else 'different'}: cosine {verdict.cosine:.3f},"
        f" threshold {verdict.threshold:.3f}, which {100 * verdict.false_match_rate:g}%"
        " of pairs of two people reach"
    )
    if verdict.true_match_rate is None:
        return f"{told}."
    return f"{told} and {100 * verdict.true_match_rate:.0f}% of pairs of one person."


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m vireid_jax.compare",
        description="Do two images show one person? docs/embed.md",
    )
    add = parser.add_argument
    add("images", type=Path, nargs=2, metavar="IMAGE")
    add("--checkpoint", type=Path, required=True, help="a run's workdir")
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--modalities", choices=MODALITIES, nargs=2, required=True, metavar="MODALITY",
        help="of each image: visible or infrared")  # fmt: skip
    add("--false_match_rate", type=float, help="default: 0.01")
    add("--json", action="store_true", help="print the verdict as JSON")
    return parser.parse_args()


def main() -> None:
    """Runs the command."""
    arguments, console = parse(), Console(emoji=False, highlight=False)
    set_up()
    with one_line_errors():
        from vireid_jax.embedder import load

        embedder = load(arguments.checkpoint, arguments.which)
        verdict = compare_images(
            embedder,
            tuple(arguments.images),
            tuple(arguments.modalities),
            arguments.false_match_rate,
        )
    told = json.dumps(verdict._asdict()) if arguments.json else sentence(verdict)
    console.print(told, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
