"""`walkers`: procedural people in visible light and in the infrared."""

import dataclasses
import hashlib
import io
import json

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from vireid_jax import synthetic
from vireid_jax.modality import MODALITIES
from vireid_jax.run.console import track
from vireid_jax.run.errors import UserError


@dataclasses.dataclass
class WalkersConfig(tfds.core.BuilderConfig):
    """The people of a set, and how hard their world is.

    Train identities are `first_identity` and the following; test identities come
    directly after them, so the two are disjoint. Identities of the same seed,
    difficulty and knobs belong to one world, whatever the set.
    """

    variant: str = "thermal"
    train_ids: int = 500
    test_ids: int = 200
    images_per_modality: int = 10
    first_identity: int = 0
    height: int = 128
    width: int = 64
    difficulty: str = "easy"
    knobs: tuple[tuple[str, float], ...] = ()
    """Overrides of the preset, as (name, value)."""
    seed: int = 0

    def specs(self, split: str) -> list[synthetic.Spec]:
        """List the images of a split."""
        first, count = self.first_identity, self.train_ids
        if split == "test":
            first, count = first + self.train_ids, self.test_ids
        identities = range(first, first + count)
        return synthetic.plan(self.variant, identities, self.images_per_modality)


_LOWEST = {
    "train_ids": 1, "test_ids": 1, "images_per_modality": 1, "first_identity": 0,
    "height": 32, "width": 16, "seed": 0,
}  # fmt: skip


def make_config(
    variant: str = "thermal",
    *,
    train_ids: int = 500,
    test_ids: int = 200,
    images_per_modality: int = 10,
    first_identity: int = 0,
    height: int = 128,
    width: int = 64,
    difficulty: str = "easy",
    seed: int = 0,
    **knobs: float,
) -> WalkersConfig:
    """Return a config under a readable name that no other combination has.

    Args:
      variant: "thermal" (one visible, one thermal camera) or "nir" (four visible,
        two near-infrared cameras).
      train_ids: identities of the split `train`.
      test_ids: identities of the split `test`, directly after those.
      images_per_modality: images of each identity in each modality.
      first_identity: the first training identity.
      height: image height in pixels.
      width: image width in pixels.
      difficulty: the preset: "easy", "mid" or "hard".
      seed: the world.
      **knobs: replace single knobs of the preset, see `vireid_jax.synthetic.Knobs`.

    Raises:
      UserError: for a value out of range, with the valid values.
    """
    values = {
        "variant": variant, "train_ids": train_ids, "test_ids": test_ids,
        "images_per_modality": images_per_modality, "first_identity": first_identity,
        "height": height, "width": width, "difficulty": difficulty, "seed": seed,
    }  # fmt: skip
    if variant not in synthetic.CAMERAS:
        raise UserError(
            f"variant is {variant!r}; valid values: {', '.join(synthetic.CAMERAS)}"
        )
    for name, low in _LOWEST.items():
        if isinstance(values[name], bool) or not isinstance(values[name], int):
            raise UserError(f"{name} is {values[name]!r}; give a whole number")
        if values[name] < low:
            raise UserError(f"{name} is {values[name]}; give at least {low}")
    if width > 2 * height:
        raise UserError(
            f"width is {width}; give at most twice the height, {2 * height}"
        )
    synthetic.preset(difficulty, **knobs)
    values["knobs"] = tuple(sorted((name, float(knobs[name])) for name in knobs))
    everything = json.dumps(values, sort_keys=True).encode()
    digest = hashlib.sha256(everything).hexdigest()[:8]
    name = f"{variant}_{train_ids}+{test_ids}x{images_per_modality}"
    name += f"_{height}x{width}_{difficulty}_{digest}"
    return WalkersConfig(name=name, **values)


def _ready(variant: str) -> WalkersConfig:
    """Return the default set of a variant, under the variant's bare name."""
    return dataclasses.replace(make_config(variant), name=variant)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Build `walkers` without TensorFlow: pass `file_format="array_record"`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS's own form)
    BUILDER_CONFIGS = [_ready("thermal"), _ready("nir")]  # noqa: RUF012
    pkg_dir_path = epath.Path(__file__).parent

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        shape = (config.height, config.width, 3)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format="jpeg"),
                    "identity": np.int64,
                    "camera": np.int64,
                    "modality": tfds.features.ClassLabel(names=list(MODALITIES)),
                    "filename": tfds.features.Text(),
                    "silhouette": tfds.features.Image(
                        shape=(32, 16, 1), encoding_format="png"
                    ),
                }
            ),
            homepage="https://github.com/vireid-jax/vireid_jax",
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded: the people are drawn here
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str):
        config = self.builder_config
        specs = config.specs(split)
        made = synthetic.generate(
            specs,
            seed=config.seed,
            size=(config.height, config.width),
            knobs=synthetic.preset(config.difficulty, **dict(config.knobs)),
        )
        title = f"drawing walkers ({split})"
        for spec, data, silhouette in track(made, title, len(specs)):
            yield (
                spec.filename,
                {
                    "image": io.BytesIO(data),
                    "identity": spec.identity,
                    "camera": spec.camera,
                    "modality": spec.modality,
                    "filename": spec.filename,
                    "silhouette": io.BytesIO(
                        cv2.imencode(".png", silhouette)[1].tobytes()
                    ),
                },
            )
