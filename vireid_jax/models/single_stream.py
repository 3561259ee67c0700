"""The single-modality OSNet: one stream, with torchreid's own head."""

import flax.linen as nn
from jaxtyping import Array, Float

from vireid_jax.models.heads import linear
from vireid_jax.models.norm import BatchNorm
from vireid_jax.models.osnet import STAGES, Trunk
from vireid_jax.models.precision import widen
from vireid_jax.models.views import Views, check_images

FEATURES = 512  # of the head, at every width


class FullyConnected(nn.Module):
    """Map linearly, normalise, and apply ReLU: torchreid's `fc`."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows C"], train: bool
    ) -> Float[Array, "rows D"]:
        """Return `relu(BN(W x + b))`."""
        x = linear(FEATURES, "0", use_bias=True)(x)
        return nn.relu(BatchNorm(name="1")(x, train))


class OSNet(nn.Module):
    """Embed images by one OSNet with torchreid's own head, whatever their modality.

    Its arguments and results are those of `TwoStreamOSNet`, so everything that takes a
    network (initialising, embedding, a training step) takes this one.
    """

    channels: tuple[int, int, int, int]
    num_classes: int | None = None
    zero_init_residual: bool = True
    variant: str = "base"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch views H W 3"],
        views: Views = ("visible",),
        train: bool = False,
    ) -> tuple[Float[Array, "batch views D"], dict[str, Array]]:
        """Return the 512 features after ReLU, as torchreid at test, and arrays by name.

        These are the stages' maps, `pooled` (the mean of the last), `neck` (the
        features again), and in training `logits`.
        """
        check_images(images, views)
        split = lambda x: x.reshape(images.shape[0], -1, *x.shape[1:])
        rows = images.reshape(-1, *images.shape[2:]).astype(self.dtype)
        options = self.zero_init_residual, self.variant
        out = Trunk(self.channels, STAGES, *options, name="shared")(rows, None, train)
        out["pooled"] = widen(out["conv5"]).mean((1, 2))
        out["neck"] = neck = FullyConnected(name="fc")(out["pooled"], train)
        if self.num_classes and (train or self.is_initializing()):
            classifier = linear(self.num_classes, "classifier", use_bias=True)
            out["logits"] = classifier(neck)
        out = {name: split(x) for name, x in out.items()}
        return out["neck"], out
