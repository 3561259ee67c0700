"""The two-stream OSNet in PyTorch: two stems, the rest shared, GeM, BNNeck, classifier.

Written for this benchmark; the layers have torchreid's names, after `visible`,
`infrared` or `shared`.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

CHANNELS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
}


class ConvNorm(nn.Module):
    """Convolve, normalise, and apply ReLU unless `relu=False`."""

    def __init__(self, inside, outside, size=1, stride=1, relu=True):
        """Create the layers; padding keeps the size at stride 1."""
        super().__init__()
        self.conv = nn.Conv2d(
            inside, outside, size, stride=stride, padding=size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x):
        """Map NCHW to NCHW."""
        return self.relu(self.bn(self.conv(x)))


class LightConv3x3(nn.Module):
    """Convolve 1x1, then depthwise 3x3; normalise; apply ReLU."""

    def __init__(self, features):
        """Create the layers; the number of channels stays."""
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 1, bias=False)
        self.conv2 = nn.Conv2d(
            features, features, 3, padding=1, groups=features, bias=False
        )
        self.bn = nn.BatchNorm2d(features)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        """Map NCHW to NCHW."""
        return self.relu(self.bn(self.conv2(self.conv1(x))))


class ChannelGate(nn.Module):
    """Weight channels by a small network of their spatial mean."""

    def __init__(self, features):
        """Create the layers; the number of channels stays."""
        super().__init__()
        self.fc1 = nn.Conv2d(features, features // 16, 1)
        self.fc2 = nn.Conv2d(features // 16, features, 1)

    def forward(self, x):
        """Map NCHW to NCHW."""
        hidden = functional.relu(self.fc1(functional.adaptive_avg_pool2d(x, 1)))
        return torch.sigmoid(self.fc2(hidden)) * x


def chain(features, depth):
    return nn.Sequential(*(LightConv3x3(features) for _ in range(depth)))


class OSBlock(nn.Module):
    """Sum four gated branches of 1 to 4 light convolutions, with a residual."""

    def __init__(self, inside, outside):
        """Create the layers; project the shortcut if channels differ."""
        super().__init__()
        middle = outside // 4
        self.conv1 = ConvNorm(inside, middle)
        self.conv2a = LightConv3x3(middle)
        self.conv2b = chain(middle, 2)
        self.conv2c = chain(middle, 3)
        self.conv2d = chain(middle, 4)
        self.gate = ChannelGate(middle)
        self.conv3 = ConvNorm(middle, outside, relu=False)
        self.downsample = None
        if inside != outside:
            self.downsample = ConvNorm(inside, outside, relu=False)

    def forward(self, x):
        """Map NCHW to NCHW."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv1(x)
        branches = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        total = sum(self.gate(branch(x)) for branch in branches)
        return functional.relu(self.conv3(total) + shortcut)


def stage(inside, outside, reduce):
    layers = [OSBlock(inside, outside), OSBlock(outside, outside)]
    if reduce:
        layers.append(nn.Sequential(ConvNorm(outside, outside), nn.AvgPool2d(2)))
    return nn.Sequential(*layers)


class Stem(nn.Module):
    """The first stage, of one modality."""

    def __init__(self, features):
        """Create the layers for images of three channels."""
        super().__init__()
        self.conv1 = ConvNorm(3, features, size=7, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x):
        """Map images to a quarter of their height and width."""
        return self.pool(self.conv1(x))


class Shared(nn.Module):
    """The other four stages."""

    def __init__(self, channels):
        """Create conv2 to conv5 from the channels of conv1 to conv4."""
        super().__init__()
        first, second, third, last = channels
        self.conv2 = stage(first, second, reduce=True)
        self.conv3 = stage(second, third, reduce=True)
        self.conv4 = stage(third, last, reduce=False)
        self.conv5 = ConvNorm(last, last)

    def forward(self, x):
        """Map NCHW to NCHW."""
        return self.conv5(self.conv4(self.conv3(self.conv2(x))))


class Head(nn.Module):
    """Pool by a generalised mean, normalise (BNNeck) and classify."""

    def __init__(self, features, classes):
        """Create the layers; the neck's bias stays zero."""
        super().__init__()
        self.neck = nn.BatchNorm1d(features)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(features, classes, bias=False)

    def forward(self, x):
        """Return the pooled feature and the neck's."""
        pooled = x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        return pooled, self.neck(pooled)


class TwoStreamOSNet(nn.Module):
    """Embed images of both modalities into one space."""

    def __init__(self, name, classes):
        """Create the network; `name` is one of CHANNELS."""
        super().__init__()
        channels = CHANNELS[name]
        self.visible = Stem(channels[0])
        self.infrared = Stem(channels[0])
        self.shared = Shared(channels)
        self.head = Head(channels[-1], classes)

    def forward(self, visible, infrared=None):
        """Return embeddings of visible images; in training pooled and logits of both.

        When training, rows of infrared images follow those of visible ones.
        """
        if infrared is None:
            _, neck = self.head(self.shared(self.visible(visible)))
            return functional.normalize(neck)
        both = torch.cat([self.visible(visible), self.infrared(infrared)])
        pooled, neck = self.head(self.shared(both))
        return pooled, self.head.classifier(neck)


def load(network, tensors):
    """Load weights by name; batch counters and the neck's bias may be missing."""
    missing, unknown = network.load_state_dict(tensors, strict=False)
    rest = [
        key
        for key in missing
        if not key.endswith("num_batches_tracked") and key != "head.neck.bias"
    ]
    if rest or unknown:
        raise ValueError(f"weights do not fit: missing {rest}, unknown {unknown}")


def fuse(network):
    """Fold every batch norm into the convolution before it, for inference."""
    network.eval()
    for layer in network.modules():
        if isinstance(layer, ConvNorm):
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.bn)
            layer.bn = nn.Identity()
        if isinstance(layer, LightConv3x3):
            layer.conv2 = fuse_conv_bn_eval(layer.conv2, layer.bn)
            layer.bn = nn.Identity()
