"""Compare two images: do they show one person, or two people?

Print the cosine of their embeddings, and "same" where it reaches the threshold at which
that share of pairs of two people passed for one, among the identities that training
held out (`config.data.validation_identities`). The exit code is 0 for either verdict.

    python -m vireid_jax.compare night/7.png day/3.jpg --checkpoint runs/demo \\
        --modalities infrared visible
    python -m vireid_jax.compare night/7.png day/3.jpg --checkpoint runs/demo \\
        --modalities infrared visible --false_match_rate 0.1 --json
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vireid_jax.embed.embedder import load
from vireid_jax.embed.thresholds import Verdict, compare_images
from vireid_jax.modality import MODALITIES
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.runtime import set_up


def sentence(verdict: Verdict) -> str:
    """Return a verdict as a sentence."""
    cosine, same, threshold, rate, hits = verdict
    if threshold is None or rate is None:
        return (
            f"cosine {cosine:.3f}. No verdict: the checkpoint has no threshold"
            " for such pairs, because training held no or few identities out"
            " (config.data.validation_identities), or was done by an older version."
        )
    text = (
        f"{'same' if same else 'different'}: cosine {cosine:.3f}, threshold"
        f" {threshold:.3f}, which {100 * rate:g}% of pairs of two people reach"
    )
    if hits is None:
        return f"{text}."
    return f"{text} and {100 * hits:.0f}% of pairs of one person."


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("compare", __doc__, "embed.md")
    add = parser.add_argument
    add("images", type=Path, nargs=2, metavar="IMAGE")
    add("--checkpoint", type=Path, required=True, help="a run's workdir")
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--modalities", choices=MODALITIES, nargs=2, required=True, metavar="MODALITY",
        help="of each image: visible or infrared")  # fmt: skip
    add("--false_match_rate", type=float, help="default: 0.01")
    add("--json", action="store_true", help="print the verdict as JSON")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Compare the images and print the verdict."""
    set_up()
    embedder = load(arguments.checkpoint, arguments.which)
    pair, modalities = tuple(arguments.images), tuple(arguments.modalities)
    verdict = compare_images(embedder, pair, modalities, arguments.false_match_rate)
    text = json.dumps(verdict._asdict()) if arguments.json else sentence(verdict)
    Console(emoji=False, highlight=False).print(text, soft_wrap=True, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
