"""Read torchreid's OSNet checkpoints into variables of this package.

Nothing in a file is ever executed: torch reads it with `weights_only=True`, or it is
refused.
"""

import functools
import hashlib
import importlib.metadata
import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vireid_jax import models
from vireid_jax.models.build import init_variables
from vireid_jax.models.osnet import CHANNELS, variant_of
from vireid_jax.run.errors import UserError
from vireid_jax.weights import pretrained
from vireid_jax.weights.pretrained import Tensors, Variables

_TORCH = (2, 10)  # in older ones a hostile file could run code: CVE-2026-24747
_WRAPPERS = ("state_dict", "model")  # of torchreid's training checkpoints; of others'
_PREFIX = "module."  # of torch's DataParallel
_NUMPY = ("core.multiarray.scalar", "_core.multiarray.scalar", "dtype")
_FLOATS = ("float32", "float64", "float16", "bfloat16")
TAKEN = "taken"


class Row(NamedTuple):
    """The status of one tensor; `path` is that of its variable, "" if it was left."""

    key: str
    shape: tuple[int, ...]
    path: str
    status: str


class Report(NamedTuple):
    """A converted checkpoint: its network, its tensors, notes on the rest, the file."""

    name: str
    rows: list[Row]
    notes: list[str]
    weights: Path


# --- Reading --------------------------------------------------------------------------


def read_checkpoint(path: Path) -> tuple[Tensors, list[str]]:
    """Read tensors by torch's keys; return them and notes on what was removed or left.

    Raise UserError for a file that is neither safetensors nor a torch checkpoint, and
    for one that asks to execute anything.
    """
    if not path.is_file():
        raise UserError(
            f"there is no file {path}; give a .pth, .pt or .pth.tar file of"
            " torchreid's, a .safetensors file with its keys, or a run's workdir"
        )
    if path.suffix == ".safetensors":
        tensors, notes = pretrained.read_file(path)[0], list[str]()
    else:
        tensors, notes = _read_torch(path)
    plain = {key.removeprefix(_PREFIX): x for key, x in tensors.items()}
    if len(plain) < len(tensors):
        raise UserError(
            f"{path} holds some keys with {_PREFIX!r} and without; save one of the two"
        )
    if count := sum(key.startswith(_PREFIX) for key in tensors):
        notes.append(f"{_PREFIX!r} taken off {count} keys")
    return plain, notes


def _read_torch(path: Path) -> tuple[Tensors, list[str]]:
    content, notes = _load(path), []
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            beside = ", ".join(str(key) for key in content if key != wrapper)
            notes = [f"read from {wrapper!r}; left beside it: {beside or 'nothing'}"]
            content = content[wrapper]
            break
    errors = [f"it is a {type(content).__name__}"]
    if isinstance(content, dict):
        types = {key: type(value).__name__ for key, value in content.items()}
        errors = [
            f"{key!r} is {name}"
            for key, name in types.items()
            if name not in ("Tensor", "Parameter") or not isinstance(key, str)
        ]
    if errors:
        raise UserError(
            f"{path} holds no state_dict, neither at its top nor under one of"
            f" {list(_WRAPPERS)}: {', '.join(errors[:3])}. Save network.state_dict()"
            " with torch.save"
        )
    return {key: _to_numpy(key, tensor) for key, tensor in content.items()}, notes


class _Number:
    """Replace a numpy number, or its type, beside the weights; keep nothing.

    torchreid's training checkpoints hold Rank-1 as such a number, which torch refuses.
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
    numbers = [(_Number, f"numpy.{name}") for name in _NUMPY]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(numbers):
            # torch warns that only pickle needs `encoding`; Python 2's strings do, too.
            warnings.simplefilter("ignore")
            options = {"map_location": "cpu", "encoding": "latin1"}
            return torch.load(path, weights_only=True, **options)
    except OSError:
        raise
    except Exception as error:  # of a damaged file torch raises almost anything
        raise UserError(_explain_refusal(path, str(error))) from error


def _explain_refusal(path: Path, message: str) -> str:
    """Return torch's reason, without its advice to load the file unsafely."""
    if called := re.search(r"GLOBAL (\S+)", message):
        return (
            f"{path} asks for {called[1]}, which weights do not need; nothing in it was"
            " executed. Its author can save network.state_dict() alone"
        )
    reason = message.rpartition("WeightsUnpickler error: ")[2].strip() or "damaged"
    return (
        f"{path} is not a checkpoint that torch reads as weights:"
        f" {reason.splitlines()[0].rstrip('.')}; download it again, or save it again"
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
        remedy = f"save it dense, as {' or '.join(_FLOATS)}"
        raise UserError(f"{key} is {kind}; {remedy}") from error


# --- Fitting --------------------------------------------------------------------------


def recognise(tensors: Tensors) -> str:
    """Return the name of the network that has these keys and shapes.

    The variant follows from the branches' keys and the instance norms, the width from
    the stem's channels. Raise UserError if they fit none, or two.
    """
    remedy = f"give --name, one of {models.list_models()}"
    signs = {"ain": ".conv2.0.layers.", "base": ".conv2a."}
    variants = [v for v, sign in signs.items() if any(sign in key for key in tensors)]
    if len(variants) != 1:
        kind = "both OSNet and OSNet-AIN" if variants else "no OSNet"
        first = list(tensors)[:3]
        raise UserError(f"the keys are of {kind} (first: {first}); {remedy}")
    variant = variants[0]
    if variant == "base" and any(".IN." in key for key in tensors):
        variant = "ibn"
    widths = {c[0]: name for name, c in CHANNELS.items() if variant_of(name) == variant}
    stem = tensors.get("conv1.conv.weight", np.zeros(0))
    if stem.ndim != 4 or len(stem) not in widths:
        raise UserError(
            f"conv1.conv.weight has the shape {stem.shape}; OSNet ({variant}) has one"
            f" of {list(widths)} channels; {remedy}"
        )
    return widths[len(stem)]


@functools.cache
def _shapes(name: str) -> Variables:
    model = models.create_single(name)
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))


def fit(tensors: Tensors, name: str, source: str) -> tuple[Variables, list[Row]]:
    """Return the variables of `create_single(name)`, and the status of each tensor.

    All floating types become float32. Raise UserError naming every tensor that is
    missing, of another shape, not of floats, not finite, or unknown within a stage.
    """
    shapes = _shapes(name)
    paths = pretrained.torch_paths(shapes)
    layers = {key.partition(".")[0] for key in paths}
    rows, errors = [], []
    for key, x in tensors.items():
        if key in paths:
            status = TAKEN if x.dtype == np.float32 else f"{TAKEN}, cast from {x.dtype}"
            if x.dtype.name not in _FLOATS:
                errors.append(f"{key} is {x.dtype}; valid dtypes: {list(_FLOATS)}")
                continue
            with np.errstate(over="ignore"):  # an overflow is an error, too
                finite = np.isfinite(x.astype(np.float32, copy=False)).sum()
            if finite < x.size:
                bad = x.size - finite
                errors.append(f"{key}: {bad} of {x.size} values are not finite")
        elif key.endswith(".num_batches_tracked"):
            status = "left: a counter of torch's"
        elif key.startswith("classifier."):
            status = f"left: a classifier of {len(np.atleast_1d(x))} classes"
        else:
            status = "left: no layer of the network"
            if key.partition(".")[0] in layers:
                errors.append(f"{key} is not in {name}, and would change its features")
        rows.append(Row(key, x.shape, paths.get(key, ""), status))
    if errors:
        raise UserError(f"{source} cannot be converted:\n  " + "\n  ".join(errors))
    return pretrained.insert_weights(shapes, tensors, source), rows


# --- Writing --------------------------------------------------------------------------


def write_new(
    out: Path, name: str, variables: Variables, about: dict[str, Any]
) -> Path:
    """Write `out/NAME.safetensors`, with `about` as metadata; return its path.

    Raise UserError if there is such a file.
    """
    path = out.expanduser() / f"{name}.safetensors"
    if path.exists():
        raise UserError(
            f"{path} would be overwritten; give another folder, or rm {path}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in about.items()
    }
    version = importlib.metadata.version("vireid-jax")
    metadata["written_by"] = f"vireid_jax.convert {version}"
    pretrained.write_weights(path, variables, metadata)
    return path


def convert(path: Path, out: Path, name: str | None = None) -> Report:
    """Convert a checkpoint into a folder; without `name` keys and shapes decide.

    Raise UserError, and write nothing, unless every tensor of the network is valid.
    """
    tensors, notes = read_checkpoint(path)
    name = name or recognise(tensors)
    variables, rows = fit(tensors, name, f"{path} (as {name}; --name changes this)")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    left = [row.key for row in rows if not row.path]
    about = {"name": name, "source": path.name, "sha256": digest, "left": left}
    return Report(name, rows, notes, write_new(out, name, variables, about))
