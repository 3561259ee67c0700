"""Read torchreid's OSNet checkpoints into variables of this package.

Nothing that a file holds is ever run: torch reads it with `weights_only=True`, or it is
refused.
"""

import functools
import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vireid_jax import __version__, models
from vireid_jax.models.build import init_variables
from vireid_jax.models.osnet import CHANNELS, variant_of
from vireid_jax.run.errors import UserError
from vireid_jax.training.checkpoint import save_variables
from vireid_jax.weights import pretrained
from vireid_jax.weights.pretrained import Tensors, Variables

_TORCH = (2, 10)  # in older ones a hostile file could run code: CVE-2026-24747
_WRAPPERS = ("state_dict", "model")  # of torchreid's training checkpoints; of others'
_PREFIX = "module."  # of torch's DataParallel
_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NUMPY += ("numpy.dtype",)
_FLOATS = ("float32", "float64", "float16", "bfloat16")
_TAKEN, _UNKNOWN = "taken", "left: no layer of the network"


class Row(NamedTuple):
    """What became of one tensor: `path` is its place here, "" where it was left."""

    key: str
    shape: tuple[int, ...]
    path: str
    fate: str


class Report(NamedTuple):
    """What became of a checkpoint: the network, its tensors, what lay around them."""

    name: str
    rows: list[Row]
    notes: list[str]


# --- Reading --------------------------------------------------------------------------


def read_checkpoint(path: Path) -> tuple[Tensors, list[str]]:
    """Reads tensors by torch's keys, and notes on what was taken off or lay around.

    Raises UserError for what is neither a safetensors file nor a checkpoint of
    torch's, and for one that wants anything to be run.
    """
    if not path.is_file():
        raise UserError(
            f"there is no file {path}; give a .pth, .pt or .pth.tar file of"
            " torchreid's, or a .safetensors file with its keys"
        )
    if path.suffix == ".safetensors":
        tensors, notes = pretrained.read_file(path)[0], []
    else:
        tensors, notes = _read_torch(path)
    plain = {key.removeprefix(_PREFIX): x for key, x in tensors.items()}
    if len(plain) < len(tensors):
        raise UserError(
            f"{path} holds some keys with {_PREFIX!r} and without; save one of the two"
        )
    count = sum(key.startswith(_PREFIX) for key in tensors)
    if count:
        notes.append(f"{_PREFIX!r} taken off {count} keys")
    return plain, notes


def _read_torch(path: Path) -> tuple[Tensors, list[str]]:
    content, notes = _load(path), []
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            beside = ", ".join(str(key) for key in content if key != wrapper)
            notes.append(
                f"read from {wrapper!r}; left beside it: {beside or 'nothing'}"
            )
            content = content[wrapper]
            break
    strangers = [f"it is a {type(content).__name__}"]
    if isinstance(content, dict):
        kinds = {key: type(value).__name__ for key, value in content.items()}
        strangers = [
            f"{key!r} is {kind}"
            for key, kind in kinds.items()
            if kind not in ("Tensor", "Parameter") or not isinstance(key, str)
        ]
    if strangers:
        raise UserError(
            f"{path} holds no state_dict, neither at its top nor under one of"
            f" {list(_WRAPPERS)}: {', '.join(strangers[:3])}. Save"
            " network.state_dict() with torch.save"
        )
    return {key: _to_numpy(key, tensor) for key, tensor in content.items()}, notes


class _Number:
    """Stands for a number of numpy's, or its type, beside the weights; keeps nothing.

    torchreid's training checkpoints hold their Rank-1 so, which torch alone refuses.
    """

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading {path} needs PyTorch, which is not installed: pip install"
            " 'torch>=2.10' (its CPU build suffices), or give a .safetensors file"
        ) from error
    if torch.__version__ < _TORCH:
        raise UserError(
            f"torch is {torch.__version__}, whose weights-only loader a hostile file"
            " can get around (CVE-2026-24747): pip install 'torch>=2.10'"
        )
    numbers = [(_Number, name) for name in _NUMPY]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(numbers):
            # It says that `encoding` is for pickle alone; Python 2's strings need it.
            warnings.simplefilter("ignore")
            return torch.load(
                path, map_location="cpu", weights_only=True, encoding="latin1"
            )
    except OSError:
        raise
    except Exception as error:  # of a damaged file torch raises almost anything
        raise UserError(_explain_refusal(path, str(error))) from error


def _explain_refusal(path: Path, said: str) -> str:
    """Says why torch refused, without its advice to load the file unsafely."""
    called = re.search(r"GLOBAL (\S+)", said)
    if called:
        return (
            f"{path} asks for {called[1]}, which weights have no use for; nothing of it"
            " was run. Whoever made it can save network.state_dict() alone; that"
            " is read"
        )
    reason = said.rpartition("WeightsUnpickler error: ")[2].strip() or "it is damaged"
    return f"{path} is no checkpoint that torch reads as weights: " + (
        reason.splitlines()[0].rstrip(".") + "; fetch it again, or save it anew"
    )


def _to_numpy(key: str, tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # numpy's own types have none
        return tensor.view(torch.int16).numpy().view(jax.numpy.bfloat16)
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        kind = f"{tensor.layout} of {tensor.dtype} on {tensor.device}"
        raise UserError(
            f"{key} is {kind}; save it dense, as {' or '.join(_FLOATS)}"
        ) from error


# --- Fitting --------------------------------------------------------------------------


def recognise(tensors: Tensors) -> str:
    """Names the network that keys and shapes are of.

    The branches' keys and the instance norms tell the variant, the stem's channels the
    width. Raises UserError where they tell none, or two.
    """
    legal = f"give --name, one of {models.list_models()}"
    signs = {"ain": ".conv2.0.layers.", "base": ".conv2a."}
    found = [v for v, sign in signs.items() if any(sign in key for key in tensors)]
    if len(found) != 1:
        what = "both OSNet and OSNet-AIN" if found else "no OSNet"
        raise UserError(f"the keys are of {what} (first: {list(tensors)[:3]}); {legal}")
    variant = found[0]
    if variant == "base" and any(".IN." in key for key in tensors):
        variant = "ibn"
    stem = tensors.get("conv1.conv.weight")
    if stem is None or stem.ndim != 4:
        shape = "missing" if stem is None else stem.shape
        raise UserError(
            f"conv1.conv.weight, which tells the width, is {shape}; {legal}"
        )
    widths = {c[0]: name for name, c in CHANNELS.items() if variant_of(name) == variant}
    if len(stem) not in widths:
        raise UserError(
            f"conv1.conv.weight has {len(stem)} channels; OSNet ({variant}) has one of"
            f" {list(widths)}; {legal}"
        )
    return widths[len(stem)]


@functools.cache
def _shapes(name: str) -> Variables:
    model = models.create_single(name)
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))


def fit(tensors: Tensors, name: str, source: str) -> tuple[Variables, list[Row]]:
    """Returns the variables of `create_single(name)`, and what became of each tensor.

    All floating types become float32. Raises UserError naming every tensor that is
    missing, of another shape, not of floats, not finite, or unknown within a stage.
    """
    shapes = _shapes(name)
    paths = pretrained.torch_paths(shapes)
    layers = {key.partition(".")[0] for key in paths}
    rows, wrong = [], []
    for key, x in tensors.items():
        fate = _fate(key, x, key in paths)
        rows.append(Row(key, x.shape, paths.get(key, ""), fate))
        if fate == _UNKNOWN and key.partition(".")[0] in layers:
            wrong.append(f"{key} is no part of {name}, and would change its features")
        elif key in paths and x.dtype.name not in _FLOATS:
            wrong.append(f"{key} is {x.dtype.name}; legal types are {list(_FLOATS)}")
    _refuse(source, wrong)
    with np.errstate(over="ignore"):  # what overflows is named below
        variables = pretrained.insert_weights(shapes, tensors, source)
        for key in paths:
            x = tensors[key].astype(np.float32, copy=False)
            bad = x.size - np.isfinite(x).sum()
            if bad:
                wrong.append(f"{key}: {bad} of {x.size} values are not finite")
    _refuse(source, wrong)
    return variables, rows


def _fate(key: str, x: np.ndarray, wanted: bool) -> str:
    if wanted:
        return _TAKEN if x.dtype == np.float32 else f"{_TAKEN}, cast from {x.dtype}"
    if key.endswith(".num_batches_tracked"):
        return "left: a counter of torch's"
    if key.startswith("classifier."):
        return f"left: a classifier of {len(np.atleast_1d(x))} classes"
    return _UNKNOWN


def _refuse(source: str, wrong: list[str]) -> None:
    if wrong:
        raise UserError(f"{source} cannot be converted:\n  " + "\n  ".join(wrong))


# --- Writing --------------------------------------------------------------------------


def outputs(out: Path, name: str) -> tuple[Path, Path]:
    """Returns where the weights and the checkpoint go; UserError if one is there."""
    places = (out / f"{name}.safetensors", out / name)
    there = [str(place) for place in places if place.exists()]
    if there:
        raise UserError(
            f"{' and '.join(there)} would be overwritten; give another folder than"
            f" {out}, or first: rm -r {' '.join(there)}"
        )
    return places


def write(out: Path, name: str, variables: Variables, about: dict[str, str]) -> None:
    """Writes the weights and the checkpoint aside, and moves them when both are whole.

    The checkpoint is what orbax's StandardCheckpointer restores. `about` becomes the
    metadata of the weights. Raises UserError where one of them is there already.
    """
    out = out.expanduser().resolve()  # orbax takes no relative path
    weights, folder = outputs(out, name)
    aside = out / f".{name}.converting"
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    try:
        aside.mkdir(parents=True)
        _check_room(aside, variables)  # orbax tells of a full disk in many tracebacks
        pretrained.write_weights(aside / weights.name, variables, about)
        save_variables(aside / name, variables)
        os.rename(aside / name, folder)
        os.rename(aside / weights.name, weights)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_room(folder: Path, variables: Variables) -> None:
    # Both outputs, and a MiB for what stands around the arrays.
    needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(variables)) + 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no room in {folder.parent}: {needed / 2**20:.1f} MiB are needed,"
            f" {free / 2**20:.1f} MiB free; free some space, or give another folder"
        )


def describe(path: Path, name: str, rows: list[Row]) -> dict[str, str]:
    """Describes a conversion: the metadata of the weights."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    left = [row.key for row in rows if not row.path]
    return {
        "name": name,
        "source": path.name,
        "sha256": digest,
        "left": json.dumps(left),
        "written_by": f"vireid_jax.convert {__version__}",
    }


def convert(path: Path, out: Path, name: str | None = None) -> Report:
    """Converts a checkpoint into a folder; `name` is told by keys and shapes if None.

    Raises UserError, and writes nothing, unless every tensor of the network is there
    and right.
    """
    tensors, notes = read_checkpoint(path)
    name = name or recognise(tensors)
    source = f"{path} (as {name}; --name says otherwise)"
    variables, rows = fit(tensors, name, source)
    write(out, name, variables, describe(path, name, rows))
    return Report(name, rows, notes)
