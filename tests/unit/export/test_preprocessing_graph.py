"""The preprocessing as ONNX operators is the package's own: resize as Pillow's, crop and values as the processor's."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from hf_cxr.data.images.grey import resize_grey
from hf_cxr.export.onnx_model import INPUT, OUTPUT, ExportMetadata
from hf_cxr.export.preprocessing_graph import check_filter, with_preprocessing
from hf_cxr.export.runtime import run, session
from hf_cxr.processing import PixelProcessor, Preprocessing, build_image_processor, preprocessing_of

RESIZED, CROPPED = 21, 16


def steps_of(resample) -> tuple[PixelProcessor, Preprocessing]:
    processor = build_image_processor(RESIZED, CROPPED, resample=resample)
    return PixelProcessor(processor), preprocessing_of(processor)


def flattening(steps) -> tuple[onnx.ModelProto, ExportMetadata]:
    """A "model" whose logits are its input, pixel by pixel."""
    size = 3 * steps.image_size**2
    names = [f"f{number}" for number in range(size)]
    shape = ["batch", 3, steps.image_size, steps.image_size]
    graph = helper.make_graph(
        [helper.make_node("Flatten", [INPUT], [OUTPUT], axis=1)],
        "flattening",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model, ExportMetadata(names, [float("nan")] * size, steps, {})


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
def test_images_of_any_size_get_the_values_of_the_image_processor(resample):
    pixels, steps = steps_of(resample)
    runtime = session(with_preprocessing(*flattening(steps)).SerializeToString())
    level = pixels.scale.max().item()  # what one grey level is worth
    rng = np.random.default_rng(0)
    off, moved = [], 0.0
    for height, width in ((RESIZED, RESIZED), (64, 64), (50, 71), (9, 40)):
        grey_BHW = rng.integers(0, 256, (3, height, width), dtype=np.uint8)
        found = run(runtime, grey_BHW)
        pixel_BSS = np.stack([resize_grey(grey, RESIZED, resample) for grey in grey_BHW])
        expected = pixels(torch.from_numpy(pixel_BSS)[:, None]).numpy().reshape(3, -1)
        differs = np.abs(found[OUTPUT] - expected) > 1e-5
        assert np.abs(found[OUTPUT] - expected).max() < level * 1.01  # one grey level, seldom
        off.append(differs.mean())
        moved = max(moved, np.abs(expected - expected.mean()).max())
        np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-found[OUTPUT])), atol=1e-6)
    assert off[0] == 0.0  # an image of the resized size passes through
    assert max(off) < 0.03
    assert moved > 1


def test_a_filter_that_onnx_lacks_is_refused():
    _, steps = steps_of(Image.Resampling.LANCZOS)
    with pytest.raises(ValueError, match=r"lanczos.*--preprocessing"):
        check_filter(steps, "run")
    check_filter(steps_of(Image.Resampling.BICUBIC)[1], "run")
