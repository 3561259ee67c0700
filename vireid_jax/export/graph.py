# ruff: noqa: D102 (the operations are described where they are done, in arrays.py)
"""The operations of `network.py`, written down as an ONNX graph.

A map is `[batch, C, H, W]` here, as ONNX's convolutions want it; images come as the
rest of this package has them, `[batch, H, W, 3]`. Any number of images may come.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vireid_jax.data.augment import MEAN, STD
from vireid_jax.export.folding import EPSILON

OPSET, IR_VERSION = 17, 8  # of 2022, so that no runtime is too old
_BEFORE_THE_FIRST = -(2**31)  # where a slice that goes backwards ends


class Value(NamedTuple):
    """What a node gives."""

    graph: "Graph"
    name: str
    height: int = 0  # of a map

    def __add__(self, other: "Value") -> "Value":
        """Adds."""
        return self.graph.node("Add", self, other)

    def __sub__(self, other: "Value") -> "Value":
        """Subtracts."""
        return self.graph.node("Sub", self, other)

    def __mul__(self, other: "Value | float") -> "Value":
        """Multiplies."""
        return self.graph.node("Mul", self, other)


class Graph:
    """Collects nodes and weights; `model` gives them as a file's content.

    The operations are those of `arrays.Arrays`, where each is described.
    """

    def __init__(self):
        """Begins an empty graph."""
        self._nodes, self._inputs, self._outputs = [], [], []
        self._constants: dict[str, np.ndarray] = {}

    def images(self, name: str, batch: str, size: tuple[int, int]) -> Value:
        """Adds an input, uint8 `[batch, height, width, 3]`; `batch` is a name, too."""
        shape = (batch, *size, 3)
        kind = helper.make_tensor_value_info(name, TensorProto.UINT8, shape)
        self._inputs.append(kind)
        return Value(self, name, size[0])

    def give(self, embeddings: Value, name: str, batch: str, dim: int) -> None:
        """Makes float32 `[batch, dim]` an output."""
        self._nodes.append(helper.make_node("Identity", [embeddings.name], [name]))
        kind = helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, dim))
        self._outputs.append(kind)

    def model(self, metadata: dict[str, str]) -> onnx.ModelProto:
        """Returns the graph with all its weights, checked."""
        weights = [numpy_helper.from_array(x, n) for n, x in self._constants.items()]
        graph = helper.make_graph(
            self._nodes, "vireid_jax", self._inputs, self._outputs, weights
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        model.producer_name = "vireid_jax"
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model

    def node(
        self, kind: str, *inputs: Value | float | None, outputs: int = 1, **attributes
    ) -> Any:
        """Adds a node; returns its only output, or a list of `outputs`."""
        values = [
            x if isinstance(x, Value) else self._number(x)
            for x in inputs
            if x is not None
        ]
        node = f"{kind}_{len(self._nodes)}"
        names = [f"{node}_{i}" for i in range(outputs)]
        inputs = [x.name for x in values]
        self._nodes.append(helper.make_node(kind, inputs, names, node, **attributes))
        height = max(x.height for x in values)
        found = [Value(self, name, height) for name in names]
        return found[0] if outputs == 1 else found

    def constant(self, place: str, value: np.ndarray | None) -> Value | None:
        """Adds a weight, once; two streams' that differ get two names."""
        if value is None:
            return None
        if value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        while not np.array_equal(self._constants.get(place, value), value):
            place += "'"
        self._constants[place] = value
        return Value(self, place)

    def _number(self, value: float) -> Value:
        return self.constant(f"{value:.6g}", np.array(value, np.float32))

    def _integers(self, *values: int) -> Value:
        name = f"integers {' '.join(map(str, values))}"
        return self.constant(name, np.array(values, np.int64))

    # --- images and maps --------------------------------------------------------------

    def normalise(self, images: Value) -> Value:
        x = self.node("Transpose", images, perm=(0, 3, 1, 2))
        x = self.node("Cast", x, to=TensorProto.FLOAT)
        gain, shift = (1 / (255 * STD)), -MEAN / STD
        x = x * self.constant("pixels/scale", gain.reshape(3, 1, 1))
        return x + self.constant("pixels/bias", shift.reshape(3, 1, 1))

    def with_mirror(self, x: Value) -> Value:
        ends = self._integers(-1), self._integers(_BEFORE_THE_FIRST)
        mirror = self.node("Slice", x, *ends, self._integers(3), self._integers(-1))
        return self.node("Concat", x, mirror, axis=0)

    def stem7x7(self, x: Value, kernel: Value, bias: Value | None) -> Value:
        x = self._conv(x, kernel, bias, pads=(3, 3, 3, 3), strides=(2, 2))
        return x._replace(height=(x.height - 1) // 2 + 1)

    def pointwise(self, x: Value, kernel: Value, bias: Value | None) -> Value:
        return self._conv(x, kernel, bias)

    def depthwise3x3(self, x: Value, kernel: Value, bias: Value | None) -> Value:
        channels = len(self._constants[kernel.name])
        return self._conv(x, kernel, bias, pads=(1, 1, 1, 1), group=channels)

    def _conv(
        self, x: Value, kernel: Value, bias: Value | None, **attributes: Any
    ) -> Value:
        shape = self._constants[kernel.name].shape[2:]
        return self.node("Conv", x, kernel, bias, kernel_shape=shape, **attributes)

    def max_pool3x3(self, x: Value) -> Value:
        size = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)}
        x = self.node("MaxPool", x, **size)
        return x._replace(height=(x.height - 1) // 2 + 1)

    def average_pool2x2(self, x: Value) -> Value:
        x = self.node("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))
        return x._replace(height=x.height // 2)

    def instance_norm(self, x: Value, scale: Value, bias: Value) -> Value:
        return self.node("InstanceNormalization", x, scale, bias, epsilon=EPSILON)

    def relu(self, x: Value) -> Value:
        return self.node("Relu", x)

    def sigmoid(self, x: Value) -> Value:
        return self.node("Sigmoid", x)

    def mean(self, x: Value) -> Value:
        return self.node("GlobalAveragePool", x)

    def height(self, x: Value) -> int:
        return x.height

    def rows(self, x: Value, rows: slice) -> Value:
        limits = (self._integers(n) for n in (rows.start, rows.stop, 2))
        return self.node("Slice", x, *limits)

    # --- features ---------------------------------------------------------------------

    def generalised_mean(self, x: Value) -> Value:
        x = self.node("Max", x, 1e-6)
        cubes = self.node("GlobalAveragePool", x * x * x)
        return self.node("Pow", self.node("Flatten", cubes), 1 / 3)

    def highest(self, x: Value) -> Value:
        return self.node("Flatten", self.node("GlobalMaxPool", x))

    def concatenate(self, features: Sequence[Value]) -> Value:
        return self.node("Concat", *features, axis=-1)

    def matmul(self, x: Value, kernel: Value) -> Value:
        return self.node("MatMul", x, kernel)

    def stack(self, parts: Sequence[Value]) -> Value:
        first = self._integers(0)
        return self.join([self.node("Unsqueeze", part, first) for part in parts])

    def join(self, groups: Sequence[Value]) -> Value:
        return self.node("Concat", *groups, axis=0)

    def sum_over_parts(self, parts: Value) -> Value:
        return self.node("ReduceSum", parts, self._integers(0))

    def attend(self, query: Value, key: Value, value: Value) -> Value:
        query, value = (
            self.node("Transpose", x, perm=(1, 0, 2)) for x in (query, value)
        )
        scores = self.matmul(query, self.node("Transpose", key, perm=(1, 2, 0)))
        found = self.matmul(self.node("Softmax", scores), value)
        return self.node("Transpose", found, perm=(1, 0, 2))

    def features_of_parts(self, parts: Value) -> Value:
        by_image = self.node("Transpose", parts, perm=(1, 0, 2))
        return self.node("Flatten", by_image)

    def l2_normalise(self, x: Value) -> Value:
        length = self.node("ReduceL2", x, axes=(-1,))
        return self.node("Div", x, self.node("Max", length, 1e-6))

    def sum_of_mirrors(self, x: Value) -> Value:
        one, other = self.node("Split", x, outputs=2, axis=0)
        return one + other
