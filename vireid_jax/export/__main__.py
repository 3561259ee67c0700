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
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Table

from vireid_jax.export import formats
from vireid_jax.export.formats import FORMATS, STREAMS
from vireid_jax.run.command import Parser, run_command
from vireid_jax.run.errors import UserError, check_installed
from vireid_jax.run.files import check_new_folder, check_parent
from vireid_jax.run.runtime import set_up

if TYPE_CHECKING:
    from vireid_jax.embed.embedder import Embedder


def in_float32(embedder: "Embedder") -> "Embedder":
    """Return the embedder, or one that computes in float32 if it does not."""
    if embedder.model.dtype == "float32":
        return embedder
    names = ("size", "flip", "batch_size", "feature", "modalities", "about")
    return type(embedder)(
        embedder.model.clone(dtype="float32"),
        embedder.variables,
        **{name: getattr(embedder, name) for name in names},
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
    """Write a checkpoint's network into the new folder `out`; return the proof.

    The arguments are the command's. Raise UserError, and leave no `out`, for a wrong
    argument, or if the files' features are not the checkpoint's.
    """
    console = console or Console(quiet=True)
    if format not in FORMATS:
        raise UserError(f"--format is {format!r}; valid values: {list(FORMATS)}")
    if int8 and format != "onnx":
        raise UserError(f"--int8 is for --format onnx; it is {format}")
    check_installed(f"--format {format}", "export", *formats.NEEDED[format])
    out = out.expanduser().absolute()
    check_parent(out)
    check_new_folder(out)
    from vireid_jax.config import with_defaults
    from vireid_jax.embed.embedder import load
    from vireid_jax.evaluate.test_split import open_split
    from vireid_jax.export.proof import open_trial, prove
    from vireid_jax.export.runtimes import open_files

    embedder = load(path, which)
    if streams == "both" and (format == "safetensors" or len(embedder.modalities) < 2):
        reason = f"the network was trained on {embedder.modalities[0]} images alone"
        if format == "safetensors":
            reason = "a safetensors file has both streams in any case"
        raise UserError(f"--streams is both, and {reason}; leave it out")
    if format != "safetensors":
        embedder = in_float32(embedder)
    config = ConfigDict(with_defaults(embedder.about.config))
    if data_dir:
        config.data.dir = str(data_dir)
    trial = open_trial(config, embedder.modalities)
    about = formats.describe(embedder, format)

    with (
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as parent,
        console.status("writing") as status,
    ):
        folder = Path(parent) / "export"
        folder.mkdir()
        written = [formats.write(embedder, format, folder, streams, about)]
        if int8:
            status.update("quantising")
            train = open_split(config, "train")
            images = formats.calibration_images(
                train, embedder.size, embedder.modalities
            )
            written.append(formats.quantise(written[0], images))
        targets = [t for files in written for t in open_files(format, files)]
        proof = prove(embedder, targets, trial, status.update)
        proof["bytes"] = {x.name: x.stat().st_size for x in sorted(folder.iterdir())}
        kept = ("step", "epoch", "commit", "fingerprint")
        proof["checkpoint"] = {key: about[key] for key in kept}
        about["files"] = {}  # modalities by name
        for files in written:
            for group, path in files.paths.items():
                about["files"].setdefault(path.name, []).extend(group)
        for name, document in {"model.json": about, "proof.json": proof}.items():
            (folder / name).write_text(json.dumps(document, indent=2) + "\n")
        os.rename(folder, out)
    return proof


def table_of(proof: dict[str, Any]) -> Table:
    """Return a table of a proof: JAX itself, then each runtime and precision."""
    first = proof["runs"][0]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("runtime, precision")
    latencies = [f"ms of {n}" for n in first["latency_ms"]]
    for name in ("Rank-1", "mAP", "features off by", *latencies):
        table.add_column(name, justify="right")

    def metrics_of(run: dict[str, Any], whose: str) -> list[str]:
        rows = [row[whose] for row in run.get("walkers", {}).values()]
        names = ("Rank-1", "mAP")
        return [" ".join(f"{100 * row[name]:.2f}" for row in rows) for name in names]

    table.add_row("the checkpoint", *metrics_of(first, "jax"))
    for run in proof["runs"]:
        table.add_row(
            f"{run['runtime']}, {run['precision']}",
            *metrics_of(run, "exported"),
            f"{run['largest_difference']:.1e}",
            *(f"{ms:.1f}" for ms in run["latency_ms"].values()),
        )
    if "walkers" in first:
        directions = ", then ".join(first["walkers"])
        table.caption = f"Percent: {directions}; {proof['walkers']}"
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
    options = vars(arguments).copy()
    proof = export(options.pop("checkpoint"), **options, console=console)
    console.print(table_of(proof))
    sizes = (f"{name} {n / 2**20:.2f} MiB" for name, n in proof["bytes"].items())
    text = f"Wrote {arguments.out}: {', '.join(sizes)}, model.json, proof.json."
    console.print(text, soft_wrap=True, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command(create_parser(), run, arguments)


if __name__ == "__main__":
    main()
