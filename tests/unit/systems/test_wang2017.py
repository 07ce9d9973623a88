"""Wang 2017: log-sum-exp pooling between the mean and the maximum, the heat map of the paper, the ResNet's weights."""

import pytest
import torch
from tiny import MODELS
from transformers import ResNetConfig, ResNetForImageClassification

from hf_cxr.config import ModelArguments
from hf_cxr.explain.maps import grad_cam
from hf_cxr.models import fresh, head
from hf_cxr.models.build import build_model
from hf_cxr.systems.wang2017 import Wang2017, Wang2017Config, log_sum_exp_pooling

NAMES = ("Mass", "Nodule", "Hernia")


def places(seed=0, scale=1.0):
    return scale * torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny(**kwargs):
    torch.manual_seed(0)
    return fresh("wang2017", MODELS["wang2017"] | kwargs, NAMES, 32)


def test_pooling_lies_between_the_mean_and_the_maximum_and_grows_with_r():
    x = places()
    mean, largest = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
    before = mean
    for r in (0.1, 0.5, 1, 5, 8, 10, 12):  # the paper's
        pooled = log_sum_exp_pooling(x, r)
        assert (pooled > before).all()
        assert (pooled < largest).all()
        before = pooled


def test_the_limits_of_r_are_the_mean_and_the_maximum():
    x = places()
    for tiny_r in (1e-6, 1e-12):
        torch.testing.assert_close(log_sum_exp_pooling(x, tiny_r), x.mean(dim=(2, 3)), rtol=0, atol=2 * tiny_r + 1e-12)
    # log(16) / r is all that is left of the maximum's distance.
    for large_r in (1e4, 1e6):
        gap = x.amax(dim=(2, 3)) - log_sum_exp_pooling(x, large_r)
        torch.testing.assert_close(gap, torch.full_like(gap, 2.772588722 / large_r), rtol=1e-3, atol=0)


def test_pooling_is_the_papers_formula_and_never_overflows():
    x, r = places(), 10.0
    star = x.abs().amax(dim=(2, 3), keepdim=True)  # the paper's x*
    formula = star.flatten(1) + ((r * (x - star)).exp().mean(dim=(2, 3))).log() / r
    torch.testing.assert_close(log_sum_exp_pooling(x, r), formula)
    torch.testing.assert_close(log_sum_exp_pooling(x + 3, r), log_sum_exp_pooling(x, r) + 3)  # a shift passes through
    assert torch.equal(log_sum_exp_pooling(torch.full((1, 1, 2, 2), 7.0), r), torch.full((1, 1), 7.0))
    extreme = places(scale=1e4).float().requires_grad_()
    pooled = log_sum_exp_pooling(extreme, r)
    pooled.sum().backward()
    assert pooled.dtype == torch.float32
    assert pooled.isfinite().all()
    assert extreme.grad.isfinite().all()
    # A place's gradient is its share of the exponentials: they add up to 1 in each channel.
    torch.testing.assert_close(extreme.grad.sum(dim=(2, 3)), torch.ones(3, 5))
    assert torch.autograd.gradcheck(lambda x: log_sum_exp_pooling(x, 3.0), (places().requires_grad_(),))


def test_grad_cam_of_the_transition_is_the_papers_heat_map():
    """The transition's channels weighted by the finding's weights: shares that add up to 1 leave nothing else."""
    model = tiny().eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        activation_BDhw = model.body.transition(model.body.resnet(images).last_hidden_state)
    weighted = torch.einsum("cd,bdhw->bchw", head(model).weight.detach(), activation_BDhw)
    assert weighted.shape == (2, 3, 4, 4)
    assert (weighted.relu() > 0).any()
    torch.testing.assert_close(grad_cam(model, images, [0, 1, 2]), weighted.relu() / 16)


def test_the_default_is_resnet_50_with_a_transition_of_2048():
    with torch.device("meta"):
        model = Wang2017(Wang2017Config(num_labels=3))
    resnet = model.body.resnet
    # 25,557,032 with the classifier of 1000 classes, as torchvision states of ResNet-50.
    assert sum(value.numel() for value in resnet.parameters()) + 2049 * 1000 == 25_557_032
    assert model.body.transition[0].weight.shape == (2048, 2048, 1, 1)
    assert model.config.lse_r == 10
    assert head(model).in_features == 2048
    assert Wang2017Config().image_size == 1024


@torch.no_grad()
def test_the_backbone_takes_a_resnets_weights():
    sizes = {key: MODELS["wang2017"][key] for key in ("embedding_size", "hidden_sizes", "depths")}
    torch.manual_seed(1)
    source = ResNetForImageClassification(ResNetConfig(**sizes)).eval()
    model = tiny().eval()
    transition = model.body.transition[0].weight.clone()
    images = torch.randn(2, 3, 32, 32)
    expected = source.resnet(images).last_hidden_state
    assert not torch.allclose(model.body.resnet(images).last_hidden_state, expected)
    model.load_backbone(source.state_dict(), source.config)
    assert torch.equal(model.body.resnet(images).last_hidden_state, expected)
    assert torch.equal(model.body.transition[0].weight, transition)
    with pytest.raises(ValueError, match=r"for the ResNet are incomplete: .* such as embedder"):
        model.load_backbone({"resnet.embedder.embedder.convolution.weight": torch.zeros(8, 3, 7, 7)}, source.config)
    moved = ResNetConfig(**sizes, downsample_in_bottleneck=True)
    with pytest.raises(ValueError, match=r"set model_kwargs\.downsample_in_bottleneck to true"):
        model.load_backbone(source.state_dict(), moved)


def test_the_head_starts_at_the_given_bias():
    arguments = ModelArguments(architecture="wang2017", model_kwargs=MODELS["wang2017"], image_size=32)
    model = build_model(arguments, NAMES, head_bias_C=[-1.0, -2.0, -3.0]).eval()
    assert head(model).bias.tolist() == [-1.0, -2.0, -3.0]
    logits = model(pixel_values=torch.randn(2, 3, 32, 32)).logits
    torch.testing.assert_close(logits, torch.tensor([[-1.0, -2.0, -3.0]]).expand(2, 3), atol=0.5, rtol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lse_r": 0}, "lse_r is 0; it must be finite and above 0"),
        ({"lse_r": -1.0}, r"lse_r is -1\.0"),
        ({"transition_size": 0}, "transition_size is 0; it must be 1 or more"),
        ({"hidden_sizes": [8, 0]}, r"hidden_sizes is \[8, 0\]; it must be 1 or more"),
        ({"depths": [], "hidden_sizes": []}, r"hidden_sizes is \[\]"),
        ({"depths": [1, 1, 1]}, "depths has 3 stages and hidden_sizes 2"),
        ({"layer_type": "wide"}, "layer_type=wide is not one of"),
        ({"transition_size": "12"}, "transition_size is '12', but wang2017 takes a whole number"),
        ({"image_size": 32}, "no option 'image_size'"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(kwargs, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny(**kwargs)
    assert "\n" not in str(caught.value)
