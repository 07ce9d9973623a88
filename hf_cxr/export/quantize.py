"""Weights of an ONNX model in 8-bit integers, by onnxruntime's quantisation. What it costs is measured by `cost`.

Which of the two ways is taken depends on where the weights are; each was measured on phantoms (docs/exporting.md):

- in matrix products, as in a transformer or a ConvNeXt: "dynamic". The weights are integers, one scale a column, and
  what meets them is rounded when it arrives. Convolutions in this way would be four to five times slower than float.
- in convolutions, as in a ResNet: "static". Weights and activations are integers, one scale a channel; the ranges of
  activations come from calibration images.

The head stays in float32 in both: it is small, and the calibrated probabilities are made in it.

Refused: a model without weights that can be quantised.

B = images in a batch, N = images, D = side in pixels.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_cxr.export.onnx_model import INPUT, ExportMetadata, describe, strip
from hf_cxr.export.runtime import session
from hf_cxr.words import error_words

if TYPE_CHECKING:
    import onnx

CALIBRATION_IMAGES = 128
"""Images whose activations give the ranges of static quantisation; they are not the images that the cost is of."""

MATRIX, CONVOLUTION = ("MatMul",), ("Conv",)  # the head is a Gemm, and stays as it is
STATIC = (*CONVOLUTION, "Add", "Mul", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""What static quantisation turns into integers. With group norms among them onnxruntime 1.32 writes files that it
cannot read."""


def way_of(model: "onnx.ModelProto", name: str) -> str:
    """ "dynamic" or "static": see the module's first lines.

    Raises:
        ValueError: the model has no weights that can be quantised.
    """
    size = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    weights = {
        kind: sum(size.get(key, 0) for node in model.graph.node if node.op_type in kind for key in node.input[1:2])
        for kind in (MATRIX, CONVOLUTION)
    }
    if not any(weights.values()):
        raise ValueError(f"{name} has no matrix products and no convolutions whose weights could be 8-bit integers")
    return "dynamic" if weights[MATRIX] >= weights[CONVOLUTION] else "static"


def quantised(
    model: "onnx.ModelProto", about: ExportMetadata, way: str, value_N3DD: NDArray[np.float32], name: str
) -> "onnx.ModelProto":
    """The same model with weights in 8-bit integers.

    Args:
        model: from `onnx_model.onnx_of`; not changed.
        about: what the file says of itself.
        way: from `way_of`.
        value_N3DD: normalised calibration images; read for "static" alone.
        name: of the model, for a message.

    Raises:
        ValueError: onnxruntime cannot quantise it.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises to call quant_pre_process, which is what happens
    try:
        with tempfile.TemporaryDirectory() as folder:
            float_file, ready, out = (Path(folder) / f"{part}.onnx" for part in ("float", "ready", "int8"))
            onnx.save(model, float_file)
            # Its symbolic shape inference fails on a ConvNeXtV2; torch wrote the shapes already.
            quant_pre_process(str(float_file), str(ready), skip_symbolic_shape=True)
            common: dict[str, Any] = {"per_channel": True, "weight_type": QuantType.QInt8}
            if way == "dynamic":
                quantize_dynamic(str(ready), str(out), op_types_to_quantize=list(MATRIX), **common)
            else:
                quantize_static(
                    str(ready),
                    str(out),
                    _reader(value_N3DD),
                    quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8,
                    op_types_to_quantize=list(STATIC),
                    **common,
                )
            result = onnx.load(out)
            session(out)
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime has its own errors, and its quantisation raises TypeError and KeyError
        raise ValueError(f"onnxruntime cannot quantise {name} ({error_words(error)}); leave out --int8") from error
    finally:
        logging.disable(before)
    strip(result)
    describe(result, about)
    return result


def _reader(value_N3DD: NDArray[np.float32]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images: Iterator[NDArray] = iter(value_N3DD[:, None])

        def get_next(self) -> dict[str, NDArray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    return Reader()
