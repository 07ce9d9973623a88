"""The preprocessing as the first operators of an ONNX file: 8-bit grey images in, probabilities out.

`images` (B, H, W) uint8, 0 black, all of one size and any size -> resized to S x S, centre crop of D, scaled and
shifted, three equal channels -> the model -> `logits` and `probabilities` (B, C) float32.

onnxruntime resizes uint8 with Pillow's own integer arithmetic, so a pixel is Pillow's or, seldom, one level off. An
image of S x S pixels passes through unchanged: then the values are the image processor's.

What a file format means (DICOM windows, 16 bits, inverted grey) is not in the graph: the caller decodes to 8-bit grey.

Refused: an image processor whose filter ONNX does not have.

B = images in a batch, C = findings, H, W = height and width of the images, S = resized side, D = cropped side.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_cxr.export.onnx_model import INPUT, OUTPUT, ExportMetadata, describe
from hf_cxr.processing import Preprocessing

if TYPE_CHECKING:
    import onnx

IMAGES, PROBABILITIES = "images", "probabilities"
FILTERS = {
    Image.Resampling.BILINEAR: {"mode": "linear"},
    Image.Resampling.BICUBIC: {"mode": "cubic", "cubic_coeff_a": -0.5},
}


def check_filter(steps: Preprocessing, name: str) -> None:
    """Refuse at the start a filter that ONNX does not have.

    Raises:
        ValueError: names the filter.
    """
    if steps.resample not in FILTERS:
        raise ValueError(
            f"{name} resizes with the filter {Image.Resampling(steps.resample).name.lower()}, and ONNX has only "
            "bilinear and bicubic as Pillow computes them; export without --preprocessing and --page"
        )


def with_preprocessing(model: "onnx.ModelProto", about: ExportMetadata) -> "onnx.ModelProto":
    """A new model: the preprocessing, then ``model``, then the sigmoid.

    Args:
        model: from `onnx_model.onnx_of`; not changed.
        about: its ``steps`` are those that are added.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    nodes = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*_nodes(about.steps), *nodes, helper.make_node("Sigmoid", [OUTPUT], [PROBABILITIES])])
    constants = _constants(about.steps)
    graph.initializer.extend(numpy_helper.from_array(value, _named(key)) for key, value in constants.items())
    graph.ClearField("input")
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, ["batch", "height", "width"]))
    graph.output.append(
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, ["batch", len(about.label_names)])
    )
    onnx.checker.check_model(whole)
    describe(whole, about)
    return whole


def _constants(steps: Preprocessing) -> dict[str, NDArray]:
    """The inputs of the operators that are the same for every image."""
    start = (steps.resize_size - steps.image_size) // 2
    std_C = np.array(steps.std, np.float32)
    return {
        "one": np.array([1], np.int64),
        "resized_size": np.array([steps.resize_size] * 2, np.int64),
        "crop_start": np.array([start] * 2, np.int64),
        "crop_stop": np.array([start + steps.image_size] * 2, np.int64),
        "crop_axes": np.array([2, 3], np.int64),
        "scale": (np.float32(steps.rescale_factor) / std_C)[None, :, None, None],
        "shift": (-np.array(steps.mean, np.float32) / std_C)[None, :, None, None],
    }


def _nodes(steps: Preprocessing) -> "list[onnx.NodeProto]":
    """The operators, from `IMAGES` to the model's input."""
    from onnx import TensorProto, helper

    def node(operator: str, inputs: list[str], output: str, **attributes) -> "onnx.NodeProto":
        return helper.make_node(operator, [_named(key) for key in inputs], [_named(output)], **attributes)

    return [
        node("Unsqueeze", [IMAGES, "one"], "grey"),
        node("Shape", ["grey"], "shape", start=0, end=2),
        node("Concat", ["shape", "resized_size"], "sizes", axis=0),
        node(
            "Resize",
            ["grey", "", "", "sizes"],
            "resized",
            antialias=1,
            coordinate_transformation_mode="half_pixel",
            exclude_outside=1,
            **FILTERS[Image.Resampling(steps.resample)],
        ),
        node("Slice", ["resized", "crop_start", "crop_stop", "crop_axes"], "crop"),
        node("Cast", ["crop"], "float", to=TensorProto.FLOAT),
        node("Mul", ["float", "scale"], "product"),
        node("Add", ["product", "shift"], INPUT),
    ]


def _named(key: str) -> str:
    """The name of a value in the graph; what the model or its caller names, and no value, keep theirs."""
    return key if key in (IMAGES, INPUT, "") else f"preprocessing_{key}"
