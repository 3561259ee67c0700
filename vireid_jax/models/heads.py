"""Pooling, neck and identity classifier: from the last map to an embedding."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vireid_jax.models.norm import norm
from vireid_jax.models.precision import EXACT, widen
from vireid_jax.models.views import Views
from vireid_jax.run.errors import UserError

NECK_NORMS = ("shared", "per_modality")

linear_init = nn.initializers.normal(0.01)
classifier_init = nn.initializers.normal(0.001)


def linear(
    features: int,
    name: str,
    init: nn.initializers.Initializer = linear_init,
    use_bias: bool = False,
) -> nn.Dense:
    """Return a linear map of the last axis."""
    return nn.Dense(features, use_bias, kernel_init=init, precision=EXACT, name=name)


def generalised_mean(
    x: Float[Array, "rows H W C"], p: int = 3
) -> Float[Array, "rows C"]:
    """Pool each channel to `(mean(max(x, 1e-6)^p))^(1/p)`, in float32 or wider.

    Source: GeM (Radenovic et al., TPAMI 2019), with AGW's fixed p = 3.
    """
    return (jnp.maximum(widen(x), 1e-6) ** p).mean((1, 2)) ** (1 / p)


def stripes(x: Float[Array, "rows H W C"], count: int, key: str) -> list[Array]:
    """Cut a map into horizontal stripes, with the edges of torch's adaptive pool.

    Raise UserError, naming the config `key`, for more stripes than the map has rows.
    Source: PCB (Sun et al., ECCV 2018).
    """
    height = x.shape[1]
    if count > height:
        raise UserError(
            f"{count} stripes of a map of {height} rows; lower config.model.{key} to"
            f" {height} or raise config.data.size"
        )
    return [x[:, rows] for rows in stripe_rows(height, count)]


def stripe_rows(height: int, count: int) -> list[slice]:
    """Return the rows of a map in each of `count` stripes; stripes may share a row."""
    return [
        slice(i * height // count, -(-(i + 1) * height // count)) for i in range(count)
    ]


def l2_normalise(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """Scale vectors to length 1; a zero vector stays zero, with a finite gradient."""
    return x * lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


class IdentityHead(nn.Module):
    """Pool, normalise (BNNeck, Luo et al. 2019) and classify.

    With `num_stripes` the pooled stripes of the map are appended to the pooled map.
    The neck's bias stays 0 and is not stored. `neck_norm="per_modality"` keeps
    statistics for each modality, which removes the modality's offset from the
    embedding.
    """

    num_classes: int | None
    neck_norm: str = "shared"
    num_stripes: int = 0

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> dict[str, Array]:
        """Return `pooled` and `neck` `[rows, D]`, and in training `logits`."""
        parts = [x, *stripes(x, self.num_stripes, "num_stripes")]
        pooled = jnp.concatenate([generalised_mean(part) for part in parts], axis=1)
        norm_views = views if self.neck_norm == "per_modality" else None
        neck = norm(pooled, norm_views, train, name="neck", use_bias=False)
        out = {"pooled": pooled, "neck": neck}
        if self.num_classes and (train or self.is_initializing()):
            classifier = linear(self.num_classes, "classifier", classifier_init)
            out["logits"] = classifier(neck)
        return out
