"""From images to embeddings, with a trained network and nothing else around it.

embedder = vireid_jax.load("runs/demo")
seen = embedder.embed(["day/1.jpg", "day/2.png"], "visible")
wanted = embedder.embed(["night/7.tiff"], "infrared")
places, cosines = embedder.rank(wanted, seen)
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Float32, Int32
from ml_collections import ConfigDict
from PIL import Image

from vireid_jax.config import with_defaults
from vireid_jax.data.any_image import Images, OneImage
from vireid_jax.data.pipeline import eval_batches, file_batches
from vireid_jax.data.source import Records
from vireid_jax.modality import MODALITIES
from vireid_jax.models.build import create_model, feature_of
from vireid_jax.models.precision import EXACT
from vireid_jax.run import processes
from vireid_jax.run.errors import UserError
from vireid_jax.run.runtime import keep_compiled
from vireid_jax.training.checkpoint import FOLDER, Checkpoints
from vireid_jax.training.sharding import (
    batch_sharding,
    check_divides,
    make_mesh,
    own_rows,
    place_batch,
    replicated,
)
from vireid_jax.training.step import make_embed_step
from vireid_jax.weights.pretrained import read_file

PIXELS_AT_ONCE = 2**18  # on a CPU: 8 images of 256x128; more leave its cache (measured)
_QUERIES = 256  # ranked at a time: their cosines to a million images are a gigabyte


class Embedded(NamedTuple):
    """A batch of images that came through, and why others did not."""

    places: list[int]  # of the rows, among the images that were given
    embeddings: Float32[np.ndarray, "rows dim"]
    unreadable: dict[int, str]  # by place


class Ranked(NamedTuple):
    """The nearest gallery rows of each query, nearest first."""

    places: Int32[np.ndarray, "queries top"]
    cosines: Float32[np.ndarray, "queries top"]


class Embedder:
    """Embeds person images; each image goes through its own modality's stream."""

    def __init__(
        self,
        model: nn.Module,
        variables: dict[str, Any],
        *,
        size: tuple[int, int],
        flip: bool = True,
        batch_size: int = 64,
        feature: str = "global",
        modalities: Iterable[str] = MODALITIES,
        about: dict[str, Any] | None = None,
    ):
        """Takes a network and its variables; `size` is the (height, width) it wants.

        Images are embedded `batch_size` at a time, the last batch padded, so that only
        one shape a modality is ever compiled. `feature` is "all", or "global" without
        the parts. `modalities` are those that it was trained on.
        """
        self.model, self.variables = model, variables
        self.size, self.flip, self.batch_size = size, flip, batch_size
        self.feature, self.modalities = feature, tuple(modalities)
        self.about = about or {}
        self._mesh = make_mesh()
        check_divides(batch_size, self._mesh, "config.eval.batch_size")
        # The maps of a few images stay in a CPU's cache; others want all at once.
        alone_on_cpu = self._mesh.size == 1 and jax.default_backend() == "cpu"
        at_once = images_at_once(self.size, batch_size) if alone_on_cpu else 0
        self._steps = {
            modality: jax.jit(
                make_embed_step(
                    model, modality, flip=flip, feature=feature, at_once=at_once
                ),
                in_shardings=(replicated(self._mesh), batch_sharding(self._mesh)),
                out_shardings=batch_sharding(self._mesh),
            )
            for modality in MODALITIES
        }

    def embed(
        self, images: Images | OneImage, modality: str
    ) -> Float32[np.ndarray, "images dim"]:
        """Embeds images; rows are L2-normalised, in the order of `images`.

        `images` are paths, arrays and Pillow's images in any mixture, one path or one
        of Pillow's, or an array `[images, H, W, 1, 3 or 4]`;
        `vireid_jax.data.any_image` says how each becomes what the network takes. Raises
        UserError for one that cannot be, naming it, and for an unknown `modality`.
        """
        if isinstance(images, str | Path | Image.Image):
            images = [images]
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise UserError(
                f"images are an array {images.shape}; give [images, height, width,"
                " channels], or a list of [height, width, channels]"
            )
        found = [np.zeros((0, self.dim), np.float32)] if not len(images) else []
        for batch in self.embed_stream(images, modality):
            for reason in batch.unreadable.values():
                raise UserError(reason)
            found.append(batch.embeddings)
        return np.concatenate(found)

    def embed_stream(
        self, images: Images, modality: str, threads: int = 2
    ) -> Iterator[Embedded]:
        """Yields the embeddings of a batch of images after another, in order.

        `threads` read the next ones meanwhile. What cannot be read is left out, and
        told; else it is as `embed`.
        """
        if modality not in MODALITIES:
            raise UserError(f"modality is {modality!r}; legal are {list(MODALITIES)}")
        if modality not in self.modalities:
            raise UserError(
                f"this network has not seen {modality} images: it was trained on"
                f" {' and '.join(self.modalities)} ones alone, as a start for others."
                " Train from it: python -m vireid_jax.main --config CONFIG"
                " --config.init_from=WORKDIR"
            )
        for batch in file_batches(
            images, size=self.size, batch_size=self.batch_size, threads=threads
        ):
            embeddings = self._run(modality, batch["image"])
            places = batch["indices"]
            rows = np.asarray(embeddings, np.float32)[: len(places)]
            yield Embedded(places, rows, batch["errors"])

    def _run(self, modality: str, images: Any) -> jax.Array:
        """Embeds a whole batch on the device."""
        try:
            return self._steps[modality](self.variables, images)
        except flax.errors.FlaxError as error:  # while it is traced: an array lacks
            what = str(error).partition(" (https:")[0]
            raise UserError(
                f"the variables are not those of this network: {what} Load a checkpoint"
                " of this version, or train anew"
            ) from error

    @functools.cached_property
    def dim(self) -> int:
        """Counts the numbers of an embedding."""
        images = jax.ShapeDtypeStruct((self.batch_size, *self.size, 3), np.uint8)
        run = functools.partial(self._run, MODALITIES[0])
        return jax.eval_shape(run, images).shape[1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hashes the weights and all else that decides an embedding (hex)."""
        rest = (self.model, self.size, self.flip, self.feature)
        sha = hashlib.sha256(repr(rest).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            sha.update(jax.tree_util.keystr(path).encode())
            sha.update(np.asarray(jax.device_get(leaf)).tobytes())
        return sha.hexdigest()

    def rank(
        self,
        query: Float32[np.ndarray, "..."],
        gallery: Float32[np.ndarray, "..."],
        top: int = 10,
    ) -> Ranked:
        """Finds the `top` gallery rows with the highest cosine to each query.

        `query` is `[queries, dim]`, `gallery` `[rows, dim]`. Of equal ones the earlier
        row is first; a gallery of fewer gives all. Raises UserError for embeddings of
        another shape, such as another network's dimension.
        """
        for name, features in {"query": query, "gallery": gallery}.items():
            if features.ndim != 2:
                raise UserError(
                    f"{name} has the shape {features.shape}; give [rows, {self.dim}]"
                )
            if features.shape[1] != self.dim:
                raise UserError(
                    f"{name} has embeddings of {features.shape[1]} numbers, this"
                    f" network's have {self.dim}; embed both with one checkpoint"
                )
        return nearest(query, gallery, top)

    def embed_records(
        self, records: Records, threads: int = 2
    ) -> Float32[np.ndarray, "rows dim"]:
        """Embeds every row of a split, in its order, each exactly once.

        Each process embeds its share of every batch; all have the whole at the end.
        """
        rows, found = [], []
        for index, modality in enumerate(MODALITIES):
            for batch in eval_batches(
                records,
                np.flatnonzero(records.modality == index),
                size=self.size,
                batch_size=self.batch_size,
                threads=threads,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            ):
                image = place_batch({"image": batch["image"]}, self._mesh)["image"]
                embeddings = self._run(modality, image)
                rows.append(batch["row"])
                found.append(own_rows(embeddings))
        rows = np.concatenate(processes.gather(np.concatenate(rows)))
        found = np.concatenate(processes.gather(np.concatenate(found)))
        embeddings = np.zeros((len(records), found.shape[1]), np.float32)
        embeddings[rows[rows >= 0]] = found[rows >= 0]
        return embeddings


def nearest(
    query: Float32[np.ndarray, "queries dim"],
    gallery: Float32[np.ndarray, "gallery dim"],
    top: int,
) -> Ranked:
    """Finds the `top` gallery rows with the highest product with each query.

    Of equal ones the earlier row is first. Raises UserError unless `top` is at least 1
    and there is a gallery.
    """
    if top < 1 or not len(gallery):
        raise UserError(
            f"top is {top}, of {len(gallery)} gallery rows; both must be at least 1"
        )
    gallery = jnp.asarray(gallery)
    found = [
        jax.device_get(_nearest(query[start : start + _QUERIES], gallery, top=top))
        for start in range(0, len(query), _QUERIES)
    ]
    if not found:
        empty = np.zeros((0, min(top, len(gallery))))
        return Ranked(empty.astype(np.int32), empty.astype(np.float32))
    cosines, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Ranked(places, cosines)


@functools.partial(jax.jit, static_argnames="top")
def _nearest(query: jax.Array, gallery: jax.Array, top: int) -> tuple:
    products = jnp.matmul(query, gallery.T, precision=EXACT)
    cosines, places = jax.lax.top_k(products, min(top, len(gallery)))
    return cosines, places


def images_at_once(size: tuple[int, int], batch_size: int) -> int:
    """Returns how many images of a batch a CPU had best embed together: a divisor."""
    most = PIXELS_AT_ONCE // (size[0] * size[1])
    fits = range(max(1, min(most, batch_size)), 0, -1)
    return next(count for count in fits if batch_size % count == 0)


def load(
    path: str | Path, which: str | int = "last", feature: str | None = None
) -> Embedder:
    """Loads an embedder from a checkpoint alone: no config file, no data.

    `path` is a run's workdir, its `checkpoints` folder, or one step's folder; `which`
    is "last", "best" or a step, and a step's folder wins over it. A file that
    `python -m vireid_jax.export --format safetensors` wrote is as good. `feature` is
    "all", or "global" without the parts; None: as the run's config says. What is
    compiled is kept for the next process (`runtime.keep_compiled`). Raises UserError
    where there is no such checkpoint.
    """
    keep_compiled()
    which = int(which) if str(which).isdigit() else which
    path = Path(path).expanduser().resolve()
    if path.suffix == ".safetensors":
        return _load_file(path, feature)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give the --workdir of a training run")
    if path.name.isdigit() and path.parent.name == FOLDER:
        path, which = path.parent, int(path.name)
    checkpoints = Checkpoints(
        path.parent if path.name == FOLDER else path, read_only=True
    )
    step = checkpoints.find(which)
    about = checkpoints.about(step)
    variables = checkpoints.restore_model(step)
    checkpoints.close()
    return _embedder_of(variables, about, feature)


def _load_file(path: Path, feature: str | None) -> Embedder:
    if not path.is_file():
        raise UserError(f"there is no file {path}; give one, or a run's --workdir")
    tensors, metadata = read_file(path)
    if "about" not in metadata:
        raise UserError(
            f"{path} does not say what network it is of; give one that python -m"
            " vireid_jax.export --format safetensors wrote"
        )
    variables = unflatten_dict(tensors, sep="/")
    return _embedder_of(variables, json.loads(metadata["about"]), feature)


def _embedder_of(
    variables: dict[str, Any], about: dict[str, Any], feature: str | None
) -> Embedder:
    config = ConfigDict(with_defaults(about["config"]))
    config.eval.feature = feature or config.eval.feature
    return Embedder(
        create_model(config, about["num_classes"]),
        jax.device_put(variables, replicated(make_mesh())),
        size=tuple(config.data.size),
        flip=config.eval.flip,
        batch_size=config.eval.batch_size,
        feature=feature_of(config),
        modalities=dict.fromkeys(("visible", config.data.second_side)),
        about=about,
    )
