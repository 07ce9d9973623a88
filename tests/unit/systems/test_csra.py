"""CSRA: its equation and its limits, over backbones of every kind."""

import pytest
import torch
from tiny import MODELS
from transformers import AutoModelForImageClassification

from hf_cxr.explain.maps import grad_cam
from hf_cxr.models import features, fresh, head
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import load_weights
from hf_cxr.models.head import reset_head
from hf_cxr.systems.csra import MAX, TEMPERATURES, CSRAConfig, ResidualAttention, attended, last_grid

NAMES = ("Mass", "Nodule", "Hernia")
# One of each kind of grid: tokens behind a class token or alone, normed before or after pooling, and convolutions.
BACKBONES = ("beit", "convnextv2", "data2vec-vision", "dinov2", "focalnet", "resnet", "swin", "vit")


def attention(**options):
    torch.manual_seed(0)
    layer = ResidualAttention(5, 3, **{"lam": 0.1, "temperatures": (1.0,)} | options).double()
    layer.start(1.0, torch.tensor([0.5, -1.0, 2.0]))
    return layer


@pytest.fixture
def grid():
    return torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("heads", TEMPERATURES)
def test_it_is_the_papers_sum_place_by_place(heads, grid):
    layer = attention(lam=0.3, temperatures=TEMPERATURES[heads])
    wanted = torch.zeros(2, 3, dtype=torch.float64)
    for image in range(2):
        for finding in range(3):
            wanted[image, finding] = layer.bias[finding]
            for own, temperature in zip(layer.heads, TEMPERATURES[heads], strict=True):
                scores = [place @ own.weight[finding] for place in grid[image]]
                if temperature == MAX:
                    shares = [float(score == max(scores)) for score in scores]
                else:
                    powers = [torch.exp(temperature * score) for score in scores]
                    shares = [power / sum(powers) for power in powers]
                wanted[image, finding] += sum(scores) / 7 + 0.3 * sum(
                    share * score for share, score in zip(shares, scores, strict=True)
                )
    torch.testing.assert_close(layer(grid), wanted)


@torch.no_grad()
def test_without_lam_it_is_average_pooling_and_a_linear_layer(grid):
    layer = attention(lam=0.0)
    pooled = torch.nn.functional.linear(grid.mean(dim=1), layer.heads[0].weight, layer.bias)
    torch.testing.assert_close(layer(grid), pooled)
    assert not torch.allclose(attention(lam=0.1)(grid), pooled)


@torch.no_grad()
def test_the_softmax_goes_from_the_mean_to_the_maximum(grid):
    torch.testing.assert_close(attended(grid, 1e-9), grid.mean(dim=1))
    torch.testing.assert_close(attended(grid, 1e5), attended(grid, MAX))
    torch.testing.assert_close(attended(grid, MAX), grid.max(dim=1).values)
    between = [attended(grid, temperature) for temperature in (0.1, 1.0, 10.0)]
    assert (between[0] < between[1]).all()
    assert (between[1] < between[2]).all()


@torch.no_grad()
def test_the_order_of_places_does_not_matter(grid):
    torch.testing.assert_close(attention()(grid.flip(1)), attention()(grid))


# Backbones


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    torch.manual_seed(0)
    backbone = {"model_type": request.param} | MODELS[request.param]
    return fresh("csra", {"backbone_config": backbone, "lam": 0.0}, NAMES, 32).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_its_grid_is_what_the_backbones_own_classifier_pools(network, images):
    kind = network.config.backbone_config.model_type
    config = network.config.backbone_config
    own = AutoModelForImageClassification.from_config(config).eval()
    own.base_model.load_state_dict(network.backbone.state_dict())
    seen = []
    handle = head(own).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    own(images)
    handle.remove()
    hidden = own.base_model(images).last_hidden_state
    pooled = last_grid(own.base_model, hidden, 32).mean(dim=(2, 3))
    if kind == "dinov2":  # its classifier gets the class token beside the mean of patches
        torch.testing.assert_close(seen[0][:, pooled.shape[1] :], pooled)
    elif kind == "vit":  # its own gets the class token alone
        assert pooled.shape == seen[0].shape
    elif kind == "convnextv2":  # its own norms the mean, and the norm of a mean is not the mean of norms
        torch.testing.assert_close(own.base_model.layernorm(hidden.mean(dim=(2, 3))), seen[0])
    elif kind in ("beit", "data2vec-vision"):
        torch.testing.assert_close(own.base_model.pooler.layernorm(hidden[:, 1:].mean(dim=1)), seen[0])
    else:
        torch.testing.assert_close(seen[0], pooled)


@torch.no_grad()
def test_every_backbone_is_saved_and_read_again(network, images, tmp_path):
    network.save_pretrained(tmp_path)
    logits = network(pixel_values=images).logits
    assert logits.std() > 0
    assert torch.equal(load_weights(tmp_path).eval()(pixel_values=images).logits, logits)
    assert torch.equal(AutoModelForImageClassification.from_pretrained(tmp_path).eval()(images).logits, logits)


def test_every_weight_of_the_attention_and_the_last_norm_is_trained(network, images):
    model = network.train(True)
    model(pixel_values=images).logits.square().sum().backward()
    without = {name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None}
    model.zero_grad()
    model.eval()
    assert without <= {"backbone.embeddings.mask_token"}  # of masked pre-training, as in the stock classifiers


@torch.no_grad()
def test_it_runs_on_the_attention_of_its_backbone(network, images):
    before = network(images).logits
    fixed = network.config.backbone_config.model_type == "data2vec-vision"  # as its own classifier is
    for name in ("auto",) if fixed else ("eager", "auto"):
        chosen = use_attention(network, name)
        assert chosen == network.backbone.config._attn_implementation
        assert chosen == ("sdpa" if name == "auto" and network.backbone._supports_sdpa else "eager")
        torch.testing.assert_close(network(images).logits, before)
    with pytest.raises(ValueError, match="attention fast is for a Swin, and this model is a csra"):
        use_attention(network, "fast")


def test_a_heat_map_is_on_the_grid(network, images):
    maps = grad_cam(network, images, [0, 2])
    assert maps.shape[:2] == (2, 2)
    assert maps.shape[2] == maps.shape[3]


@torch.no_grad()
def test_the_outputs_start_at_the_bias():
    torch.manual_seed(0)
    model = fresh("csra", MODELS["csra"], NAMES, 32).eval()
    reset_head(model, [-1.0, -2.0, -3.0])
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(features(model, images), torch.tensor([[-1.0, -2.0, -3.0]] * 2), atol=0.5, rtol=0)
    assert model.attention.bias.tolist() == [-1.0, -2.0, -3.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": -1.0}, "lam is -1.0; it must be at least 0"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0, or max"),
        ({"temperature": "most"}, "temperature is 'most'; it must be above 0, or max"),
        ({"heads": 3}, "heads is 3; it must be one of 1, 2, 4, 6, 8"),
        ({"heads": 2, "temperature": 2.0}, "temperature is for one head, and 2 have their own"),
        ({"lamda": 1}, "csra takes no option 'lamda'; did you mean lam"),
        ({"backbone_config": {"model_type": "vit", "hidden_szie": 8}}, "vit takes no option 'hidden_szie'; did you"),
        ({"backbone_config": {"model_type": "csra"}}, "its backbone is a csra, which is a system itself"),
        ({"backbone_config": {"model_type": "bert"}}, "backbone_config of a fresh csra model .* is 'bert'"),
        ({"backbone_config": None}, "the backbone_config of a fresh csra model leaves a last grid of 1 x 1 patches"),
        ({"backbone_config": {"depths": [1]}}, "backbone_config of a fresh csra model .* is None"),
        ({"backbone_config": "swin"}, "backbone_config in a fresh csra model is 'swin'; it must be"),
        ({"backbone_config": {"model_type": "vit", "num_hidden_layers": 10**6}}, "num_hidden_layers .* from 1 to 200"),
        ({"backbone_config": {"model_type": "vit", "hidden_size": 10**12}}, "hidden_size .* largest number"),
        ({"backbone_config": {"model_type": "vit", "patch_size": 5}}, "not a multiple of its patch_size 5"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        fresh("csra", MODELS["csra"] | options, NAMES, 32)
    assert "\n" not in str(caught.value)


def test_the_default_backbone_is_a_swin_at_the_models_image_size():
    config = CSRAConfig(image_size=384)
    assert config.backbone_config.model_type == "swin"
    assert config.backbone_config.image_size == 384
