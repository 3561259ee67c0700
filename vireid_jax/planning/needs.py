"""What a run needs before anything is compiled: people, images, parameters, input."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from vireid_jax.run.errors import UserError
from vireid_jax.training.program import is_pretraining, pairs_per_step
from vireid_jax.training.state import TrainState

Config = ConfigDict | FrozenConfigDict


@dataclass(frozen=True)
class TrainingSet:
    """Counts of a training set, and how they are known."""

    identities: int
    visible: int  # images
    infrared: int
    known: str  # "prepared", "published" or "planned"

    @property
    def rows(self) -> tuple[int, int]:
        """Returns the images of each modality."""
        return self.visible, self.infrared

    def without(self, identities: int) -> "TrainingSet":
        """Holds identities out, and their share of the images."""
        rest = self.identities - identities
        share = lambda images: round(images * rest / self.identities)
        return TrainingSet(rest, share(self.visible), share(self.infrared), self.known)


# Where the releases' counts are from: docs/protocols.md.
PUBLISHED = {
    "sysu_mm01": TrainingSet(395, 22_258, 11_909, "published"),
    "regdb": TrainingSet(206, 2_060, 2_060, "published"),
    "llcm": TrainingSet(713, 16_946, 13_975, "published"),
}


def training_set(config: Config) -> TrainingSet:
    """Counts the config's training set, held-out identities left out.

    A prepared set is read; nothing is prepared. Raises UserError for a set that is
    neither prepared nor of known size, and as its builder does.
    """
    from vireid_jax.data.builders import find_builder
    from vireid_jax.data.source import load_records, split_identities
    from vireid_jax.run.runtime import only_errors

    c = config.data
    variant = c.options.to_dict() if c.options else c.variant or None
    with only_errors():
        builder = find_builder(c.name, variant, c.dir or None)
    if Path(builder.data_path).exists():
        records = load_records(c.name, "train", config=variant, data_dir=c.dir or None)
        if held_out := c.validation_identities:
            records, _ = split_identities(records, held_out, config.seed)
        sides = [len(records.of(side)) for side in ("visible", "infrared")]
        return TrainingSet(records.num_identities, *sides, "prepared")
    if c.name == "walkers":
        made = builder.builder_config
        each = made.train_ids * made.images_per_modality
        found = TrainingSet(made.train_ids, each, each, "planned")
    elif c.name in PUBLISHED:
        found = PUBLISHED[c.name]
    else:
        raise UserError(
            f"config.data.name is {c.name!r}, whose size nobody knows before it is"
            " prepared: python -m vireid_jax.prepare"
        )
    if not c.validation_identities < found.identities:
        raise UserError(
            f"config.data.validation_identities is {c.validation_identities}; there are"
            f" {found.identities} identities"
        )
    return found.without(c.validation_identities)


@dataclass(frozen=True)
class Needs:
    """What a run holds and moves, whatever the chips; bytes unless it says count."""

    parameters: int  # count
    parameter_bytes: int
    statistics_bytes: int  # running means and variances
    optimizer_bytes: int
    images_per_step: int  # count, read from the data set: 2 P K
    views_per_step: int  # count, that pass the network
    batch_bytes: int  # of a step, from the hosts to all devices
    cache: str
    cached_bytes: int  # the whole decoded training set, on each host or each device


def needs_of(config: Config, data: TrainingSet, arguments: tuple[Any, ...]) -> Needs:
    """Adds up the arguments of a step, as `program.step_arguments` gives them."""
    state, batch = arguments[:2]
    pairs, cache = pairs_per_step(config), config.data.cache
    rows = data.visible + (0 if is_pretraining(config) else data.infrared)
    image = math.prod(config.data.size) * 3
    return Needs(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        parameter_bytes=bytes_of(state.params),
        statistics_bytes=bytes_of(state.batch_stats),
        optimizer_bytes=bytes_of(state.opt_state),
        images_per_step=2 * pairs,
        views_per_step=(3 if config.augment.third_view else 2) * pairs,
        batch_bytes=bytes_of(batch),
        cache=cache,
        cached_bytes=0 if cache == "none" else rows * image,
    )


def cached_rows(config: Config, data: TrainingSet) -> tuple[int, int]:
    """Returns the images of each modality that lie on every device."""
    return data.rows if config.data.cache == "device" else (0, 0)


def bytes_of(tree: TrainState | Iterable[Any] | Any) -> int:
    """Adds up the bytes of a tree's arrays, or of their shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in leaves)
