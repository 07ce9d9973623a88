"""Grad-CAM and Grad-CAM++ of every architecture: the right layer, the right place, the papers' weights."""

import importlib.util

import numpy as np
import pytest
import torch
from tiny import MODELS

from hf_cxr.arguments.components import architecture_options
from hf_cxr.explain.maps import METHODS, grad_cam, grad_cam_plus_plus, heat_maps, layer_cam
from hf_cxr.explain.occlusion import check_captum, occlusion
from hf_cxr.models import fresh
from hf_cxr.models.map_layer import map_layer, traced
from hf_cxr.systems.grids import as_grid

NAMES = ("Mass", "Nodule", "Hernia")
# The tiny convolutional networks end with one place; these end with 4 x 4, as the rest do.
TWO = {"hidden_sizes": [8, 16], "depths": [1, 1]}
TWO_BLOCKS = {**TWO, "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2]}
TWO_STAGES = {
    "bit": TWO,
    "convnext": {**TWO, "num_stages": 2},
    "convnextv2": {**TWO, "num_stages": 2},
    "csra": {"backbone_config": {"model_type": "convnextv2", **TWO, "num_stages": 2}},
    "poolformer": {**TWO_BLOCKS, "padding": [2, 1]},
    "regnet": TWO,
    "resnet": TWO,
    "segformer": {**TWO_BLOCKS, "sr_ratios": [2, 1], "num_attention_heads": [1, 1], "mlp_ratios": [2, 2]},
}
SMALL = {name: {**kwargs, **TWO_STAGES.get(name, {})} for name, kwargs in MODELS.items()}
del SMALL["dnet"]  # it starts with a quarter of the side; tests/unit/systems/test_dnet.py has its maps


def model_of(name, **kwargs):
    torch.manual_seed(0)
    spread = {"initializer_range": 0.3} if "initializer_range" in architecture_options(name) else {}
    model = fresh(name, {**SMALL[name], **spread, **kwargs}, NAMES, 32)
    with torch.no_grad():
        model(pixel_values=images(16))  # batch norm: its averages, which evaluation divides by
    return model.eval()


def images(count=2, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=sorted(SMALL))
def model(request):
    return model_of(request.param)


def test_maps_are_finite_at_least_0_and_differ_between_images_and_findings(model):
    pixels = images(3)
    for method in (grad_cam, grad_cam_plus_plus, layer_cam):
        maps = method(model, pixels, [2, 0])
        assert maps.shape == (3, 2, 4, 4)
        assert maps.dtype == torch.float32
        assert maps.isfinite().all()
        assert (maps >= 0).all()
        assert (maps > 0).any()
        # one image is mapped as in a batch, and one finding as with others
        torch.testing.assert_close(method(model, pixels[1:2], [0])[0, 0], maps[1, 1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_place_of_the_image_is_the_same_place_of_the_grid(model):
    pixels = images(16)
    before = traced(model, pixels)
    for row, column in ((0, 3), (2, 1)):
        changed = pixels.clone()
        changed[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = images(16, seed=1)[..., :8, :8]
        difference = as_grid(model, traced(model, changed).output - before.output, 32).norm(dim=1).mean(dim=0)
        found = np.array(divmod(int(difference.argmax()), 4))
        # A random kernel of these can weigh a neighbour more than its centre.
        reach = 1 if model.config.model_type in ("bit", "efficientnet", "segformer") else 0
        assert np.abs(found - (row, column)).max() <= reach


def channel_weights(model, pixels):
    """Mean gradient of each logit over the places of each channel, by finite differences in float64: (C, B, K)."""
    shift = {"channel": None, "by": 0.0}

    def push(_layer, _inputs, output):
        first = (output[0] if isinstance(output, tuple) else output).clone()
        if first.ndim == 4:
            first[:, shift["channel"]] += shift["by"]
        else:
            places = as_grid(model, first, 32).shape[-1] ** 2
            first[:, first.shape[1] - places :, shift["channel"]] += shift["by"]
        return (first, *output[1:]) if isinstance(output, tuple) else first

    grid = as_grid(model, traced(model, pixels).output.detach(), 32)
    handle = map_layer(model).register_forward_hook(push)
    weights = []
    with torch.no_grad():
        for channel in range(grid.shape[1]):
            logit = []
            for by in (1e-5, -1e-5):
                shift.update(channel=channel, by=by)
                logit.append(model(pixel_values=pixels).logits.T)
            weights.append((logit[0] - logit[1]) / 2e-5 / grid[0, 0].numel())
    handle.remove()
    return grid, torch.stack(weights, dim=2)


def test_grad_cam_is_the_sum_of_channels_weighed_by_their_mean_gradient(model):
    model = model_of(model.config.model_type).double()
    pixels = images().double()
    grid, weight_CBK = channel_weights(model, pixels)
    expected = (weight_CBK[..., None, None] * grid).sum(dim=2).relu()
    assert expected.max() > 0
    actual = grad_cam(model, pixels, [0, 1, 2]).transpose(0, 1)
    torch.testing.assert_close(actual, expected.float(), atol=1e-5, rtol=1e-3)


def test_grad_cam_plus_plus_is_the_papers_formula():
    model, pixels = model_of("swin").double(), images(1).double()
    trace = traced(model, pixels)
    (gradient,) = torch.autograd.grad(trace.logits[:, 2].sum(), trace.output)
    a_Khw, g_Khw = (as_grid(model, x.detach(), 32)[0].numpy() for x in (trace.output, gradient))
    expected = np.zeros(a_Khw.shape[1:])
    for a_hw, g_hw in zip(a_Khw, g_Khw, strict=True):
        weight = 0.0
        for i, j in np.ndindex(a_hw.shape):
            alpha = g_hw[i, j] ** 2 / (2 * g_hw[i, j] ** 2 + sum(a * g_hw[i, j] ** 3 for a in a_hw.ravel()))
            weight += alpha * max(g_hw[i, j], 0)
        expected += weight * a_hw
    actual = grad_cam_plus_plus(model, pixels, [2])[0, 0].numpy()
    np.testing.assert_allclose(actual, np.maximum(expected, 0), rtol=1e-4, atol=1e-6)
    assert actual.max() > 0


def test_layer_cam_weighs_each_place_by_its_own_gradient():
    model, pixels, layer = model_of("swin").double(), images(1).double(), "encoder.layers.0.blocks.0"
    trace = traced(model, pixels, layer)
    (gradient,) = torch.autograd.grad(trace.logits[:, 2].sum(), trace.output)
    a_Khw, g_Khw = (as_grid(model, x.detach(), 32)[0].numpy() for x in (trace.output, gradient))
    expected = np.maximum((np.maximum(g_Khw, 0) * a_Khw).sum(axis=0), 0)
    assert expected.max() > 0
    np.testing.assert_allclose(
        layer_cam(model, pixels, [2], layer=layer)[0, 0].numpy(), expected, rtol=1e-4, atol=1e-7
    )


def test_a_map_leaves_the_model_as_it_was(model):
    pixels = images()
    logits = model(pixel_values=pixels).logits
    with torch.inference_mode(False), torch.no_grad():
        maps = grad_cam(model, pixels, [0])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not map_layer(model)._forward_hooks
    assert torch.equal(model(pixel_values=pixels).logits, logits)
    model.requires_grad_(False)  # a frozen backbone has maps too
    torch.testing.assert_close(grad_cam(model, pixels, [0]), maps)
    model.requires_grad_(True)


def test_class_and_register_tokens_are_dropped():
    for name, before in (("swin", 0), ("vit", 1), ("deit", 2), ("dinov2_with_registers", 5)):
        tokens = torch.arange(before + 16.0)[None, :, None].expand(2, -1, 3)
        grid = as_grid(model_of(name), tokens, 32)
        assert grid.shape == (2, 3, 4, 4)
        assert torch.equal(grid[1, 2].flatten(), torch.arange(before, before + 16.0))


def test_another_layer_gives_another_map():
    model, pixels = model_of("swin"), images()
    own = heat_maps("grad_cam", model, pixels, [0])
    other = heat_maps("grad_cam", model, pixels, [0], layer="encoder.layers.-1.blocks.-1")
    assert own.shape == other.shape
    assert not torch.allclose(own, other)
    early = heat_maps("grad_cam", model, pixels, [0], layer="encoder.layers.0.blocks.0")
    assert early.shape[-1] == 8


@pytest.mark.parametrize("path", ["encoder.layers.7", "encoder.nothing", "encoder.layers.first"])
def test_a_layer_that_is_not_there_is_named(path):
    with pytest.raises(ValueError, match="has no layer"):
        map_layer(model_of("swin"), path)


def test_what_cannot_be_mapped_is_refused():
    model, pixels = model_of("vit"), images()
    with pytest.raises(ValueError, match="no method 'cam'"):
        heat_maps("cam", model, pixels, [0])
    for columns in ([], [3], [-1]):
        with pytest.raises(ValueError, match="columns"):
            heat_maps("grad_cam", model, pixels, columns)
    with pytest.raises(ValueError, match="reads no layer"):
        heat_maps("occlusion", model, pixels, [0], layer="layers.-1")
    with pytest.raises(ValueError, match="square"):
        as_grid(model_of("swin"), torch.zeros(1, 15, 4), 32)
    with torch.no_grad():
        map_layer(model).weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not a number"):
        heat_maps("grad_cam", model, pixels, [0])


def test_every_method_says_what_it_is():
    assert all(method.title and method.source for method in METHODS.values())


def test_without_captum_the_install_line_is_given(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"hf-cxr\[explain\]"):
        check_captum()


@torch.no_grad()
def test_occlusion_is_how_far_the_logit_falls():
    pytest.importorskip("captum", reason="captum is not installed: pip install 'hf-cxr[explain]'")
    model, pixels = model_of("vit"), images()
    corners = [(row, column) for row in range(0, 29, 2) for column in range(0, 29, 2)]
    covered = pixels.repeat(len(corners), 1, 1, 1)
    for number, (row, column) in enumerate(corners):
        covered[2 * number : 2 * number + 2, :, row : row + 4, column : column + 4] = 0
    fall_PB = model(pixel_values=pixels).logits[:, 1] - model(pixel_values=covered).logits[:, 1].reshape(-1, 2)
    fall_BSS, times_SS = torch.zeros(2, 32, 32), torch.zeros(32, 32)
    for (row, column), fall_B in zip(corners, fall_PB, strict=True):
        fall_BSS[:, row : row + 4, column : column + 4] += fall_B[:, None, None]
        times_SS[row : row + 4, column : column + 4] += 1
    expected = (fall_BSS / times_SS).reshape(2, 16, 2, 16, 2).mean(dim=(2, 4)).relu()
    actual = occlusion(model, pixels, [1])[:, 0]
    assert expected.max() > 0
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-3)
