"""The two-stream OSNet: the first stages one copy per modality, the rest shared."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vireid_jax.modality import Views, columns_by_modality
from vireid_jax.models.heads import IdentityHead, l2_normalise
from vireid_jax.models.osnet import STAGES, Trunk


class TwoStreamOSNet(nn.Module):
    """Embeds person images of both modalities into one space.

    `num_specific_stages` = k: the first k of conv1..conv5 have a copy per modality
    (k = 0: one network; 5: two). `separate_norm`: in shared stages convolutions are
    shared and batch norms are not. Source: Zhang & Zeng 2024 for the idea, the sweep of
    Liu et al. (arXiv 2008.06223) for k, CM-NAS for `separate_norm`.
    """

    channels: tuple[int, int, int, int]
    num_classes: int | None = None
    num_specific_stages: int = 1
    separate_norm: bool = False
    neck_norm: str = "shared"
    num_stripes: int = 0
    zero_init_residual: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch views H W 3"],
        views: Views,
        train: bool = False,
    ) -> tuple[Float[Array, "batch views D"], dict[str, Array]]:
        """Returns L2-normalised embeddings, and what they were made from, by name.

        `views` names the modality of each column of `images`, visible ones first, for
        instance `("visible", "infrared")`; an image always goes through its own
        modality's stream. Names in the second result: the stages' maps
        `[batch, views, h, w, c]`, `pooled`, `neck`, and in training `logits`.
        """
        batch = images.shape[0]
        split = lambda x: x.reshape(batch, -1, *x.shape[1:])
        merge = lambda x: x.reshape(-1, *x.shape[2:])
        images = images.astype(self.dtype)

        specific = STAGES[: self.num_specific_stages]
        shared = STAGES[self.num_specific_stages :]
        maps = {}
        if specific:
            streams = []
            for modality, columns in columns_by_modality(views).items():
                trunk = self._trunk(specific, per_modality=False, name=modality)
                rows = merge(images[:, columns])
                streams.append(trunk(rows, views[columns], train))
            for name in specific:
                parts = [split(stream[name]) for stream in streams]
                maps[name] = jnp.concatenate(parts, axis=1)
        last = merge(maps[specific[-1]] if specific else images)
        if shared:
            trunk = self._trunk(shared, self.separate_norm, name="shared")
            found = trunk(last, views, train)
            maps |= {name: split(x) for name, x in found.items()}
            last = found[shared[-1]]

        head = IdentityHead(
            self.num_classes, self.neck_norm, self.num_stripes, name="head"
        )
        out = {name: split(x) for name, x in head(last, views, train).items()}
        return l2_normalise(out["neck"]), maps | out

    def _trunk(self, stages: tuple[str, ...], per_modality: bool, name: str) -> Trunk:
        return Trunk(
            self.channels, stages, per_modality, self.zero_init_residual, name=name
        )
