"""Weights of a single OSNet, as torchreid names them, into the streams of a network.

Files are safetensors with torch's keys and layouts (`conv2.0.conv1.conv.weight`, OIHW),
so that torchreid can read ours and we read its.

    python -m vireid_jax.weights.pretrained --workdir DIR --out FILE.safetensors

writes the weights of a trained single stream, with the run that made them as metadata.
"""

import argparse
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError, one_line_errors

Tensors = dict[str, np.ndarray]
Variables = dict[str, Any]

_TRUNKS = (*MODALITIES, "shared")
_SINGLE_HEAD = ("fc", "classifier")  # of the single-modality network
TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def shipped_weights() -> dict[str, Path]:
    """Lists the weights that come with the package, by name."""
    folder = resources.files("vireid_jax") / "weights"
    return {p.stem: p for p in sorted(Path(str(folder)).glob("*.safetensors"))}


def read_weights(name_or_path: str) -> tuple[Tensors, dict[str, str]]:
    """Reads weights by shipped name or file path; returns tensors and metadata.

    Raises UserError for a name that is neither, or a file that is not safetensors.
    """
    shipped = shipped_weights()
    path = shipped.get(name_or_path, Path(name_or_path).expanduser())
    if not path.is_file():
        raise UserError(
            f"config.model.pretrained is {name_or_path!r}, which is neither a file nor"
            f" one of the shipped weights {list(shipped)}; give one of these, a path to"
            " a .safetensors file (python -m vireid_jax.convert makes one of"
            " torchreid's), or '' to start from random weights"
        )
    return read_file(path)


def read_file(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Reads a safetensors file; returns tensors and metadata.

    Raises UserError where it is of another kind, or not whole.
    """
    try:
        with safe_open(path, "np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error


def write_weights(
    path: str | Path, variables: Variables, about: dict[str, str]
) -> None:
    """Writes one stream under torch's names; `about` is metadata.

    The stages of a two-stream network with k = 0, or the whole of a single-modality
    one. Raises UserError where some layer has a copy per modality.
    """
    tensors = {}
    for place, leaf in _leaves(variables):
        # A norm per modality has two leaves for one name of torch's.
        if place[1] in MODALITIES or _torch_key(place) in tensors:
            raise UserError(
                f"the network has separate parameters {'/'.join(place)}; only one with"
                " num_specific_stages=0 and separate_norm=False is a plain OSNet"
            )
        tensors[_torch_key(place)] = np.ascontiguousarray(_to_torch(np.asarray(leaf)))
    save_file(tensors, str(path), metadata=about)


def torch_paths(variables: Variables) -> dict[str, str]:
    """Maps torch's keys to where they stand here: `params/shared/conv1/bn/scale`."""
    return {_torch_key(place): "/".join(place) for place, _ in _leaves(variables)}


def insert_weights(variables: Variables, tensors: Tensors, source: str) -> Variables:
    """Returns the variables with every stage's leaf taken from `tensors`.

    A stage with a copy per modality gets the same tensor twice, and so does a norm per
    modality. A single-modality network gets its `fc` too, and its classifier if that of
    `tensors` has as many classes. All other heads stay as they are; tensors nobody asks
    for are left. Raises UserError naming every missing and every mis-shaped tensor.
    """
    wrong, found = [], {}
    for place, leaf in _leaves(variables):
        key = _torch_key(place)
        value = _from_torch(tensors[key]) if key in tensors else None
        if value is not None and value.shape == leaf.shape:
            found[place] = value.astype(leaf.dtype)
        elif place[1] == "classifier":
            pass  # of other classes, or none: ours starts anew
        elif value is None:
            wrong.append(f"{key} is missing")
        else:
            wrong.append(f"{key} is {value.shape}, the network wants {leaf.shape}")
    if wrong:
        raise UserError(
            f"{source} does not fit the network; is it of the same width and variant?"
            "\n  " + "\n  ".join(wrong)
        )
    return _replace(variables, found)


def _leaves(tree: Variables, place: tuple[str, ...] = ()):
    """Yields what torch names too: `("params", "shared", "conv1", ..., "kernel")`."""
    for name, value in tree.items():
        here = (*place, name)
        if len(here) == 2 and name not in (*_TRUNKS, *_SINGLE_HEAD):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value


def _replace(tree: Variables, found: dict, place: tuple[str, ...] = ()) -> Variables:
    return {
        name: _replace(value, found, (*place, name))
        if isinstance(value, dict)
        else found.get((*place, name), value)
        for name, value in tree.items()
    }


def _torch_key(place: tuple[str, ...]) -> str:
    collection, *layers, leaf = place
    if layers[0] in _TRUNKS:
        del layers[0]
    for modality in MODALITIES:
        layers[-1] = layers[-1].removesuffix(f"_{modality}")
    return ".".join([*layers, TORCH_NAMES[collection, leaf]])


def _to_torch(x: np.ndarray) -> np.ndarray:
    return x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T


def _from_torch(x: np.ndarray) -> np.ndarray:
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def training_hours(workdir: Path) -> float:
    """Sums the hours that a run's steps took, from its metrics.jsonl."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    seconds = sum(row["seconds"] for row in rows if row["kind"] == "train")
    return round(seconds / 3600, 3)


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m vireid_jax.weights.pretrained",
        description="Write the weights of a run with num_specific_stages=0.",
    )
    parser.add_argument("--workdir", required=True, type=Path, help="of a training run")
    parser.add_argument("--out", required=True, type=Path, help="FILE.safetensors")
    arguments = parser.parse_args()
    from vireid_jax.run.runtime import set_up

    set_up()
    from vireid_jax.embed.embedder import load

    with one_line_errors():
        embedder = load(arguments.workdir)
        about = {
            key: json.dumps(value) for key, value in embedder.about.to_json().items()
        }
        about["hours"] = json.dumps(training_hours(arguments.workdir))
        write_weights(arguments.out, embedder.variables, about)


if __name__ == "__main__":
    main()
