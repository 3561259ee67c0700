"""The two-stream OSNet: the first stages one copy per modality, the rest shared."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vireid_jax.models.heads import IdentityHead, l2_normalise
from vireid_jax.models.osnet import STAGES, Trunk
from vireid_jax.models.part_relations import PartRelations
from vireid_jax.models.self_distillation import Student
from vireid_jax.models.views import Views, check_images, columns_by_modality


class TwoStreamOSNet(nn.Module):
    """Embed person images of both modalities into one space.

    `num_specific_stages` = k: the first k of conv1..conv5 have a copy per modality
    (k = 0: one network; 5: two). `separate_norm`: shared stages share convolutions but
    not batch norms. `zero_init_residual`: a block starts as its shortcut.
    `rematerialise`: compute blocks twice, for less memory. Source: Zhang & Zeng 2024
    for the idea, the sweep of Liu et al. (arXiv 2008.06223) for k, CM-NAS for
    `separate_norm`.
    """

    channels: tuple[int, int, int, int]
    num_classes: int | None = None
    num_specific_stages: int = 1
    separate_norm: bool = False
    neck_norm: str = "shared"
    num_stripes: int = 0
    students: tuple[str, ...] = ()
    granularities: tuple[int, ...] = ()
    relation: str = "one_vs_rest"
    zero_init_residual: bool = True
    variant: str = "base"
    dtype: str = "float32"
    rematerialise: bool = False

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch views H W 3"],
        views: Views,
        train: bool = False,
    ) -> tuple[Float[Array, "batch views D"], dict[str, Array]]:
        """Return L2-normalised embeddings, and the arrays they are made from, by name.

        `views` names the modality of each column of `images`, visible ones first, for
        instance `("visible", "infrared")`; an image always goes through its own
        modality's stream. Names in the second result: the stages' maps
        `[batch, views, h, w, c]`, `pooled`, `neck`, and in training `logits`; with
        granularities the same of all parts, as `parts/pooled` `[batch, views, parts,
        d]`; in training the same of each of the `students`, as `conv2/pooled`.
        The embedding is `neck`, with `parts/neck` appended.
        """
        check_images(images, views)
        batch = images.shape[0]
        split = lambda x: x.reshape(batch, -1, *x.shape[1:])
        merge = lambda x: x.reshape(-1, *x.shape[2:])
        images = images.astype(self.dtype)

        make_trunk = functools.partial(
            Trunk,
            self.channels,
            zero_init_residual=self.zero_init_residual,
            variant=self.variant,
            rematerialise=self.rematerialise,
        )
        specific = STAGES[: self.num_specific_stages]
        shared = STAGES[self.num_specific_stages :]
        maps = {}
        if specific:
            streams = []
            for modality, columns in columns_by_modality(views).items():
                trunk = make_trunk(specific, name=modality)
                streams.append(trunk(merge(images[:, columns]), None, train))
            for name in specific:
                parts = [split(stream[name]) for stream in streams]
                maps[name] = jnp.concatenate(parts, axis=1)
        last = merge(maps[specific[-1]] if specific else images)
        if shared:
            norm_views = views if self.separate_norm else None
            shared_maps = make_trunk(shared, name="shared")(last, norm_views, train)
            maps |= {name: split(x) for name, x in shared_maps.items()}
            last = shared_maps[shared[-1]]

        head = self.neck_norm, self.num_stripes
        out = IdentityHead(self.num_classes, *head, name="head")(last, views, train)
        if train or self.is_initializing():
            for name in self.students:
                size = self.channels[-1], last.shape[1]
                student = Student(
                    self.num_classes, *size, *head, name=f"student_{name}"
                )
                taught = student(merge(maps[name]), views, train)
                out |= {f"{name}/{key}": x for key, x in taught.items()}
        embedding = out["neck"]
        if self.granularities:
            options = self.num_classes, self.relation, self.neck_norm
            relations = PartRelations(self.granularities, *options, name="parts")
            parts = relations(last, views, train)
            out |= {f"parts/{key}": x for key, x in parts.items()}
            flat = parts["neck"].reshape(embedding.shape[0], -1)
            embedding = jnp.concatenate([embedding, flat], axis=1)
        out = maps | {name: split(x) for name, x in out.items()}
        return l2_normalise(split(embedding)), out
