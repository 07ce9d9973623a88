"""DenseNet: a forward pass written out by hand, DenseNet-121's names and sizes, and timm's own model."""

import pytest
import torch
import torch.nn.functional as F

from hf_cxr.systems.densenet import DenseNet, modern_names

OF_121 = {"growth_rate": 32, "depths": (6, 12, 24, 16), "width": 64}


def shaken(model):
    """The model in evaluation mode, with random scales, shifts and averages of its norms."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if ".norm" in name and value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model.eval()


@torch.no_grad()
def by_hand(x, weights, depths):
    """The paper's equations over the names of the weights: x_l = H_l([x_0, ..., x_(l-1)])."""

    def norm(x, name):
        mean, var, scale, shift = (
            weights[f"features.{name}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def conv(x, name, **kwargs):
        return F.conv2d(x, weights[f"features.{name}.weight"], **kwargs)

    x = F.max_pool2d(norm(conv(x, "conv0", stride=2, padding=3), "norm0"), 3, 2, 1)
    for block, depth in enumerate(depths, start=1):
        for layer in range(1, depth + 1):
            place = f"denseblock{block}.denselayer{layer}"
            new = conv(norm(x, f"{place}.norm1"), f"{place}.conv1")
            x = torch.cat([x, conv(norm(new, f"{place}.norm2"), f"{place}.conv2", padding=1)], dim=1)
        if block < len(depths):
            x = conv(norm(x, f"transition{block}.norm"), f"transition{block}.conv")
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return norm(x, "norm5")


def test_it_is_the_papers_equations():
    torch.manual_seed(0)
    model = shaken(DenseNet(4, (2, 3), 8, 2).double())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = by_hand(images, model.state_dict(), (2, 3))
    assert expected.shape == (2, model.num_features, 4, 4)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


def test_densenet_121_has_its_names_and_its_seven_million_weights():
    with torch.device("meta"):
        model = DenseNet(**OF_121)
    assert model.num_features == 1024
    # 7,978,856 with the classifier of 1000 classes, as torchvision states.
    assert sum(value.numel() for value in model.parameters()) + 1025 * 1000 == 7_978_856
    assert len([layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]) == 120
    names = set(model.state_dict())
    assert {"features.denseblock4.denselayer16.conv2.weight", "features.transition3.norm.running_var"} < names
    assert model(torch.zeros(1, 3, 256, 256, device="meta")).shape == (1, 1024, 8, 8)


def test_the_first_files_of_torchvision_have_other_names():
    old = {"features.denseblock2.denselayer10.conv.2.weight": 1, "features.transition1.norm.weight": 2}
    assert list(modern_names(old)) == ["features.denseblock2.denselayer10.conv2.weight", *list(old)[1:]]


@torch.no_grad()
def test_it_is_timms_densenet121():
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(0)
    theirs = shaken(timm.create_model("densenet121", pretrained=False))
    ours = DenseNet(**OF_121).eval()
    weights = {name: value for name, value in theirs.state_dict().items() if not name.startswith("classifier.")}
    ours.load_state_dict(weights)  # strict: the same names
    images = torch.randn(1, 3, 64, 64)
    expected = theirs.forward_features(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5)
