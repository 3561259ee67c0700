"""Export a trained network for other programs, with a proof that it is the same.

Write the files, `model.json` (inputs and outputs) and `proof.json`: how far features
are from those of JAX, Rank-1 and mAP of both on `walkers`, sizes and latencies.
Features that differ by more than 1e-4 are an error, and nothing is written.

    python -m vireid_jax.export --checkpoint runs/demo --format onnx --out model/
    python -m vireid_jax.export --checkpoint runs/demo --format onnx --int8 --out small/
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

from vireid_jax.export.formats import FORMATS, STREAMS, check_installed, describe, write
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import check_parent
from vireid_jax.run.runtime import set_up


def check_new(out: Path) -> None:
    """Raises UserError unless a folder can appear here."""
    check_parent(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(
            f"--out {out} is there already, and nothing is overwritten; give a new"
            " folder, or delete that one"
        )


def in_float32(embedder: Any) -> Any:
    """Returns the embedder, computing in float32 if it was trained in bfloat16."""
    from vireid_jax.embed.embedder import Embedder

    if getattr(embedder.model, "dtype", "float32") == "float32":
        return embedder
    return Embedder(
        embedder.model.clone(dtype="float32"),
        embedder.variables,
        size=embedder.size,
        flip=embedder.flip,
        batch_size=embedder.batch_size,
        feature=embedder.feature,
        modalities=embedder.modalities,
        about=embedder.about,
    )


def export(
    path: Path,
    format: str,
    out: Path,
    *,
    which: str = "last",
    streams: str = "separate",
    int8: bool = False,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Writes a checkpoint's network into the new folder `out`; returns the proof.

    Arguments are the command's. Raises UserError where it cannot be done, or where the
    files' features are not the checkpoint's; then there is no `out`.
    """
    console = console or Console(quiet=True)
    if format not in FORMATS:
        raise UserError(f"--format is {format!r}; legal are {list(FORMATS)}")
    if int8 and format != "onnx":
        raise UserError(f"--int8 is for --format onnx; it is {format}")
    check_installed(format)
    out = out.expanduser().absolute()
    check_new(out)
    from vireid_jax.config import with_defaults
    from vireid_jax.embed.embedder import load
    from vireid_jax.evaluate.test_split import open_split
    from vireid_jax.export.proof import open_trial, prove
    from vireid_jax.export.runtimes import open_files

    embedder = load(path, which)
    if streams == "both" and (format == "safetensors" or len(embedder.modalities) < 2):
        reason = (
            "a safetensors file has both streams in any case"
            if format == "safetensors"
            else f"the network has seen {embedder.modalities[0]} images alone"
        )
        raise UserError(f"--streams is both, and {reason}; leave it out")
    if format != "safetensors":
        embedder = in_float32(embedder)
    config = ConfigDict(with_defaults(embedder.about.config))
    if data_dir:
        config.data.dir = str(data_dir)
    trial = open_trial(config, embedder.modalities)
    about = describe(embedder, format)

    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as aside,
        console.status("writing") as status,
    ):
        folder = Path(aside) / "export"
        folder.mkdir()
        written = [write(embedder, format, folder, streams, about)]
        if int8:
            from vireid_jax.export.quantise import calibration_images, quantise

            status.update("quantising")
            train = open_split(config, "train")
            images = calibration_images(train, embedder.size, embedder.modalities)
            written.append(quantise(written[0], images))
        targets = [t for files in written for t in open_files(format, files)]
        proof = prove(embedder, targets, trial, status.update)
        proof["bytes"] = {
            path.name: path.stat().st_size for path in sorted(folder.iterdir())
        }
        proof["checkpoint"] = {
            key: about[key] for key in ("step", "epoch", "commit", "fingerprint")
        }
        about["files"] = {}  # the modalities of each
        for files in written:
            for group, path in files.paths.items():
                about["files"].setdefault(path.name, []).extend(group)
        for name, document in {"model.json": about, "proof.json": proof}.items():
            (folder / name).write_text(json.dumps(document, indent=2) + "\n")
        os.rename(folder, out)
    return proof


def table_of(proof: dict[str, Any]) -> Table:
    """Shows what was found: JAX itself, then each runtime and precision."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("runtime, precision")
    latencies = [f"ms of {n}" for n in proof["runs"][0]["latency_ms"]]
    for name in ("Rank-1", "mAP", "features off by", *latencies):
        table.add_column(name, justify="right")
    for run in [None, *proof["runs"]]:
        found = (run or proof["runs"][0]).get("walkers", {})
        whose = "exported" if run else "jax"
        row = [
            " ".join(f"{100 * told[whose][name]:.2f}" for told in found.values())
            for name in ("Rank-1", "mAP")
        ]
        if run:
            row.append(f"{run['largest_difference']:.1e}")
            row += [f"{ms:.1f}" for ms in run["latency_ms"].values()]
        name = f"{run['runtime']}, {run['precision']}" if run else "the checkpoint"
        table.add_row(name, *row)
    if found:
        table.caption = f"Percent: {', then '.join(found)}; {proof['walkers']}"
    return table


def create_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("export", __doc__, "deployment.md")
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="a run's workdir")
    add("--which", default="last", help="checkpoint: last, best, or a step")
    add("--format", choices=FORMATS, required=True)
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    add("--streams", choices=STREAMS, default="separate",
        help="a file for each modality, or one of both")  # fmt: skip
    add("--int8", action="store_true", help="ONNX in int8, too")
    add("--data_dir", type=Path, help="of the images, if not as in the config")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Export the network and print the proof."""
    set_up()
    console = Console(emoji=False, highlight=False)
    proof = export(
        arguments.checkpoint,
        arguments.format,
        arguments.out,
        which=arguments.which,
        streams=arguments.streams,
        int8=arguments.int8,
        data_dir=arguments.data_dir,
        console=console,
    )
    console.print(table_of(proof))
    sizes = ", ".join(
        f"{name} {n / 2**20:.2f} MiB" for name, n in proof["bytes"].items()
    )
    console.print(
        f"Wrote {arguments.out}: {sizes}, model.json, proof.json.",
        soft_wrap=True,
        markup=False,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
