"""OSNet (Zhou et al., arXiv 1905.00953): stages `conv1` to `conv5`, output stride 16.

IBN and AIN (arXiv 1910.06827) have instance norms in some places. Layer names are
torchreid's: its key `conv2.0.conv2b.1.bn.weight` is `conv2/0/conv2b/1/bn/scale` here.
Maps are NHWC. Layers take `views` as `norm` does: if it is None, the modalities share
each norm, else each has its own.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from vireid_jax.models import ops
from vireid_jax.models.norm import BatchNorm, InstanceNorm, norm
from vireid_jax.models.views import Views

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")
_WIDTHS = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
CHANNELS = {
    **{f"osnet_{width}": channels for width, channels in _WIDTHS.items()},
    "osnet_ibn_x1_0": _WIDTHS["x1_0"],
    **{f"osnet_ain_{width}": channels for width, channels in _WIDTHS.items()},
}
# Where each of a stage's two blocks has an instance norm: "sum" is after the sum with
# the shortcut, "exit" replaces the last batch norm. IBN and AIN have one in the stem.
INSTANCE_NORMS: dict[str, dict[str, tuple[str | None, str | None]]] = {
    "base": {},
    "ibn": {"conv2": ("sum", "sum")},
    "ain": {
        "conv2": ("exit", "exit"),
        "conv3": (None, "exit"),
        "conv4": ("exit", None),
    },
}
GATE_REDUCTION = 16
# Of a depthwise kernel, too, the fan out is 9 x channels, as in torch.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def variant_of(name: str) -> str:
    """Return the key of `INSTANCE_NORMS` for a network's name."""
    return next((v for v in INSTANCE_NORMS if f"_{v}_" in name), "base")


class Conv(nn.Module):
    """Convolve by a function of `ops`, and add a bias if `use_bias`.

    `shape` is the kernel's: `[height, width, in, out]`.
    """

    shape: tuple[int, int, int, int]
    convolve: Callable[[Array, Array], Array] = ops.pointwise
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "rows H W C"]) -> Float[Array, "rows h w D"]:
        """Compute in the dtype of `x`."""
        kernel = self.param("kernel", kaiming_fan_out, self.shape)
        x = self.convolve(x, kernel.astype(x.dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, self.shape[-1:])
            x = x + bias.astype(x.dtype)
        return x


def depthwise_conv(channels: int, name: str) -> Conv:
    """Return a depthwise 3x3 convolution, stride 1, padding 1."""
    return Conv((3, 3, 1, channels), ops.depthwise3x3, name=name)


class Conv1x1(nn.Module):
    """Convolve 1x1 without bias, normalise and apply ReLU, each unless switched off."""

    features: int
    relu: bool = True
    zero_scale: bool = False
    normalise: bool = True

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, H, W, features]`."""
        x = Conv((1, 1, x.shape[-1], self.features), name="conv")(x)
        if self.normalise:
            x = norm(x, views, train, name="bn", zero_scale=self.zero_scale)
        return nn.relu(x) if self.relu else x


class LightConv3x3(nn.Module):
    """Convolve 1x1, then depthwise 3x3; normalise; apply ReLU ("Lite 3x3")."""

    features: int

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, H, W, features]`."""
        x = Conv((1, 1, x.shape[-1], self.features), name="conv1")(x)
        x = depthwise_conv(self.features, name="conv2")(x)
        return nn.relu(norm(x, views, train, name="bn"))


class LightConvChain(nn.Module):
    """Stack Lite 3x3 convolutions: a branch with a field of (2 depth + 1) pixels."""

    features: int
    depth: int

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, H, W, features]`."""
        for i in range(self.depth):
            x = LightConv3x3(self.features, name=str(i))(x, views, train)
        return x


class ChannelGate(nn.Module):
    """Weigh channels by a small network of their spatial mean (the unified gate)."""

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "rows 1 1 C"]:
        """Return the weight of each channel, in (0, 1), from `[rows, H, W, C]`."""
        channels = x.shape[-1]
        hidden = channels // GATE_REDUCTION
        mean = x.mean((1, 2), keepdims=True)
        squeeze = Conv((1, 1, channels, hidden), use_bias=True, name="fc1")
        excite = Conv((1, 1, hidden, channels), use_bias=True, name="fc2")
        return nn.sigmoid(excite(nn.relu(squeeze(mean))))


class OSBlock(nn.Module):
    """Sum four gated branches of 1 to 4 Lite 3x3 convolutions, inside a residual.

    `instance_norm` is as in `INSTANCE_NORMS`. With `zero_init_residual` the scale of
    the residual's last norm starts at 0, so the block starts as its shortcut (followed
    by the norm after the sum, if any). `numbered`: name the branches as AIN does.
    """

    features: int
    zero_init_residual: bool = False
    instance_norm: str | None = None
    numbered: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, H, W, features]`."""
        shortcut = x
        middle = self.features // 4
        x = Conv1x1(middle, name="conv1")(x, views, train)
        gate = ChannelGate(name="gate")  # all four branches share one gate
        total: Any = 0
        for depth, letter in enumerate("abcd", 1):
            branch: nn.Module
            if self.numbered:  # torchreid nests these names; here they are flat
                branch = LightConvChain(middle, depth, name=f"conv2.{depth - 1}.layers")
            elif depth > 1:
                branch = LightConvChain(middle, depth, name=f"conv2{letter}")
            else:
                branch = LightConv3x3(middle, name=f"conv2{letter}")
            y = branch(x, views, train)
            total = total + gate(y) * y
        at_exit = self.instance_norm == "exit"
        zero = self.zero_init_residual
        conv = functools.partial(Conv1x1, self.features, relu=False)
        last = conv(zero_scale=zero, normalise=not at_exit, name="conv3")
        out = last(total, views, train)
        instance_norm = functools.partial(norm, name="IN", layer=InstanceNorm)
        if at_exit:
            out = instance_norm(out, views, train, zero_scale=zero)
        if shortcut.shape[-1] != self.features:
            shortcut = conv(name="downsample")(shortcut, views, train)
        out = shortcut + out
        if self.instance_norm == "sum":
            out = instance_norm(out, views, train)
        return nn.relu(out)


class Stem(nn.Module):
    """Convolve 7x7 stride 2, normalise, apply ReLU, max-pool 3x3 stride 2."""

    features: int
    layer: type[nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map images `[rows, H, W, 3]` to `[rows, H/4, W/4, features]`."""
        x = Conv((7, 7, x.shape[-1], self.features), ops.stem7x7, name="conv")(x)
        x = norm(x, views, train, name="bn", layer=self.layer)
        return ops.max_pool3x3(nn.relu(x))


class Reduction(nn.Module):
    """Convolve 1x1 and average-pool 2x2: the end of `conv2` and of `conv3`."""

    features: int

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, H/2, W/2, features]`."""
        return ops.average_pool2x2(Conv1x1(self.features, name="0")(x, views, train))


class BlockStage(nn.Module):
    """Run two OSBlocks and, if `reduce`, a reduction."""

    features: int
    reduce: bool
    zero_init_residual: bool = False
    instance_norms: tuple[str | None, str | None] = (None, None)
    numbered: bool = False
    rematerialise: bool = False

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> Array:
        """Map `[rows, H, W, C]` to `[rows, h, w, features]`."""
        block = OSBlock
        if self.rematerialise:  # `views` and `train` are no arrays; counted from self
            block = nn.remat(OSBlock, static_argnums=(2, 3))
        options = self.features, self.zero_init_residual
        for i, kind in enumerate(self.instance_norms):
            x = block(*options, kind, self.numbered, name=str(i))(x, views, train)
        return Reduction(self.features, name="2")(x, views, train) if self.reduce else x


class Trunk(nn.Module):
    """Run consecutive stages of an OSNet: all of them, or those of one stream."""

    channels: tuple[int, int, int, int]
    stages: tuple[str, ...] = STAGES
    zero_init_residual: bool = False
    variant: str = "base"
    rematerialise: bool = False  # compute the blocks again in the backward pass

    @nn.compact
    def __call__(self, x: Array, views: Views | None, train: bool) -> dict[str, Array]:
        """Return the map after each stage, by the stage's name."""
        features = dict(zip(STAGES, (*self.channels, self.channels[-1]), strict=True))
        maps = {}
        for name in self.stages:
            x = self._stage(name, features[name])(x, views, train)
            if self.variant == "ain" and name in ("conv2", "conv3"):
                pool = name.replace("conv", "pool")  # torchreid has it beside the stage
                x = Reduction(features[name], name=pool)(x, views, train)
            maps[name] = x
        return maps

    def _stage(self, name: str, features: int) -> nn.Module:
        if name == "conv1":
            layer = BatchNorm if self.variant == "base" else InstanceNorm
            return Stem(features, layer, name=name)
        if name == "conv5":
            return Conv1x1(features, name=name)
        return BlockStage(
            features,
            reduce=name != "conv4" and self.variant != "ain",
            zero_init_residual=self.zero_init_residual,
            instance_norms=INSTANCE_NORMS[self.variant].get(name, (None, None)),
            numbered=self.variant == "ain",
            rematerialise=self.rematerialise,
            name=name,
        )
