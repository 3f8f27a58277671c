"""A BERT encoder written out as an ONNX graph, straight from its weights: no torch, no tracing.

The graph takes ``input_ids`` and ``attention_mask`` (int64, ``[batch, seq]``) and gives
``last_hidden_state`` (float32, ``[batch, seq, hidden]``). Pooling is done by the caller, which
needs the token vectors too. Used at build time only, in a process of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

OPSET = 20  # the first with Gelu as one operator
IR_VERSION = 10  # the newest that every onnxruntime we support reads
MASKED = -1e9  # added to the attention scores of padding; exp() of it is exactly 0


@dataclass(frozen=True)
class BertShape:
    """The sizes of a BERT encoder, as its ``config.json`` names them."""

    hidden: int
    heads: int
    layers: int
    epsilon: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BertShape:
        """Read the sizes from a ``config.json``; raises ValueError for what is not plain BERT."""
        expected = {
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
        }
        for key, value in expected.items():
            if config.get(key, value) != value:
                msg = f"unsupported {key} {config[key]!r}: only {value!r} can be built from weights"
                raise ValueError(msg)
        return cls(
            hidden=config["hidden_size"],
            heads=config["num_attention_heads"],
            layers=config["num_hidden_layers"],
            epsilon=config["layer_norm_eps"],
        )


class _Graph:
    """Collects nodes and weights, naming each result after its operator."""

    def __init__(self, weights: Mapping[str, np.ndarray], shape: BertShape) -> None:
        self.weights = weights
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """Add a constant once, under `name`; returns the name."""
        if name not in self.initializers:
            array: npt.NDArray[Any] = np.asarray(value, dtype=dtype, order="C")
            self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add one node; returns the name of its output."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{name}_node", **attributes))
        return name

    def linear(self, x: str, prefix: str) -> str:
        """``x @ W.T + b``."""
        weight = self.constant(f"{prefix}.weight", self.weights[f"{prefix}.weight"].T)
        bias = self.constant(f"{prefix}.bias", self.weights[f"{prefix}.bias"])
        return self.op("Add", self.op("MatMul", x, weight), bias)

    def layer_norm(self, x: str, prefix: str) -> str:
        """Layer normalisation over the hidden axis."""
        scale = self.constant(f"{prefix}.scale", self.weights[f"{prefix}.weight"])
        shift = self.constant(f"{prefix}.shift", self.weights[f"{prefix}.bias"])
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=self.shape.epsilon)

    def embeddings(self) -> str:
        """Word + position + type-0 embeddings, normalised."""
        prefix = "embeddings."
        words = self.constant("words", self.weights[f"{prefix}word_embeddings.weight"])
        types = self.weights[f"{prefix}token_type_embeddings.weight"][0]
        positions = self.weights[f"{prefix}position_embeddings.weight"] + types
        one = self.constant("one", 1, np.int64)
        length = self.op("Gather", self.op("Shape", "input_ids"), one, axis=0)
        index = self.op("Range", self.constant("zero", 0, np.int64), length, one)
        x = self.op(
            "Add",
            self.op("Gather", words, "input_ids"),
            self.op("Gather", self.constant("positions", positions), index),
        )
        return self.layer_norm(x, f"{prefix}LayerNorm")

    def mask_bias(self) -> str:
        """0 for a token and `MASKED` for padding, shaped ``[batch, 1, 1, seq]``."""
        axes = self.constant("mask_axes", [1, 2], np.int64)
        wide = self.op("Unsqueeze", "attention_mask", axes)
        mask = self.op("Cast", wide, to=TensorProto.FLOAT)
        padding = self.op("Sub", self.constant("one_f", 1.0), mask)
        return self.op("Mul", padding, self.constant("masked", MASKED))

    def heads(self, x: str, perm: list[int]) -> str:
        """``[batch, seq, hidden]`` -> heads apart, transposed by `perm`."""
        size = self.shape.hidden // self.shape.heads
        split = self.constant("split_heads", [0, 0, self.shape.heads, size], np.int64)
        return self.op("Transpose", self.op("Reshape", x, split), perm=perm)

    def attention(self, x: str, bias: str, prefix: str) -> str:
        """Multi-head self-attention with its output projection."""
        names = (f"{prefix}.self.{part}" for part in ("query", "key", "value"))
        query, key, value = (self.linear(x, name) for name in names)
        scale = self.constant("scale", (self.shape.hidden // self.shape.heads) ** -0.5)
        scores = self.op("MatMul", self.heads(query, [0, 2, 1, 3]), self.heads(key, [0, 2, 3, 1]))
        masked = self.op("Add", self.op("Mul", scores, scale), bias)
        weights = self.op("Softmax", masked, axis=-1)
        mixed = self.op("MatMul", weights, self.heads(value, [0, 2, 1, 3]))
        merge = self.constant("merge_heads", [0, 0, self.shape.hidden], np.int64)
        merged = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), merge)
        return self.linear(merged, f"{prefix}.output.dense")

    def layer(self, x: str, bias: str, number: int) -> str:
        """One transformer layer: attention and feed-forward, each with a residual and a norm."""
        prefix = f"encoder.layer.{number}"
        attended = self.op("Add", self.attention(x, bias, f"{prefix}.attention"), x)
        x = self.layer_norm(attended, f"{prefix}.attention.output.LayerNorm")
        inner = self.op("Gelu", self.linear(x, f"{prefix}.intermediate.dense"))
        outer = self.op("Add", self.linear(inner, f"{prefix}.output.dense"), x)
        return self.layer_norm(outer, f"{prefix}.output.LayerNorm")


def build_graph(weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> onnx.ModelProto:
    """Write a BERT encoder as an ONNX model.

    Args:
        weights: tensors by their name in ``model.safetensors`` (a ``bert.`` prefix is dropped).
        config: the model's ``config.json``.

    Raises:
        ValueError: the model is not plain BERT.
        KeyError: a tensor is missing.

    """
    shape = BertShape.from_config(config)
    graph = _Graph({_plain(k): v.astype(np.float32) for k, v in weights.items()}, shape)
    x, bias = graph.embeddings(), graph.mask_bias()
    for number in range(shape.layers):
        x = graph.layer(x, bias, number)
    graph.op("Identity", x, output="last_hidden_state")
    return _as_model(graph, shape)


def _plain(name: str) -> str:
    """A tensor's name without its prefix, and with today's names for the norms' parts."""
    short = name.removeprefix("bert.")
    return short.replace(".gamma", ".weight").replace(".beta", ".bias")


def _as_model(graph: _Graph, shape: BertShape) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["batch", "seq", shape.hidden]
    )
    body = helper.make_graph(
        graph.nodes, "bert", inputs, [output], list(graph.initializers.values())
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
