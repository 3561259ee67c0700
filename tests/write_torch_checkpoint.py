"""Write a checkpoint as torchreid would, from an OSNet of random numbers in torch.

torch is no dependency of the project: the tests that need it are skipped without it. To
run them, install both into an environment of their own (PyTorch's CPU build suffices):

    python -m venv torch-venv
    torch-venv/bin/pip install torch -e '.[dev]'
    torch-venv/bin/python -m pytest -n 0 tests/test_convert_torch.py

By itself this writes a file to try the converter on:

    torch-venv/bin/python tests/write_torch_checkpoint.py osnet_x0_25 random.pth
"""

import math
import sys
from collections import OrderedDict

import torch
from torch import nn

CHANNELS = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
# Whether each of a stage's two blocks normalises instances at its exit.
AIN = {"conv2": (True, True), "conv3": (False, True), "conv4": (True, False)}


def named(**layers):
    """Chains layers that have names; state_dict() then has these names."""
    return nn.Sequential(OrderedDict(layers))


def convolution(inputs, outputs, size=1, **options):
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False, **options)


def pointwise(inputs, outputs):
    return named(
        conv=convolution(inputs, outputs), bn=nn.BatchNorm2d(outputs), relu=nn.ReLU()
    )


def branch(width, depth):
    lite = lambda: named(
        conv1=convolution(width, width),
        conv2=convolution(width, width, 3, groups=width),
        bn=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    return nn.Sequential(*(lite() for _ in range(depth)))


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1)
        self.fc2 = nn.Conv2d(width // 16, width, 1)

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(mean))))


class Block(nn.Module):
    """An OSBlock; AIN keeps its branches in a list, the others each by a letter."""

    def __init__(self, inputs, outputs, variant, norm_at_exit, norm_after_sum):
        super().__init__()
        width = outputs // 4
        self.conv1 = pointwise(inputs, width)
        branches = [branch(width, depth) for depth in (1, 2, 3, 4)]
        if variant == "ain":
            self.conv2 = nn.ModuleList(named(layers=b) for b in branches)
            self.names = [f"conv2.{i}" for i in range(4)]
        else:
            self.names = [f"conv2{letter}" for letter in "abcd"]
            branches[0] = branches[0][0]  # torchreid's shortest is not in a list
            for name, layers in zip(self.names, branches, strict=True):
                self.add_module(name, layers)
        self.gate = Gate(width)
        exit_norm = {} if norm_at_exit else {"bn": nn.BatchNorm2d(outputs)}
        self.conv3 = named(conv=convolution(width, outputs), **exit_norm)
        self.norm_at_exit, self.norm_after_sum = norm_at_exit, norm_after_sum
        if norm_at_exit or norm_after_sum:
            self.IN = nn.InstanceNorm2d(outputs, affine=True)
        self.downsample = None
        if inputs != outputs:
            self.downsample = pointwise(inputs, outputs)[:2]

    def forward(self, x):
        middle = self.conv1(x)
        branches = (self.get_submodule(name)(middle) for name in self.names)
        y = self.conv3(sum(map(self.gate, branches)))
        if self.norm_at_exit:
            y = self.IN(y)
        y = y + (x if self.downsample is None else self.downsample(x))
        return torch.relu(self.IN(y) if self.norm_after_sum else y)


class OSNet(nn.Module):
    def __init__(self, name, classes):
        super().__init__()
        variant = next((v for v in ("ain", "ibn") if f"_{v}_" in name), "base")
        first, *channels = CHANNELS[name[name.index("x") :]]
        norm = nn.BatchNorm2d(first)
        if variant != "base":
            norm = nn.InstanceNorm2d(first, affine=True)
        self.conv1 = named(
            conv=convolution(3, first, 7, stride=2), bn=norm, relu=nn.ReLU()
        )
        inputs = first
        self.order = []
        for stage, outputs in zip(("conv2", "conv3", "conv4"), channels, strict=True):
            at_exit = AIN[stage] if variant == "ain" else (False, False)
            after_sum = variant == "ibn" and stage == "conv2"
            layers = [
                Block(width, outputs, variant, flag, after_sum)
                for width, flag in zip((inputs, outputs), at_exit, strict=True)
            ]
            reduction = nn.Sequential(pointwise(outputs, outputs), nn.AvgPool2d(2))
            if stage != "conv4" and variant != "ain":
                layers.append(reduction)
            self.add_module(stage, nn.Sequential(*layers))
            self.order.append(stage)
            if stage != "conv4" and variant == "ain":
                self.add_module(stage.replace("conv", "pool"), reduction)
                self.order.append(stage.replace("conv", "pool"))
            inputs = outputs
        self.conv5 = pointwise(inputs, inputs)
        self.fc = nn.Sequential(nn.Linear(inputs, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.classifier = nn.Linear(512, classes)

    def forward(self, images):
        x = nn.functional.max_pool2d(self.conv1(images), 3, 2, 1)
        for name in self.order:
            x = self.get_submodule(name)(x)
        return self.fc(self.conv5(x).mean((2, 3)))


@torch.no_grad()
def random_network(name, seed=0, classes=7):
    """Return a network at test, with no number as torch initialises it."""
    network = OSNet(name, classes).eval()
    generator = torch.Generator().manual_seed(seed)
    for key, x in network.state_dict().items():
        if x.ndim == 0:
            continue  # num_batches_tracked
        z = torch.randn(x.shape, generator=generator)
        if key.endswith("running_var"):
            z = 0.5 + z.abs()
        elif x.ndim == 1:
            z = 0.2 * z + key.endswith("weight")
        else:
            z = z / math.sqrt(x[0].numel())
        x.copy_(z)
    return network


if __name__ == "__main__":
    torch.save(random_network(sys.argv[1]).state_dict(), sys.argv[2])
