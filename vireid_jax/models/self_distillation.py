"""Student heads for self-distillation (SDM): in training only, one per shallow stage.

The deepest head teaches; a student sees an earlier map, brings it to the deepest map's
size and channels, and ends in a head of the same structure (Zhang & Zeng 2024; the form
after Zhang et al., "Be your own teacher", 2019). Which stages, and one separable
convolution where the size fits already, are our choice.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from vireid_jax.models.heads import IdentityHead
from vireid_jax.models.osnet import Conv1x1, depthwise_conv
from vireid_jax.models.views import Views

STUDENTS = ("conv2", "conv3", "conv4")


class SeparableConv(nn.Module):
    """Convolve depthwise 3x3, then 1x1; normalise; apply ReLU."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, ceil(H/s), ceil(W/s), features]`."""
        x = depthwise_conv(x.shape[-1], name="depthwise")(x)
        x = x[:, :: self.stride, :: self.stride]
        return Conv1x1(self.features, name="pointwise")(x, None, train)


class Student(nn.Module):
    """Bring a shallow map to the deepest one's size and channels; classify it."""

    num_classes: int | None
    features: int
    height: int
    neck_norm: str = "shared"
    num_stripes: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "rows H W C"], views: Views, train: bool
    ) -> dict[str, Array]:
        """Return `pooled`, `neck` and `logits`, as the deepest head does."""
        count = 0
        while count == 0 or x.shape[1] > self.height:
            stride = 2 if x.shape[1] > self.height else 1
            x = SeparableConv(self.features, stride, name=str(count))(x, train)
            count += 1
        options = self.num_classes, self.neck_norm, self.num_stripes
        return IdentityHead(*options, name="head")(x, views, train)
