"""The two-stream network at test as an ONNX graph, with folded weights.

Written node by node, because a converter of traced programs does much worse:
jax2onnx 0.17.1 makes 2,486 nodes of `osnet_x0_25` with parts, where there are 497 here,
cannot convert the mirror for any number of images, and onnxruntime refuses its max
pooling. A map is `[batch, C, H, W]` here; images are `[batch, H, W, 3]`, as elsewhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vireid_jax.data.augment import MEAN, STD
from vireid_jax.embed.embedder import Embedder
from vireid_jax.export import folding
from vireid_jax.models.heads import stripe_rows
from vireid_jax.models.osnet import STAGES
from vireid_jax.models.two_stream import TwoStreamOSNet
from vireid_jax.run.errors import UserError

OPSET, IR_VERSION = 17, 8  # of 2022, so that older runtimes can read the files
_BEFORE_THE_FIRST = -(2**31)  # the end of a slice that goes backwards


def onnx_model(
    embedder: Embedder, modalities: Sequence[str], metadata: dict[str, str]
) -> onnx.ModelProto:
    """Write the streams of `modalities` into one model.

    The input of a single stream is `images` and its output `embedding`; of several
    streams they have the modality in the name, and equal weights are stored once. Raise
    UserError for a network other than TwoStreamOSNet.
    """
    if not isinstance(embedder.model, TwoStreamOSNet):
        raise UserError(
            f"the checkpoint holds a {type(embedder.model).__name__}; --format onnx is"
            " for TwoStreamOSNet only, use --format safetensors or jax"
        )
    graph, inputs, outputs = Graph(), [], []
    for modality in modalities:
        images, prefix = modality, f"{modality}_"
        if len(modalities) == 1:
            images, prefix = "images", ""
        output, batch = f"{prefix}embedding", f"{prefix}batch"
        embedding = Stream(graph, embedder, modality).embed(images)
        graph.node("Identity", embedding, name=output)
        describe, shape = helper.make_tensor_value_info, (batch, *embedder.size, 3)
        inputs.append(describe(images, TensorProto.UINT8, shape))
        outputs.append(describe(output, TensorProto.FLOAT, (batch, embedder.dim)))
    weights = [numpy_helper.from_array(x, name) for name, x in graph.weights.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "vireid_jax", inputs, outputs, weights),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="vireid_jax",
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


class Graph:
    """Collect nodes and weights; a value is a string, the name of a node's output."""

    def __init__(self):
        """Start an empty graph."""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """Add a node; an input is a value, a float, or a tuple of integers."""
        name = name or f"{kind}_{len(self.nodes)}"
        values = []
        for x in inputs:
            dtype = np.float32 if isinstance(x, float) else np.int64
            is_value = isinstance(x, str)
            values.append(x if is_value else self.weight(str(x), np.array(x, dtype)))
        node = helper.make_node(kind, values, [name], f"node_{name}", **attributes)
        self.nodes.append(node)
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        """Add a weight once; one that differs from that of this name gets another."""
        while not np.array_equal(self.weights.get(name, value), value):
            name += "'"
        self.weights[name] = value
        return name


class Stream:
    """Add one modality's network to a graph; `path` is where a layer's weights are."""

    def __init__(self, graph: Graph, embedder: Embedder, modality: str):
        """Fold the weights that an image of `modality` passes through."""
        self.graph, self.node = graph, graph.node
        self.embedder, self.model = embedder, embedder.model
        self.weights = folding.fold(embedder.variables, modality)

    def embed(self, images: str) -> str:
        """Embed uint8 images, as `training.step.make_embed_step` does."""
        x = self.node("Transpose", images, perm=(0, 3, 1, 2))
        x = self.node("Cast", x, to=TensorProto.FLOAT)
        pixels = {"scale": 1 / (255 * STD), "bias": -MEAN / STD}
        self.weights |= {f"pixels/{k}": v.reshape(3, 1, 1) for k, v in pixels.items()}
        x = self.affine(x, "pixels")
        if self.embedder.flip:
            mirror = self.node("Slice", x, (-1,), (_BEFORE_THE_FIRST,), (3,), (-1,))
            x = self.node("Concat", x, mirror, axis=0)
        x = self.trunk(x)
        pooled = self.pooled_stripes(x, self.model.num_stripes)
        pooled = self.node("Concat", self.generalised_mean(x), *pooled, axis=-1)
        features = [self.affine(pooled, "head/neck")]
        for count in self.model.granularities if self.embedder.feature == "all" else ():
            features.append(self.granularity(self.pooled_stripes(x, count)))
        x = self.l2_normalise(self.node("Concat", *features, axis=-1))
        if self.embedder.flip:
            halves = [f"{x}_image", f"{x}_mirror"]
            self.graph.nodes.append(helper.make_node("Split", [x], halves, axis=0))
            x = self.l2_normalise(self.node("Add", *halves))
        return x

    # --- Layers -----------------------------------------------------------------------

    def get(self, path: str) -> str:
        """Return a weight as a value."""
        value = self.weights[path]
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        return self.graph.weight(path, value)

    def conv(self, x: str, path: str) -> str:
        """Convolve: 7x7 of stride 2 (the stem), 3x3 depthwise, or 1x1."""
        names = [f"{path}/{name}" for name in ("kernel", "bias")]
        side, _, _, features = self.weights[names[0]].shape
        weights = (self.get(name) for name in names if name in self.weights)
        shape = {"kernel_shape": (side, side), "pads": (side // 2,) * 4}
        shape["strides"] = (2, 2) if side == 7 else (1, 1)
        groups = features if side == 3 else 1
        return self.node("Conv", x, *weights, **shape, group=groups)

    def conv_relu(self, x: str, path: str) -> str:
        """Convolve and apply ReLU."""
        return self.node("Relu", self.conv(x, path))

    def affine(self, x: str, path: str) -> str:
        """Scale and shift."""
        x = self.node("Mul", x, self.get(f"{path}/scale"))
        return self.node("Add", x, self.get(f"{path}/bias"))

    def instance_norm(self, x: str, path: str) -> str:
        """Apply an instance norm, if the network has one at `path`."""
        if f"{path}/scale" not in self.weights:
            return x
        inputs = (x, self.get(f"{path}/scale"), self.get(f"{path}/bias"))
        return self.node("InstanceNormalization", *inputs, epsilon=folding.EPSILON)

    def generalised_mean(self, x: str) -> str:
        """Pool a map to features `[batch, C]`."""
        x = self.node("Max", x, 1e-6)
        cubes = self.node("Mul", self.node("Mul", x, x), x)
        mean = self.node("Flatten", self.node("GlobalAveragePool", cubes))
        return self.node("Pow", mean, 1 / 3)

    def pooled_stripes(self, x: str, count: int) -> list[str]:
        """Cut the last map into stripes and pool each."""
        height = -(-self.embedder.size[0] // 4) // 4
        cuts = [((cut.start,), (cut.stop,)) for cut in stripe_rows(height, count)]
        stripes = [self.node("Slice", x, *cut, (2,)) for cut in cuts]
        return [self.generalised_mean(stripe) for stripe in stripes]

    def l2_normalise(self, x: str) -> str:
        """Scale features to length 1."""
        length = self.node("ReduceL2", x, axes=(-1,))
        return self.node("Div", x, self.node("Max", length, 1e-6))

    # --- The trunk --------------------------------------------------------------------

    def trunk(self, x: str) -> str:
        """Run `conv1` to `conv5`."""
        x = self.instance_norm(self.conv(x, "conv1/conv"), "conv1/bn")
        x, halved, pads = self.node("Relu", x), (2, 2), (1, 1, 1, 1)
        x = self.node("MaxPool", x, kernel_shape=(3, 3), pads=pads, strides=halved)
        for stage in STAGES[1:4]:
            for index in (0, 1):
                x = self.block(x, f"{stage}/{index}")
            # AIN has its reductions beside the stages.
            for name in (f"{stage}/2", stage.replace("conv", "pool")):
                if f"{name}/0/conv/kernel" in self.weights:
                    x = self.conv_relu(x, f"{name}/0/conv")
                    x = self.node("AveragePool", x, kernel_shape=(2, 2), strides=halved)
        return self.conv_relu(x, "conv5/conv")

    def block(self, x: str, path: str) -> str:
        """Run an OSBlock."""
        shortcut = x
        x = self.conv_relu(x, f"{path}/conv1/conv")
        total = ""
        for depth in range(1, 5):
            y = x
            for light in self.lights(path, depth):
                y = self.conv_relu(self.conv(y, f"{light}/conv1"), f"{light}/conv2")
            gate = self.node("GlobalAveragePool", y)
            gate = self.conv_relu(gate, f"{path}/gate/fc1")
            gate = self.conv(gate, f"{path}/gate/fc2")
            y = self.node("Mul", self.node("Sigmoid", gate), y)
            total = self.node("Add", total, y) if total else y
        x = self.conv(total, f"{path}/conv3/conv")
        if self.model.variant == "ain":
            x = self.instance_norm(x, f"{path}/IN")
        if f"{path}/downsample/conv/kernel" in self.weights:
            shortcut = self.conv(shortcut, f"{path}/downsample/conv")
        x = self.node("Add", shortcut, x)
        if self.model.variant == "ibn":
            x = self.instance_norm(x, f"{path}/IN")
        return self.node("Relu", x)

    def lights(self, path: str, depth: int) -> list[str]:
        """Return the paths of a branch's Lite 3x3 convolutions."""
        if self.model.variant == "ain":
            return [f"{path}/conv2.{depth - 1}.layers/{i}" for i in range(depth)]
        branch = f"{path}/conv2{'abcd'[depth - 1]}"
        return [f"{branch}/{i}" for i in range(depth)] if depth > 1 else [branch]

    # --- Part relations: parts come first, `[parts, batch, D]` ------------------------

    def granularity(self, pooled: list[str]) -> str:
        """Relate parts, as `part_relations.Granularity`; return `[batch, parts D]`."""
        path = f"parts/parts{len(pooled)}"
        parts = [self.node("Unsqueeze", part, (0,)) for part in pooled]
        parts = self.node("Concat", *parts, axis=0)
        if self.model.relation == "attention":
            related = self.attention(self.reducer(parts, f"{path}/part"), path)
        else:
            rest = self.node("Sub", self.node("ReduceSum", parts, (0,)), parts)
            rest = self.node("Mul", rest, 1 / (len(pooled) - 1))
            x = self.reducer(parts, f"{path}/parts/part")
            rest = self.reducer(rest, f"{path}/parts/rest")
            both = self.node("Concat", x, rest, axis=-1)
            both = self.reducer(both, f"{path}/parts/relation")
            related = self.node("Add", x, both)
        by_image = self.node("Transpose", related, perm=(1, 0, 2))
        return self.affine(self.node("Flatten", by_image), f"{path}/neck")

    def reducer(self, x: str, path: str) -> str:
        """Map linearly and apply ReLU."""
        x = self.node("MatMul", x, self.get(f"{path}/linear/kernel"))
        return self.node("Relu", self.node("Add", x, self.get(f"{path}/linear/bias")))

    def attention(self, x: str, path: str) -> str:
        """Add to each part what one head finds in all parts of the same image."""
        linear = lambda x, name: self.node(
            "MatMul", x, self.get(f"{path}/attention/{name}/kernel")
        )
        by_image = self.node("Transpose", x, perm=(1, 0, 2))
        query, key, value = (linear(by_image, n) for n in ("query", "key", "value"))
        key = self.node("Transpose", key, perm=(0, 2, 1))
        scores = self.node("MatMul", query, key)
        features = self.weights[f"{path}/attention/query/kernel"].shape[-1]
        weights = self.node("Softmax", self.node("Mul", scores, features**-0.5))
        attended = self.node("MatMul", weights, value)
        attended = self.node("Transpose", attended, perm=(1, 0, 2))
        return self.node("Add", x, linear(attended, "out"))
