"""A small ONNX file for what is pushed: one linear layer whose weights are in the file."""

from pathlib import Path

import numpy as np
import onnx


def write(path: Path, *, node: dict | None = None, change=lambda model: None) -> Path:
    """Write the file.

    Args:
        path: where; its folder is made.
        node: further fields of the one node, such as doc_string.
        change: called with the model before it is written.
    """
    weights = onnx.numpy_helper.from_array(np.ones((4, 2), np.float32), "classifier.weight")
    node = onnx.helper.make_node(
        "MatMul", ["pixel_values", "classifier.weight"], ["logits"], "/swin/MatMul", **node or {}
    )
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "main_graph",
        [value("pixel_values", onnx.TensorProto.FLOAT, ["batch", 4])],
        [value("logits", onnx.TensorProto.FLOAT, ["batch", 2])],
        [weights],
    )
    model = onnx.helper.make_model(graph)
    change(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
