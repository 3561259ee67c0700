"""OSNet (Zhou et al., arXiv 1905.00953): stages `conv1` to `conv5`, output stride 16.

Layer names are torchreid's, so that a torch key `conv2.0.conv2b.1.bn.weight` is the
path `conv2/0/conv2b/1/bn/scale` here. Maps are NHWC. Rows of several views lie side by
side (see `norm`); a layer that treats modalities alike never looks at the views.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vireid_jax.modality import Views
from vireid_jax.models import ops
from vireid_jax.models.norm import norm

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")
CHANNELS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
}
GATE_REDUCTION = 16

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _kaiming_depthwise(key: Array, shape: Sequence[int], dtype=jnp.float32) -> Array:
    """Draws as torch does for a grouped convolution: its fan out is 9 x channels."""
    fan_out = shape[0] * shape[1] * shape[3]
    return jax.random.normal(key, shape, dtype) * (2.0 / fan_out) ** 0.5


class Kernel(nn.Module):
    """Owns a convolution's `kernel` `[height, width, in, out]`; a `bias` if asked."""

    shape: tuple[int, int, int, int]
    use_bias: bool = False
    init: nn.initializers.Initializer = kaiming_fan_out

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Returns kernel and bias (zero without one)."""
        kernel = self.param("kernel", self.init, self.shape)
        if not self.use_bias:
            return kernel, jnp.zeros((), kernel.dtype)
        return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:])


class Conv1x1(nn.Module):
    """Convolves 1x1 without bias, normalises, and applies ReLU unless told not to."""

    features: int
    per_modality: bool = False
    relu: bool = True
    zero_scale: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps `[rows, H, W, C]` to `[rows, H, W, features]`."""
        kernel, _ = Kernel((1, 1, x.shape[-1], self.features), name="conv")()
        x = x @ kernel[0, 0].astype(x.dtype)
        x = norm(
            x,
            views,
            train,
            name="bn",
            per_modality=self.per_modality,
            zero_scale=self.zero_scale,
        )
        return nn.relu(x) if self.relu else x


class LightConv3x3(nn.Module):
    """Convolves 1x1, then depthwise 3x3; normalises; applies ReLU ("Lite 3x3")."""

    features: int
    per_modality: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps `[rows, H, W, C]` to `[rows, H, W, features]`."""
        pointwise, _ = Kernel((1, 1, x.shape[-1], self.features), name="conv1")()
        depthwise, _ = Kernel(
            (3, 3, 1, self.features), init=_kaiming_depthwise, name="conv2"
        )()
        x = x @ pointwise[0, 0].astype(x.dtype)
        x = ops.depthwise3x3(x, depthwise.astype(x.dtype))
        x = norm(x, views, train, name="bn", per_modality=self.per_modality)
        return nn.relu(x)


class LightConvChain(nn.Module):
    """Stacks Lite 3x3 convolutions: a branch that sees (2 depth + 1) pixels."""

    features: int
    depth: int
    per_modality: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps `[rows, H, W, C]` to `[rows, H, W, features]`."""
        for i in range(self.depth):
            layer = LightConv3x3(self.features, self.per_modality, name=str(i))
            x = layer(x, views, train)
        return x


class ChannelGate(nn.Module):
    """Weighs channels by a small network of their spatial mean (the unified gate)."""

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "rows 1 1 C"]:
        """Returns the weight of each channel, in (0, 1), from `[rows, H, W, C]`."""
        channels = x.shape[-1]
        hidden = channels // GATE_REDUCTION
        mean = x.mean((1, 2), keepdims=True)
        kernel, bias = Kernel((1, 1, channels, hidden), use_bias=True, name="fc1")()
        mean = nn.relu(mean @ kernel[0, 0].astype(x.dtype) + bias.astype(x.dtype))
        kernel, bias = Kernel((1, 1, hidden, channels), use_bias=True, name="fc2")()
        return nn.sigmoid(mean @ kernel[0, 0].astype(x.dtype) + bias.astype(x.dtype))


class OSBlock(nn.Module):
    """Sums four gated branches of 1 to 4 Lite 3x3 convolutions, inside a residual."""

    features: int
    per_modality: bool = False
    zero_init_residual: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps `[rows, H, W, C]` to `[rows, H, W, features]`."""
        middle = self.features // 4
        shortcut = x
        x = Conv1x1(middle, self.per_modality, name="conv1")(x, views, train)
        gate = ChannelGate(name="gate")  # one gate serves all four branches
        total = 0
        for depth, letter in enumerate("abcd", start=1):
            if depth == 1:
                branch = LightConv3x3(middle, self.per_modality, name="conv2a")
            else:
                name = f"conv2{letter}"
                branch = LightConvChain(middle, depth, self.per_modality, name=name)
            y = branch(x, views, train)
            total = total + gate(y) * y
        out = Conv1x1(
            self.features,
            self.per_modality,
            relu=False,
            zero_scale=self.zero_init_residual,
            name="conv3",
        )(total, views, train)
        if shortcut.shape[-1] != self.features:
            shortcut = Conv1x1(
                self.features, self.per_modality, relu=False, name="downsample"
            )(shortcut, views, train)
        return nn.relu(shortcut + out)


class Stem(nn.Module):
    """Convolves 7x7 stride 2, normalises, applies ReLU, max-pools 3x3 stride 2."""

    features: int
    per_modality: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps images `[rows, H, W, 3]` to `[rows, H/4, W/4, features]`."""
        kernel, _ = Kernel((7, 7, x.shape[-1], self.features), name="conv")()
        x = ops.stem7x7(x, kernel.astype(x.dtype))
        x = norm(x, views, train, name="bn", per_modality=self.per_modality)
        return ops.max_pool3x3(nn.relu(x))


class Reduction(nn.Module):
    """Convolves 1x1 and average-pools 2x2: the end of `conv2` and of `conv3`."""

    features: int
    per_modality: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps `[rows, H, W, C]` to `[rows, H/2, W/2, features]`."""
        x = Conv1x1(self.features, self.per_modality, name="0")(x, views, train)
        return ops.average_pool2x2(x)


class BlockStage(nn.Module):
    """Runs two OSBlocks and, in `conv2` and `conv3`, a reduction."""

    features: int
    reduce: bool
    per_modality: bool = False
    zero_init_residual: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> Array:
        """Maps `[rows, H, W, C]` to `[rows, h, w, features]`."""
        for i in range(2):
            x = OSBlock(
                self.features, self.per_modality, self.zero_init_residual, name=str(i)
            )(x, views, train)
        if self.reduce:
            x = Reduction(self.features, self.per_modality, name="2")(x, views, train)
        return x


class Trunk(nn.Module):
    """Runs some consecutive stages of an OSNet: all of them, or one stream's share."""

    channels: tuple[int, int, int, int]
    stages: tuple[str, ...] = STAGES
    per_modality: bool = False
    zero_init_residual: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views, train: bool) -> dict[str, Array]:
        """Returns the map after each stage, by the stage's name."""
        maps = {}
        for name in self.stages:
            x = maps[name] = self._stage(name)(x, views, train)
        return maps

    def _stage(self, name: str) -> nn.Module:
        features = dict(zip(STAGES, (*self.channels, self.channels[-1]), strict=True))
        if name == "conv1":
            return Stem(features[name], self.per_modality, name=name)
        if name == "conv5":
            return Conv1x1(features[name], self.per_modality, name=name)
        return BlockStage(
            features[name],
            reduce=name != "conv4",
            per_modality=self.per_modality,
            zero_init_residual=self.zero_init_residual,
            name=name,
        )
