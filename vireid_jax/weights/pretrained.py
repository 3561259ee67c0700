"""Weights of one OSNet in files with torchreid's names, for each stream of a network.

Files are safetensors with torch's keys and layouts (`conv2.0.conv1.conv.weight`, OIHW),
so torchreid can read ours and we can read its.
"""

from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vireid_jax.modality import MODALITIES
from vireid_jax.run.errors import UserError
from vireid_jax.run.files import replace_bytes

Tensors = dict[str, np.ndarray]
Variables = dict[str, Any]

_STREAMS = (*MODALITIES, "shared")
TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


def shipped_weights() -> dict[str, Path]:
    """Return the files of weights that come with the package, by name."""
    return {p.stem: p for p in sorted(Path(__file__).parent.glob("*.safetensors"))}


def read_weights(name_or_path: str) -> tuple[Tensors, dict[str, str]]:
    """Read weights by shipped name or file path; return tensors and metadata.

    Raise UserError for a name that is neither, or a file that is not safetensors.
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
    """Return a safetensors file's tensors and metadata, or raise UserError."""
    try:
        with safe_open(path, "np") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error


def write_weights(path: Path, variables: Variables, about: dict[str, str]) -> None:
    """Write one stream under torch's names, atomically; `about` is metadata.

    Write the stages of a two-stream network with k = 0, or all of a single-modality
    network. Raise UserError if a layer has a copy per modality.
    """
    tensors = {}
    for names, leaf in _leaves(variables).items():
        # A norm per modality has two leaves for one of torch's names.
        if names[1] in MODALITIES or _torch_key(names) in tensors:
            raise UserError(
                f"the network has separate parameters {'/'.join(names)}; only one with"
                " num_specific_stages=0 and separate_norm=False is a plain OSNet"
            )
        leaf = np.asarray(leaf)
        leaf = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
        tensors[_torch_key(names)] = np.ascontiguousarray(leaf)
    replace_bytes(path, save(tensors, metadata=about))


def torch_paths(variables: Variables) -> dict[str, str]:
    """Return the path of each of torch's keys: `params/shared/conv1/bn/scale`."""
    return {_torch_key(names): "/".join(names) for names in _leaves(variables)}


def insert_weights(variables: Variables, tensors: Tensors, source: str) -> Variables:
    """Return the variables with every stage's leaf taken from `tensors`.

    A stage with a copy per modality gets the same tensor twice, and so does a norm per
    modality. A single-modality network gets its `fc` too, and its classifier if that of
    `tensors` has as many classes. All other heads stay as they are; other tensors are
    ignored. Raise UserError naming every missing and every mis-shaped tensor.
    """
    errors, new = [], {}
    for names, leaf in _leaves(variables).items():
        key, shape = _torch_key(names), "missing"
        if key in tensors:
            value = tensors[key]
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
            shape = value.shape
        if shape == leaf.shape:
            new[names] = value.astype(leaf.dtype)
        elif names[1] != "classifier":  # one of other classes, or none, is not taken
            errors.append(f"{key} is {shape}, the network has {leaf.shape}")
    if errors:
        raise UserError(
            f"{source} does not fit the network; is it of the same width and variant?"
            "\n  " + "\n  ".join(errors)
        )
    return unflatten_dict(flatten_dict(variables) | new)


def _leaves(variables: Variables) -> dict[tuple[str, ...], Any]:
    """Return what torch has too: `("params", "shared", "conv1", ..., "kernel")`."""
    return {
        names: leaf
        for names, leaf in flatten_dict(variables).items()
        if names[1] in (*_STREAMS, "fc", "classifier")
    }


def _torch_key(names: tuple[str, ...]) -> str:
    collection, *layers, leaf = names
    if layers[0] in _STREAMS:
        del layers[0]
    for modality in MODALITIES:
        layers[-1] = layers[-1].removesuffix(f"_{modality}")
    return ".".join([*layers, TORCH_NAMES[collection, leaf]])
