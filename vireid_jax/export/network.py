"""The two-stream network at test, of one modality, by folded weights: written once.

`models/` says how a network is trained; here the same is said in the operations that a
runtime has, to be done on arrays (`arrays.py`) or written down as ONNX (`graph.py`).
`ops` is either module's class. Tests hold it to `models/`, for every kind of network.
"""

import dataclasses
import functools
import operator
from typing import Any

from vireid_jax.embed.embedder import Embedder
from vireid_jax.export.folding import Weights, fold
from vireid_jax.models.heads import stripe_rows
from vireid_jax.models.osnet import INSTANCE_NORMS, STAGES
from vireid_jax.models.two_stream import TwoStreamOSNet
from vireid_jax.run.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layer:
    """A place in the network: the weights below it, and what can be done with them."""

    ops: Any
    weights: Weights
    place: str = ""

    def __truediv__(self, name: str) -> "Layer":
        """Goes to a layer inside."""
        return Layer(self.ops, self.weights, f"{self.place}{name}/")

    def __contains__(self, name: str) -> bool:
        """Tells whether there is such a layer inside."""
        return any(key.startswith(f"{self.place}{name}/") for key in self.weights)

    def get(self, name: str) -> Any:
        """Returns the weight of this name as an operand, None where there is none."""
        place = f"{self.place}{name}"
        return self.ops.constant(place, self.weights.get(place))

    def conv(self, x: Any, name: str, convolve: str = "pointwise") -> Any:
        """Convolves by the layer `name` and by the operation `convolve`."""
        inside = self / name
        operation = getattr(self.ops, convolve)
        return operation(x, inside.get("kernel"), inside.get("bias"))

    def linear(self, x: Any, name: str) -> Any:
        """Maps features linearly by the layer `name`."""
        inside = self / name
        x = self.ops.matmul(x, inside.get("kernel"))
        bias = inside.get("bias")
        return x if bias is None else x + bias

    def affine(self, x: Any, name: str) -> Any:
        """Scales and shifts features by the layer `name`."""
        inside = self / name
        return x * inside.get("scale") + inside.get("bias")

    def normalise_instances(self, x: Any, name: str) -> Any:
        """Applies the instance norm `name`, if there is one."""
        if name not in self:
            return x
        inside = self / name
        return self.ops.instance_norm(x, inside.get("scale"), inside.get("bias"))


@dataclasses.dataclass(frozen=True)
class Network:
    """What is exported of an embedder; `weights` are each modality's, folded."""

    model: TwoStreamOSNet
    weights: dict[str, Weights]
    size: tuple[int, int]
    flip: bool
    feature: str
    dim: int

    @classmethod
    def of(cls, embedder: Embedder) -> "Network":
        """Folds an embedder's weights.

        Raises UserError for a network that is not described here.
        """
        if not isinstance(embedder.model, TwoStreamOSNet):
            raise UserError(
                f"only a TwoStreamOSNet can be exported in this format, and the"
                f" checkpoint holds a {type(embedder.model).__name__}; --format"
                " safetensors takes any"
            )
        return cls(
            model=embedder.model,
            weights={m: fold(embedder.variables, m) for m in embedder.modalities},
            size=embedder.size,
            flip=embedder.flip,
            feature=embedder.feature,
            dim=embedder.dim,
        )

    def embed(self, ops: Any, images: Any, modality: str) -> Any:
        """Embeds uint8 images `[batch, H, W, 3]`, as `Embedder` does, by `ops`."""
        network = Layer(ops, self.weights[modality])
        x = ops.normalise(images)
        if self.flip:
            x = ops.with_mirror(x)
        x = trunk(network, self.model, x)
        embedding = _identity_head(network / "head", self.model, x)
        if self.model.granularities and self.feature == "all":
            parts = [
                _granularity(network / "parts" / f"parts{count}", self.model, x, count)
                for count in self.model.granularities
            ]
            embedding = ops.concatenate([embedding, *parts])
        embedding = ops.l2_normalise(embedding)
        if self.flip:
            embedding = ops.l2_normalise(ops.sum_of_mirrors(embedding))
        return embedding


def trunk(network: Layer, model: TwoStreamOSNet, x: Any) -> Any:
    """Runs `conv1` to `conv5`."""
    ops = network.ops
    for name in STAGES:
        stage = network / name
        if name == "conv1":
            x = stage.conv(x, "conv", "stem7x7")
            x = stage.normalise_instances(x, "bn")
            x = ops.max_pool3x3(ops.relu(x))
            continue
        if name == "conv5":
            x = ops.relu(stage.conv(x, "conv"))
            continue
        norms = INSTANCE_NORMS[model.variant].get(name, (None, None))
        for index, norm in enumerate(norms):
            x = _block(stage / str(index), x, norm)
        # AIN has its reductions beside the stages.
        for place, reduction in (stage, "2"), (network, name.replace("conv", "pool")):
            if reduction in place:
                x = ops.relu((place / reduction / "0").conv(x, "conv"))
                x = ops.average_pool2x2(x)
    return x


def _block(block: Layer, x: Any, norm: str | None) -> Any:
    ops, shortcut = block.ops, x
    x = ops.relu((block / "conv1").conv(x, "conv"))
    gated = []
    for depth in range(1, 5):
        y = x
        for light in _lights(block, depth):
            y = light.conv(light.conv(y, "conv1"), "conv2", "depthwise3x3")
            y = ops.relu(y)
        gate = block / "gate"
        hidden = ops.relu(gate.conv(ops.mean(y), "fc1"))
        gated.append(ops.sigmoid(gate.conv(hidden, "fc2")) * y)
    out = (block / "conv3").conv(functools.reduce(operator.add, gated), "conv")
    if norm == "exit":
        out = block.normalise_instances(out, "IN")
    if "downsample" in block:
        shortcut = (block / "downsample").conv(shortcut, "conv")
    out = shortcut + out
    if norm == "sum":
        out = block.normalise_instances(out, "IN")
    return ops.relu(out)


def _lights(block: Layer, depth: int) -> list[Layer]:
    """Lists a branch's Lite 3x3 convolutions, whatever the variant calls them."""
    numbered = f"conv2.{depth - 1}.layers"
    branch = block / (numbered if numbered in block else f"conv2{'abcd'[depth - 1]}")
    if "conv1" in branch:
        return [branch]
    return [branch / str(index) for index in range(depth)]


def _identity_head(head: Layer, model: TwoStreamOSNet, x: Any) -> Any:
    pooled = [head.ops.generalised_mean(x)]
    pooled += [
        head.ops.generalised_mean(cut) for cut in _stripes(head, x, model.num_stripes)
    ]
    return head.affine(head.ops.concatenate(pooled), "neck")


def _stripes(layer: Layer, x: Any, count: int) -> list[Any]:
    height = layer.ops.height(x)
    return [layer.ops.rows(x, rows) for rows in stripe_rows(height, count)]


def _granularity(layer: Layer, model: TwoStreamOSNet, x: Any, count: int) -> Any:
    """Follows `part_relations.Granularity`; parts come first: `[parts, batch, D]`."""
    ops = layer.ops
    parts = ops.stack([ops.generalised_mean(cut) for cut in _stripes(layer, x, count)])
    total = ops.sum_over_parts(parts)
    if model.relation == "attention":
        pooled = _attention(layer / "attention", _reduce(layer / "part", parts))
    else:
        rest = (total - parts) * (1 / (count - 1))
        pooled = _relate(layer / "parts", parts, rest)
    if model.contrastive:
        highest = ops.stack([ops.highest(x)])
        contrast = (total - highest) * (1 / (count - 1))
        pooled = ops.join([_relate(layer / "whole", highest, contrast), pooled])
    return layer.affine(ops.features_of_parts(pooled), "neck")


def _reduce(layer: Layer, x: Any) -> Any:
    return layer.ops.relu(layer.linear(x, "linear"))


def _relate(layer: Layer, x: Any, other: Any) -> Any:
    x, other = _reduce(layer / "part", x), _reduce(layer / "rest", other)
    return x + _reduce(layer / "relation", layer.ops.concatenate([x, other]))


def _attention(layer: Layer, x: Any) -> Any:
    query, key, value = (layer.linear(x, name) for name in ("query", "key", "value"))
    query = query * (layer.weights[f"{layer.place}query/kernel"].shape[-1] ** -0.5)
    return x + layer.linear(layer.ops.attend(query, key, value), "out")
