"""From images to embeddings, with a trained network and nothing else around it."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax import models, processes
from vireid_jax.checkpoint import FOLDER, Checkpoints, abstract
from vireid_jax.config import with_defaults
from vireid_jax.data.pipeline import eval_batches
from vireid_jax.data.source import Records
from vireid_jax.modality import MODALITIES
from vireid_jax.sharding import (
    check_divides,
    make_mesh,
    over_batch,
    own_rows,
    place_batch,
    replicated,
)
from vireid_jax.step import make_embed_step

PIXELS_AT_ONCE = 2**18  # on a CPU: 8 images of 256x128; more leave its cache (measured)


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
        about: dict[str, Any] | None = None,
    ):
        """Takes a network and its variables; `size` is the (height, width) it wants.

        Images are embedded `batch_size` at a time, the last batch padded, so that only
        one shape a modality is ever compiled. `feature` is "all", or "global" without
        the parts.
        """
        self.variables = variables
        self.size, self.flip, self.batch_size = size, flip, batch_size
        self.feature = feature
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
                in_shardings=(replicated(self._mesh), over_batch(self._mesh)),
                out_shardings=over_batch(self._mesh),
            )
            for modality in MODALITIES
        }

    def embed(
        self, images: UInt8[np.ndarray, "images H W 3"], modality: str
    ) -> Float32[np.ndarray, "images dim"]:
        """Embeds RGB images of the network's size; rows are L2-normalised."""
        if modality not in MODALITIES:
            raise ValueError(f"modality is {modality!r}; legal are {list(MODALITIES)}")
        if images.shape[1:] != (*self.size, 3) or images.dtype != np.uint8:
            raise ValueError(
                f"images are {images.dtype} {images.shape}; the network takes uint8"
                f" [images, {self.size[0]}, {self.size[1]}, 3]"
            )
        found = []
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            padded = np.zeros((self.batch_size, *images.shape[1:]), np.uint8)
            padded[: len(chunk)] = chunk
            embeddings = self._steps[modality](self.variables, padded)
            found.append(np.asarray(embeddings, np.float32)[: len(chunk)])
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

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
                embeddings = self._steps[modality](self.variables, image)
                rows.append(batch["row"])
                found.append(own_rows(embeddings))
        rows = np.concatenate(processes.gather(np.concatenate(rows)))
        found = np.concatenate(processes.gather(np.concatenate(found)))
        embeddings = np.zeros((len(records), found.shape[1]), np.float32)
        embeddings[rows[rows >= 0]] = found[rows >= 0]
        return embeddings


def images_at_once(size: tuple[int, int], batch_size: int) -> int:
    """Returns how many images of a batch a CPU had best embed together: a divisor."""
    most = PIXELS_AT_ONCE // (size[0] * size[1])
    fits = range(max(1, min(most, batch_size)), 0, -1)
    return next(count for count in fits if batch_size % count == 0)


def create_model(config: ConfigDict | FrozenConfigDict, num_classes: int) -> nn.Module:
    """Creates the network that `config.model` describes."""
    c = config.model
    return models.create(
        c.name,
        num_classes=num_classes,
        num_specific_stages=c.num_specific_stages,
        separate_norm=c.separate_norm,
        neck_norm=c.neck_norm,
        num_stripes=c.num_stripes,
        distillation=c.distillation,
        granularities=tuple(c.granularities),
        part_width=c.part_width,
        relation=c.relation,
        contrastive=c.contrastive,
        zero_init_residual=c.zero_init_residual,
        dtype=c.dtype,
        rematerialise=c.rematerialise,
    )


def feature_of(config: ConfigDict | FrozenConfigDict) -> str:
    """Names what the config tests by: "all", or "global" where there are no parts."""
    return config.eval.feature if config.model.granularities else "global"


def init_variables(model: nn.Module, key: jax.Array) -> dict[str, Any]:
    """Draws a network's variables; under `jax.eval_shape` only their shapes.

    Variables do not depend on the images' size, so a small one serves, as tall as any
    number of stripes in use asks for.
    """
    images = jnp.zeros((1, len(MODALITIES), 256, 32, 3))
    return dict(model.init(key, images, MODALITIES, train=True))


def load(path: str | Path, which: str | int = "last") -> Embedder:
    """Loads an embedder from a checkpoint alone: no config file, no data.

    `path` is a run's workdir, its `checkpoints` folder, or one step's folder; `which`
    is "last", "best" or a step, and a step's folder wins over it. Raises ValueError
    where there is no such checkpoint.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_dir():
        raise ValueError(
            f"{path} is not a folder; give the --workdir of a training run"
        )
    if path.name.isdigit() and path.parent.name == FOLDER:
        path, which = path.parent, int(path.name)
    checkpoints = Checkpoints(
        path.parent if path.name == FOLDER else path, read_only=True
    )
    step = checkpoints.find(which)
    about = checkpoints.about(step)
    config = with_defaults(about["config"])
    model = create_model(config, about["num_classes"])
    shapes = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    target = abstract(shapes, replicated(make_mesh()))
    variables = checkpoints.restore_model(step, target)
    checkpoints.close()
    return Embedder(
        model,
        variables,
        size=tuple(config.data.size),
        flip=config.eval.flip,
        batch_size=config.eval.batch_size,
        feature=feature_of(config),
        about=about,
    )
