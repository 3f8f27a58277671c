"""What is added to an encoder's graph: pooling, and the projection of its token vectors.

The result has two outputs: ``sentence`` (float32 ``[batch, hidden]``, unit length) and ``tokens``
(int8 ``[batch, seq, dimensions]``, unit length times 127).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import onnx

INT8_MAX = 127.0
OLDEST_OPSET = 13  # Unsqueeze takes its axes as an input from here on


def principal_directions(
    vectors: npt.NDArray[np.float32], dimensions: int
) -> npt.NDArray[np.float32]:
    """The top principal directions of unit rows ``[n, hidden]``, as ``[hidden, dimensions]``.

    Not centred, so that products of projected vectors approximate cosines. The sign of each
    direction is fixed (its largest part is positive), so every machine gets the same ones.
    """
    exact = vectors.astype(np.float64)
    _, directions = np.linalg.eigh(exact.T @ exact)
    top = directions[:, ::-1][:, :dimensions]
    largest = np.argmax(np.abs(top), axis=0)
    signs = np.sign(top[largest, np.arange(top.shape[1])])
    return np.ascontiguousarray(top * signs, dtype=np.float32)


def hidden_output(model: onnx.ModelProto) -> str:
    """The name of the output that holds a vector per token; raises ValueError if none does."""
    names = [output.name for output in model.graph.output]
    for name in ("last_hidden_state", "token_embeddings"):
        if name in names:
            return name
    raise ValueError(f"no output last_hidden_state or token_embeddings, only {', '.join(names)}")


def append_head(
    model: onnx.ModelProto, projection: npt.NDArray[np.float32], pooling: str
) -> onnx.ModelProto:
    """Replace `model`'s outputs, in place, by ``sentence`` and ``tokens``; returns it.

    Args:
        model: takes ``attention_mask`` and has a `hidden_output`.
        projection: float32 ``[hidden, dimensions]``.
        pooling: ``mean`` (over the mask) or ``cls`` (the first token).

    Raises:
        ValueError: the graph's operator set is too old, or it has no such output.

    """
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise ValueError(f"operator set {opset} is too old: export with {OLDEST_OPSET} or newer")
    hidden = hidden_output(model)
    nodes = [*_pool(hidden, pooling), *_project(hidden)]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(_constants(projection))
    del model.graph.output[:]
    width, dimensions = projection.shape
    model.graph.output.extend(
        [
            helper.make_tensor_value_info("sentence", TensorProto.FLOAT, ["batch", width]),
            helper.make_tensor_value_info("tokens", TensorProto.INT8, ["batch", "seq", dimensions]),
        ]
    )
    return model


def _constants(projection: npt.NDArray[np.float32]) -> list[onnx.TensorProto]:
    constants: dict[str, npt.NDArray[Any]] = {
        "head.axis1": np.array([1], np.int64),
        "head.first": np.array(0, np.int64),
        "head.projection": projection,
        "head.int8_max": np.array(INT8_MAX, np.float32),
    }
    return [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _pool(hidden: str, pooling: str) -> Sequence[onnx.NodeProto]:
    """The sum over the mask has the direction of the mean; the length is normalised anyway."""
    if pooling == "cls":
        pooled = [_node("Gather", [hidden, "head.first"], "head.pooled", axis=1)]
    else:
        pooled = [
            _node("Cast", ["attention_mask"], "head.mask", to=TensorProto.FLOAT),
            _node("Unsqueeze", ["head.mask", "head.axis1"], "head.mask_row"),
            _node("MatMul", ["head.mask_row", hidden], "head.sum"),
            _node("Squeeze", ["head.sum", "head.axis1"], "head.pooled"),
        ]
    return [*pooled, _node("LpNormalization", ["head.pooled"], "sentence", axis=-1, p=2)]


def _project(hidden: str) -> Sequence[onnx.NodeProto]:
    """Normalising before the projection would not change its direction, so it is done once."""
    return [
        _node("MatMul", [hidden, "head.projection"], "head.projected"),
        _node("LpNormalization", ["head.projected"], "head.unit", axis=-1, p=2),
        _node("Mul", ["head.unit", "head.int8_max"], "head.scaled"),
        _node("Round", ["head.scaled"], "head.rounded"),
        _node("Cast", ["head.rounded"], "tokens", to=TensorProto.INT8),
    ]


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{output}_node", **attributes)
