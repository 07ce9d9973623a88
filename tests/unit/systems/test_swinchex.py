"""SwinCheX: two-way softmax is a sigmoid of the difference, its loss that of this package; heads, start, backbone."""

import copy

import pytest
import torch
from torch.nn import functional
from transformers import SwinConfig, SwinForImageClassification

from hf_cxr.losses import build_loss
from hf_cxr.models import features, fresh
from hf_cxr.models.attention import use_attention
from hf_cxr.models.head import reset_head
from hf_cxr.systems.swinchex import SwinCheXConfig, SwinCheXForImageClassification, TwoWayHeads
from tests.tiny import MODELS

NAMES = ("Mass", "Nodule", "Hernia")


def network(**options):
    torch.manual_seed(0)
    return fresh("swinchex", MODELS["swinchex"] | options, NAMES, 32).eval()


@pytest.fixture
def images():
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_probability_is_the_two_way_softmax(images):
    model = network()
    output_BC2 = model.heads(model.swin(images).pooler_output)
    assert output_BC2.shape == (6, 3, 2)
    softmax = functional.softmax(output_BC2, dim=2)
    torch.testing.assert_close(torch.sigmoid(model(pixel_values=images).logits), softmax[..., 1])
    assert softmax[..., 1].std() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_the_loss_is_torchs_two_way_cross_entropy_with_label_smoothing(smoothing):
    generator = torch.Generator().manual_seed(0)
    output_BC2 = torch.randn(8, 3, 2, generator=generator, dtype=torch.float64) * 3
    target_BC = (torch.rand(8, 3, generator=generator) < 0.4).to(torch.float64)
    wanted = sum(
        functional.cross_entropy(output_BC2[:, column], target_BC[:, column].long(), label_smoothing=smoothing)
        for column in range(3)
    )
    loss = build_loss("bce", positives_C=[4, 5, 6], known_C=[8, 8, 8]).double()
    loss.set_label_smoothing(smoothing)
    difference_BC = output_BC2[..., 1] - output_BC2[..., 0]
    torch.testing.assert_close(3 * loss(difference_BC, target_BC), wanted)  # the sum of findings is C times the mean


def test_the_heads_of_swin_l_are_the_papers():
    config = SwinCheXConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), num_labels=14)
    assert [config.hidden_size, *config.head_sizes, 2] == [1536, 384, 48, 48, 2]
    with torch.device("meta"):
        model = SwinCheXForImageClassification(config)
    layers = [layer for layer in model.heads.heads[13] if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(1536, 384), (384, 48), (48, 48), (48, 2)]
    assert len(model.heads.heads) == 14
    millions = sum(weight.numel() for weight in model.parameters()) / 1e6
    assert 203 < millions < 204  # Swin-L's 195 without its classifier, and 14 times 0.61


def test_heads_may_be_linear():
    model = network(head_sizes=[])
    assert [type(layer) for layer in model.heads.heads[0]] == [torch.nn.Linear]


@torch.no_grad()
def test_a_signal_passes_heads_of_every_width():
    for sizes in ([1536, 384, 48, 48], [16, 4, 2, 2], [768]):
        torch.manual_seed(0)
        heads = TwoWayHeads(14, sizes)
        heads.start()
        spread = heads(torch.randn(256, sizes[0])).std(dim=0).mean()
        assert 0.3 < spread < 3


@torch.no_grad()
def test_the_outputs_start_around_the_bias(images):
    model = network()
    before = copy.deepcopy(model.heads.state_dict())
    reset_head(model, [-1.0, -2.0, -3.0])
    for head, bias in zip(model.heads.heads, (-1.0, -2.0, -3.0), strict=True):
        assert head[-1].bias.tolist() == [-bias / 2, bias / 2]
        assert not head[0].bias.any()
    assert not torch.equal(model.heads.heads[0][0].weight, before["heads.0.0.weight"])
    for head in model.heads.heads:
        head[-1].weight.zero_()
    torch.testing.assert_close(features(model, images), torch.tensor([[-1.0, -2.0, -3.0]]).expand(6, 3))


def test_the_fast_pass_is_the_stock_one(images):
    stock = network(drop_path_rate=0.0).train(True)
    fast = copy.deepcopy(stock)
    assert use_attention(stock, "eager") == "eager"
    assert use_attention(fast, "auto") == "fast"
    assert type(fast) is not type(stock)
    assert type(fast).__name__ == type(stock).__name__
    logits = []
    for model in (stock, fast):
        logits.append(model(pixel_values=images).logits)
        logits[-1].square().sum().backward()
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    gradients = [{name: weight.grad for name, weight in model.named_parameters()} for model in (stock, fast)]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    assert use_attention(fast, "sdpa") == "sdpa"
    assert type(fast) is type(stock)


# Its backbone


def saved_swin(**options):
    torch.manual_seed(1)
    sizes = {key: value for key, value in MODELS["swinchex"].items() if key != "head_sizes"}
    return SwinForImageClassification(SwinConfig(**sizes | {"image_size": 64, "num_labels": 1000} | options))


@torch.no_grad()
def test_its_backbone_takes_the_weights_of_a_swin(images):
    model, swin = network(), saved_swin().eval()
    heads = copy.deepcopy(model.heads.state_dict())
    model.load_backbone(swin.state_dict(), swin.config)
    torch.testing.assert_close(model.swin(images).pooler_output, swin.swin(images).pooler_output)
    assert all(torch.equal(value, heads[name]) for name, value in model.heads.state_dict().items())


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"embed_dim": 16}, {}, "embed_dim is 16 there and 8 here; set model_kwargs to the saved model's values"),
        ({"num_heads": [1, 4]}, {}, r"num_heads is \[1, 4\] there"),
        ({}, {"swin.layernorm.weight": None}, r"Swin are incomplete: 1 of \d+ are missing, such as layernorm"),
        ({}, {"swin.layernorm.weight": torch.ones(3)}, r"layernorm.weight in the shape \(3,\), and .* has \(16,\)"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(options, change, message):
    model, swin = network(), saved_swin(**options)
    before = copy.deepcopy(model.state_dict())
    weights = {name: value for name, value in (swin.state_dict() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message) as caught:
        model.load_backbone(weights, swin.config)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_backbone_of_another_kind_is_refused():
    other = fresh("vit", MODELS["vit"], NAMES, 32)
    with pytest.raises(ValueError, match="the backbone must be a swin or swinchex, and this model is a vit"):
        network().load_backbone(other.state_dict(), other.config)


@pytest.mark.parametrize(("sizes", "shown"), [([0], r"\[0\]"), ([8] * 9, r"\[8, 8"), ([10**6], r"\[1000000\]")])
def test_heads_that_cannot_be_are_refused(sizes, shown):
    with pytest.raises(ValueError, match=rf"head_sizes is {shown}.* at most 8 widths of 1 to 65,536") as caught:
        network(head_sizes=sizes)
    assert "\n" not in str(caught.value)
