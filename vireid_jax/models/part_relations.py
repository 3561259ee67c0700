"""Multi-granularity information mining (MGIM): parts of a person, and their relations.

Zhang & Zeng 2024 name local features and the relationships between them; the form is
the one-vs-rest relation of Park & Ham (AAAI 2020, arXiv 1911.09318). Granularities,
sizes and the attention for comparison are our choice.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vireid_jax.models.heads import classifier_init, generalised_mean, stripes
from vireid_jax.models.norm import BatchNorm, norm
from vireid_jax.models.precision import EXACT, widen
from vireid_jax.models.views import Views

RELATIONS = ("one_vs_rest", "attention")
PART_WIDTHS = {"lite": 128, "full": 256}  # features a part; "full" shares no weights


class PartLinear(nn.Module):
    """Maps each part's features linearly, all with one kernel or each with its own."""

    features: int
    own: bool = False
    init: nn.initializers.Initializer = nn.initializers.normal(0.01)

    @nn.compact
    def __call__(self, x: Float[Array, "rows parts C"]) -> Float[Array, "rows parts D"]:
        """Multiplies, without a bias."""
        shape = (x.shape[-1], self.features)
        if not self.own:
            kernel = self.param("kernel", self.init, shape)
            return jnp.matmul(x, kernel, precision=EXACT)
        kernel = self.param("kernel", self.init, (x.shape[1], *shape))
        return jnp.einsum("npc,pcd->npd", x, kernel, precision=EXACT)


class Reducer(nn.Module):
    """Maps each part's features linearly, normalises, and applies ReLU."""

    features: int
    own: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows parts C"], train: bool
    ) -> Float[Array, "rows parts D"]:
        """Returns `relu(BN(W x))`; the norm is shared as the kernel is."""
        x = PartLinear(self.features, self.own, name="linear")(x)
        rows, parts, features = x.shape
        shape = (rows, parts * features) if self.own else x.shape
        x = BatchNorm(name="bn")(x.reshape(shape), train)
        return nn.relu(x).reshape(rows, parts, features)


class Attention(nn.Module):
    """Adds to each part what it finds in all parts of its image, by one head."""

    own: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "rows parts D"]) -> Float[Array, "rows parts D"]:
        """Returns `x + W softmax(Qx (Kx)^T / sqrt(D)) Vx`."""
        linear = lambda name: PartLinear(x.shape[-1], self.own, name=name)
        query, key, value = linear("query")(x), linear("key")(x), linear("value")(x)
        scores = jnp.einsum("npd,nqd->npq", query, key, precision=EXACT)
        weights = jax.nn.softmax(scores / x.shape[-1] ** 0.5)
        found = jnp.einsum("npq,nqd->npd", weights, value, precision=EXACT)
        return x + linear("out")(found)


class Relation(nn.Module):
    """Reduces a feature and its counterpart; adds to the first what the two share."""

    features: int
    own: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows parts C"],
        other: Float[Array, "rows parts C"],
        train: bool,
    ) -> Float[Array, "rows parts D"]:
        """Returns `x' + relu(BN(R [x'; other']))`."""
        reducer = lambda name: Reducer(self.features, self.own, name=name)
        x, other = reducer("part")(x, train), reducer("rest")(other, train)
        both = jnp.concatenate([x, other], axis=-1)
        return x + reducer("relation")(both, train)


class Granularity(nn.Module):
    """Cuts a map into `count` stripes, relates them, gives each a neck and classes."""

    count: int
    num_classes: int | None
    width: str = "lite"
    relation: str = "one_vs_rest"
    contrastive: bool = False
    neck_norm: str = "shared"

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows H W C"], views: Views, train: bool
    ) -> dict[str, Array]:
        """Returns `pooled` and `neck` `[rows, parts, D]`, in training `logits`.

        With `contrastive` the first part is the whole map's. Raises UserError for more
        stripes than the map has rows.
        """
        features, own = PART_WIDTHS[self.width], self.width == "full"
        cut = stripes(x, self.count, "granularities")
        parts = jnp.stack([generalised_mean(stripe) for stripe in cut], axis=1)
        total = parts.sum(1, keepdims=True)
        if self.relation == "attention":
            reduced = Reducer(features, own, name="part")(parts, train)
            pooled = Attention(own, name="attention")(reduced)
        else:
            rest = (total - parts) / (self.count - 1)
            pooled = Relation(features, own, name="parts")(parts, rest, train)
        if self.contrastive:
            highest = widen(x).max((1, 2))[:, None]
            contrast = (total - highest) / (self.count - 1)
            whole = Relation(features, own, name="whole")(highest, contrast, train)
            pooled = jnp.concatenate([whole, pooled], axis=1)
        return self._classify(pooled, views, train)

    def _classify(self, pooled: Array, views: Views, train: bool) -> dict[str, Array]:
        neck = norm(
            pooled.reshape(len(pooled), -1),
            views,
            train,
            name="neck",
            per_modality=self.neck_norm == "per_modality",
            use_bias=False,
        ).reshape(pooled.shape)
        out = {"pooled": pooled, "neck": neck}
        if self.num_classes and (train or self.is_initializing()):
            classify = PartLinear(
                self.num_classes, own=True, init=classifier_init, name="classifier"
            )
            out["logits"] = classify(neck)
        return out


class PartRelations(nn.Module):
    """Runs all granularities over one map."""

    granularities: tuple[int, ...]
    num_classes: int | None
    width: str = "lite"
    relation: str = "one_vs_rest"
    contrastive: bool = False
    neck_norm: str = "shared"

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows H W C"], views: Views, train: bool
    ) -> dict[str, Array]:
        """Returns `pooled` and `neck` `[rows, parts, D]`, in training `logits`."""
        found = [
            Granularity(
                count,
                self.num_classes,
                self.width,
                self.relation,
                self.contrastive,
                self.neck_norm,
                name=f"parts{count}",
            )(x, views, train)
            for count in self.granularities
        ]
        return {
            name: jnp.concatenate([out[name] for out in found], axis=1)
            for name in found[0]
        }
