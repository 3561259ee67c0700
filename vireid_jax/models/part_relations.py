"""Multi-granularity information mining (MGIM): parts of a person, and their relations.

Zhang & Zeng 2024 name local features and the relationships between them; the form is
the one-vs-rest relation of Park & Ham (AAAI 2020, arXiv 1911.09318). Granularities,
sizes and the attention for comparison are our choice.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vireid_jax.models.heads import classifier_init, generalised_mean, linear, stripes
from vireid_jax.models.norm import BatchNorm, norm
from vireid_jax.models.precision import EXACT
from vireid_jax.models.views import Views

RELATIONS = ("one_vs_rest", "attention")
FEATURES = 128  # of a part


class Reducer(nn.Module):
    """Map each part's features linearly, normalise, and apply ReLU."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows parts C"], train: bool
    ) -> Float[Array, "rows parts D"]:
        """Return `relu(BN(W x))`; all parts share the kernel and the norm."""
        return nn.relu(BatchNorm(name="bn")(linear(FEATURES, "linear")(x), train))


class Attention(nn.Module):
    """Add to each part what one head finds in all parts of the same image."""

    @nn.compact
    def __call__(self, x: Float[Array, "rows parts D"]) -> Float[Array, "rows parts D"]:
        """Return `x + W softmax(Qx (Kx)^T / sqrt(D)) Vx`."""
        features = x.shape[-1]
        query, key, value = (
            linear(features, name)(x) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("npd,nqd->npq", query, key, precision=EXACT)
        weights = jax.nn.softmax(scores / features**0.5)
        attended = jnp.einsum("npq,nqd->npd", weights, value, precision=EXACT)
        return x + linear(features, "out")(attended)


class Relation(nn.Module):
    """Reduce each part and the rest of its image; add to the part what they share."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows parts C"],
        rest: Float[Array, "rows parts C"],
        train: bool,
    ) -> Float[Array, "rows parts D"]:
        """Return `x' + relu(BN(R [x'; rest']))`."""
        x, rest = Reducer(name="part")(x, train), Reducer(name="rest")(rest, train)
        both = jnp.concatenate([x, rest], axis=-1)
        return x + Reducer(name="relation")(both, train)


class PartClassifier(nn.Module):
    """Classify each part by a kernel of its own, without bias."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "rows parts C"]) -> Float[Array, "rows parts D"]:
        """Return the logits of each part."""
        shape = (*x.shape[1:], self.num_classes)
        kernel = self.param("kernel", classifier_init, shape)
        return jnp.einsum("npc,pcd->npd", x, kernel, precision=EXACT)


class Granularity(nn.Module):
    """Cut a map into `count` stripes, relate them, give each a neck and classes."""

    count: int
    num_classes: int | None
    relation: str = "one_vs_rest"
    neck_norm: str = "shared"

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows H W C"], views: Views, train: bool
    ) -> dict[str, Array]:
        """Return `pooled` and `neck` `[rows, parts, D]`, and in training `logits`.

        Raise UserError for more stripes than the map has rows.
        """
        cut = stripes(x, self.count, "granularities")
        parts = jnp.stack([generalised_mean(stripe) for stripe in cut], axis=1)
        if self.relation == "attention":
            pooled = Attention(name="attention")(Reducer(name="part")(parts, train))
        else:
            rest = (parts.sum(1, keepdims=True) - parts) / (self.count - 1)
            pooled = Relation(name="parts")(parts, rest, train)
        neck = norm(
            pooled.reshape(-1, self.count * FEATURES),
            views if self.neck_norm == "per_modality" else None,
            train,
            name="neck",
            use_bias=False,
        ).reshape(pooled.shape)
        out = {"pooled": pooled, "neck": neck}
        if self.num_classes and (train or self.is_initializing()):
            out["logits"] = PartClassifier(self.num_classes, name="classifier")(neck)
        return out


class PartRelations(nn.Module):
    """Run all granularities over one map."""

    granularities: tuple[int, ...]
    num_classes: int | None
    relation: str = "one_vs_rest"
    neck_norm: str = "shared"

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows H W C"], views: Views, train: bool
    ) -> dict[str, Array]:
        """Return `pooled` and `neck` `[rows, parts, D]`, and in training `logits`."""
        options = self.num_classes, self.relation, self.neck_norm
        outs = [
            Granularity(count, *options, name=f"parts{count}")(x, views, train)
            for count in self.granularities
        ]
        return {
            name: jnp.concatenate([out[name] for out in outs], axis=1)
            for name in outs[0]
        }
