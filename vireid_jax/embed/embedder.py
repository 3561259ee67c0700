"""Turn images into embeddings, with a trained network and nothing else.

embedder = vireid_jax.load("runs/demo")
gallery = embedder.embed(["day/1.jpg", "day/2.png"], "visible")
query = embedder.embed(["night/7.tiff"], "infrared")
indices, scores = embedder.rank(query, gallery)
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int32
from PIL import Image

from vireid_jax.config import with_defaults
from vireid_jax.data.any_image import Images, OneImage
from vireid_jax.data.pipeline import eval_batches, file_batches
from vireid_jax.data.source import Records
from vireid_jax.modality import MODALITIES
from vireid_jax.models import Network, WrongVariables
from vireid_jax.models.build import create_model, feature_of
from vireid_jax.models.precision import EXACT
from vireid_jax.run import processes
from vireid_jax.run.errors import UserError
from vireid_jax.training.checkpoint import by_path, read
from vireid_jax.training.run_info import RunInfo
from vireid_jax.training.sharding import (
    batch_sharding,
    check_divides,
    make_mesh,
    own_rows,
    place_batch,
    replicated,
)
from vireid_jax.training.step import make_embed_step

PIXELS_AT_ONCE = 2**18  # on a CPU: 8 images of 256x128; more leave its cache (measured)
_QUERIES = 256  # ranked at a time: their scores for a million images are a gigabyte


class Embedded(NamedTuple):
    """Embeddings of one batch, and errors by index."""

    indices: list[int]  # of the rows, among all images
    embeddings: Float32[np.ndarray, "rows dim"]
    errors: dict[int, str]  # by index: why an image has no row


class Ranked(NamedTuple):
    """The nearest gallery rows of each query, nearest first."""

    indices: Int32[np.ndarray, "queries top"]
    scores: Float32[np.ndarray, "queries top"]  # cosines


class Embedder:
    """Embed person images; each image goes through its own modality's stream."""

    def __init__(
        self,
        model: Network,
        variables: dict[str, Any],
        *,
        size: tuple[int, int],
        flip: bool = True,
        batch_size: int = 64,
        feature: str = "global",
        modalities: Iterable[str] = MODALITIES,
        about: RunInfo | None = None,
        mesh: Mesh | None = None,
    ):
        """Take a network and its variables; `size` is its images' (height, width).

        Images are embedded `batch_size` at a time, the last batch padded, so that each
        modality is compiled once. `feature` is "all", or "global" without the parts.
        `modalities` are those that the network was trained on. Batches are split over
        the devices of `mesh`, by default over all.
        """
        self.model, self.variables = model, variables
        self.size, self.flip, self.batch_size = size, flip, batch_size
        self.feature, self.modalities = feature, tuple(modalities)
        self.about = about or RunInfo(config={}, num_classes=0)
        self._mesh = make_mesh() if mesh is None else mesh
        check_divides(batch_size, self._mesh, "config.eval.batch_size")
        # A CPU's cache holds the maps of a few images; other devices take all at once.
        alone_on_cpu = self._mesh.size == 1 and jax.default_backend() == "cpu"
        at_once = images_at_once(self.size, batch_size) if alone_on_cpu else 0
        rows = batch_sharding(self._mesh)
        jit = functools.partial(
            jax.jit, in_shardings=(replicated(self._mesh), rows), out_shardings=rows
        )
        make_step = functools.partial(
            make_embed_step, model, flip=flip, feature=feature, at_once=at_once
        )
        self._steps = {modality: jit(make_step(modality)) for modality in MODALITIES}

    def embed(
        self, images: Images | OneImage, modality: str
    ) -> Float32[np.ndarray, "images dim"]:
        """Return L2-normalised embeddings, in the order of `images`.

        `images` are paths, arrays and Pillow images in any mixture, one path or Pillow
        image, or an array `[images, H, W, 1, 3 or 4]`; `vireid_jax.data.any_image` has
        the rules. Raise UserError for the first image that cannot be read, and for an
        unknown `modality`.
        """
        if isinstance(images, str | Path | Image.Image):
            images = [images]
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise UserError(
                f"images are {images.shape}; give [images, height, width, channels]"
            )
        rows = [np.zeros((0, self.dim), np.float32)] if not len(images) else []
        for batch in self.embed_stream(images, modality):
            for error in batch.errors.values():
                raise UserError(error)
            rows.append(batch.embeddings)
        return np.concatenate(rows)

    def embed_stream(self, images: Images, modality: str) -> Iterator[Embedded]:
        """Yield the embeddings of one batch of images after another, in order.

        Threads read the next images meanwhile. Unlike `embed`, leave out an image that
        cannot be read, and give the error.
        """
        if modality not in self.modalities:
            raise UserError(
                f"modality is {modality!r}; valid values, because this network was"
                f" trained on them: {list(self.modalities)}. To train it on others:"
                " python -m vireid_jax.main --config CONFIG --config.init_from=WORKDIR"
            )
        batches = file_batches(images, size=self.size, batch_size=self.batch_size)
        for batch, embeddings in self._embed_ahead(batches, modality):
            rows = np.asarray(embeddings, np.float32)[: len(batch["indices"])]
            yield Embedded(batch["indices"], rows, batch["errors"])

    def _embed_ahead(
        self, batches: Iterable[dict[str, Any]], modality: str
    ) -> Iterator[tuple[dict[str, Any], jax.Array]]:
        """Yield each batch and its embeddings, when the next is already dispatched."""
        previous = None
        for batch in batches:
            dispatched = batch, self._run(modality, batch["image"])
            if previous:
                yield previous
            previous = dispatched
        if previous:
            yield previous

    def _run(self, modality: str, images: Any) -> jax.Array:
        """Embed one batch on the device."""
        try:
            return self._steps[modality](self.variables, images)
        except WrongVariables as error:  # while tracing: an array is missing
            reason = str(error).partition(" (https:")[0]
            raise UserError(
                f"the variables are not those of this network: {reason} Load a"
                " checkpoint of this version, or train again"
            ) from error

    @functools.cached_property
    def dim(self) -> int:
        """Return the length of an embedding."""
        images = jax.ShapeDtypeStruct((self.batch_size, *self.size, 3), np.uint8)
        run = functools.partial(self._run, MODALITIES[0])
        return jax.eval_shape(run, images).shape[1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Return a hash of the weights and all else that decides an embedding (hex).

        Not of the network's class: versions that embed alike have equal fingerprints.
        """
        dtype = getattr(self.model, "dtype", "float32")
        options = (self.size, self.flip, self.feature, dtype)
        sha = hashlib.sha256(repr(options).encode())
        for path, leaf in by_path(self.variables).items():
            sha.update(path.encode())
            sha.update(np.asarray(leaf).tobytes())
        return sha.hexdigest()

    def rank(
        self,
        query: Float32[np.ndarray, "..."],
        gallery: Float32[np.ndarray, "..."],
        top: int = 10,
    ) -> Ranked:
        """Return the `top` gallery rows with the highest cosine to each query.

        `query` is `[queries, dim]`, `gallery` `[rows, dim]`. Of equal rows the earlier
        is first; a gallery of fewer rows gives all. Raise UserError for embeddings of
        another shape, such as another network's dimension.
        """
        for name, features in {"query": query, "gallery": gallery}.items():
            if features.ndim != 2 or features.shape[1] != self.dim:
                raise UserError(
                    f"{name} has the shape {features.shape}; give [rows, {self.dim}],"
                    " and embed both with one checkpoint"
                )
        return nearest(query, gallery, top)

    def embed_records(self, records: Records) -> Float32[np.ndarray, "rows dim"]:
        """Embed every row of a split, in its order, each exactly once.

        Each process embeds its share of every batch; all return the complete array.
        """
        rows, parts = [], []
        for index, modality in enumerate(MODALITIES):
            batches = eval_batches(
                records,
                np.flatnonzero(records.modality == index),
                size=self.size,
                batch_size=self.batch_size,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
            )
            placed = (
                batch | place_batch({"image": batch["image"]}, self._mesh)
                for batch in batches
            )
            for batch, embeddings in self._embed_ahead(placed, modality):
                rows.append(batch["row"])
                parts.append(own_rows(embeddings))
        row = np.concatenate(processes.gather(np.concatenate(rows)))
        values = np.concatenate(processes.gather(np.concatenate(parts)))
        ordered = np.zeros((len(records), values.shape[1]), np.float32)
        ordered[row[row >= 0]] = values[row >= 0]  # -1: padding
        return ordered


def nearest(
    query: Float32[np.ndarray, "queries dim"],
    gallery: Float32[np.ndarray, "gallery dim"],
    top: int,
) -> Ranked:
    """Return the `top` gallery rows with the highest product with each query.

    Of equal rows the earlier is first. Raise UserError unless `top` and the length of
    the gallery are at least 1.
    """
    if top < 1 or not len(gallery):
        raise UserError(f"top is {top} of {len(gallery)} rows; both must be at least 1")
    gallery = jnp.asarray(gallery)
    starts = range(0, max(1, len(query)), _QUERIES)
    blocks = (query[start : start + _QUERIES] for start in starts)
    parts = [jax.device_get(_nearest(block, gallery, top=top)) for block in blocks]
    scores, indices = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Ranked(indices, scores)


@functools.partial(jax.jit, static_argnames="top")
def _nearest(query: jax.Array, gallery: jax.Array, top: int) -> Sequence[jax.Array]:
    products = jnp.matmul(query, gallery.T, precision=EXACT)
    return jax.lax.top_k(products, min(top, len(gallery)))


def images_at_once(size: tuple[int, int], batch_size: int) -> int:
    """Return how many images of a batch a CPU embeds fastest together: a divisor."""
    most = max(1, min(PIXELS_AT_ONCE // (size[0] * size[1]), batch_size))
    return next(count for count in range(most, 0, -1) if batch_size % count == 0)


def load(
    path: str | Path, which: str | int = "last", feature: str | None = None
) -> Embedder:
    """Make an embedder from a checkpoint alone: no config file, no data.

    `path` is a run's workdir, its `checkpoints` folder, or one step's folder; `which`
    is "last", "best" or a step. A file of `python -m vireid_jax.export --format
    safetensors` serves as well. `feature` is "all", or "global" without the parts;
    None: as the run's config has it. Raise UserError where there is no such checkpoint.
    """
    variables, about = read(path, which)
    config = with_defaults(about.config)
    config.eval.feature = feature or config.eval.feature
    mesh = make_mesh()
    return Embedder(
        create_model(config, about.num_classes),
        jax.device_put(variables, replicated(mesh)),
        size=tuple(config.data.size),
        flip=config.eval.flip,
        batch_size=config.eval.batch_size,
        feature=feature_of(config),
        modalities=dict.fromkeys(("visible", config.data.second_side)),
        about=about,
        mesh=mesh,
    )
