"""A small ONNX file for what is pushed: one linear layer whose weights are in the file."""

from pathlib import Path

import numpy as np
import onnx

from hf_cxr.exported_files import RESULT


def write(path: Path, sha256: str | None, *, node: dict | None = None, change=lambda model: None) -> Path:
    """Write the file.

    Args:
        path: where; its folder is made, and export.json above it, which says that the export is complete.
        sha256: fingerprint of the model that the file says it was exported from; None if it says none.
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
    if sha256 is not None:
        onnx.helper.set_model_props(model, {"model_sha256": sha256})
    change(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parents[1] / RESULT).write_text("{}")
    onnx.save(model, path)
    return path
