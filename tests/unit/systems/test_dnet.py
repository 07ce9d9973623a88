"""DNet: 1024 pixels enter DenseNet-121 as 256, at first blurred; and the DenseNet's weights."""

import pytest
import torch
from tiny import DENSE

from hf_cxr.explain.maps import grad_cam
from hf_cxr.models import fresh, head
from hf_cxr.systems.densenet import DenseNet
from hf_cxr.systems.dnet import DNet, DNetConfig

NAMES = ("Mass", "Nodule", "Hernia")


def tiny(size=128, **kwargs):
    torch.manual_seed(0)
    return fresh("dnet", DENSE | kwargs, NAMES, size).eval()


def test_1024_pixels_enter_densenet_121_as_256():
    with torch.device("meta"):
        model = DNet(DNetConfig(num_labels=3))
        images = torch.zeros(1, 3, model.config.image_size, 1024)
        halves = model.reduction[0](images)
        assert halves.shape == (1, 3, 512, 512)
        quarter = model.reduction[1](halves)
        assert quarter.shape == (1, 3, 256, 256)
        assert model.densenet(quarter).shape == (1, 1024, 8, 8)
        assert model(pixel_values=images).logits.shape == (1, 3)
    assert [tuple(layer.weight.shape) for layer in model.reduction] == [(3, 3, 3, 3)] * 2
    assert sum(value.numel() for value in model.densenet.parameters()) == 6_953_856


@torch.no_grad()
def test_the_two_convolutions_start_as_a_blur_of_each_channel():
    model = tiny()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 128, 128, generator=generator)
    quarter = model.reduction(images)
    # A constant image stays what it is away from the border, where zeros are padded.
    constant = model.reduction(torch.full((1, 3, 64, 64), 2.0))
    torch.testing.assert_close(constant[..., 2:, 2:], torch.full((1, 3, 14, 14), 2.0))
    changed = images.clone()
    changed[:, 1] += 1
    difference = (model.reduction(changed) - quarter).abs().amax(dim=(0, 2, 3))
    assert difference[1] > 0.9
    assert difference[[0, 2]].tolist() == [0.0, 0.0]
    assert quarter.std() < 0.5  # noise is averaged


def test_logits_are_the_mean_features_weighted_and_grad_cam_is_their_class_activation_map():
    model = tiny()
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        places_BDhw = model.densenet(model.reduction(images))
        assert places_BDhw.shape[2:] == (4, 4)
        map_BChw = torch.einsum("cd,bdhw->bchw", head(model).weight, places_BDhw)
        logit_BC = model(pixel_values=images).logits
    torch.testing.assert_close(map_BChw.mean(dim=(2, 3)) + head(model).bias, logit_BC)
    torch.testing.assert_close(grad_cam(model, images, [2, 0]), map_BChw[:, [2, 0]].relu() / 16)
    assert (map_BChw > 0).any()


@torch.no_grad()
def test_the_backbone_takes_a_densenets_weights():
    torch.manual_seed(1)
    source = DenseNet(**DENSE)
    model = tiny()
    images = torch.randn(2, 3, 32, 32)
    model.load_backbone({f"timm_model.{name}": value for name, value in source.state_dict().items()}, model.config)
    assert torch.equal(model.densenet(images), source.eval()(images))
    with pytest.raises(ValueError, match="the weights for the DenseNet are incomplete"):
        model.load_backbone({"resnet.weight": torch.zeros(1)}, model.config)


@pytest.mark.parametrize("kwargs", [{"growth_rate": 0}, {"width": -3}, {"bottleneck": 0}, {"depths": []}])
def test_sizes_below_1_are_refused_in_one_line(kwargs):
    with pytest.raises(ValueError, match=f"{next(iter(kwargs))} is .*; it must be 1 or more") as caught:
        tiny(**kwargs)
    assert "\n" not in str(caught.value)


def test_both_convolutions_are_trained():
    model = tiny()
    model(pixel_values=torch.randn(2, 3, 128, 128)).logits.square().sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in model.reduction)
