"""The fast Swin is the stock one: same logits, gradients, state dict and saved files, whatever the grid."""

import copy
import json
import pickle

import pytest
import torch
from transformers import SwinConfig
from transformers.models.swin.modeling_swin import SwinForImageClassification as Stock

from hf_cxr.config import ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import build_model
from hf_cxr.models.fast_swin import SwinForImageClassification as Fast
from hf_cxr.models.head import check_head, features
from hf_cxr.models.map_layer import traced
from tests.tiny import MODELS

SIZES = {
    "num_labels": 5, "image_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [2, 2],
    "num_heads": [1, 2], "drop_path_rate": 0.0,
}  # fmt: skip


def pair(**changes):
    """A stock model with random biases and tables, in training mode, and a fast copy of it."""
    torch.manual_seed(0)
    stock = Stock(SwinConfig(**(SIZES | changes), attn_implementation="eager"))
    with torch.no_grad():
        for weight in stock.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    fast = copy.deepcopy(stock)
    assert use_attention(fast) == "fast"
    return stock, fast


def images(height=32, width=None, count=3):
    torch.manual_seed(1)
    return torch.randn(count, 3, height, width or height)


def logits_and_gradients(model, pixels):
    torch.manual_seed(2)
    logits = model(pixel_values=pixels).logits
    logits.square().sum().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}


def check_equal(stock, fast, pixels):
    (wanted, wanted_gradients), (logits, gradients) = (logits_and_gradients(model, pixels) for model in (stock, fast))
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)
    assert wanted.std() > 0.01
    assert gradients.keys() == wanted_gradients.keys()
    for name, gradient in gradients.items():
        scale = max(wanted_gradients[name].abs().max().item(), 1e-2)
        torch.testing.assert_close(gradient, wanted_gradients[name], rtol=0, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_size": 28},  # grids of 14 and 7: padded
        {"image_size": 30, "window_size": 3},  # 15 and 8: an odd grid to merge, then a padded one
        {"image_size": 48, "window_size": 8},  # 24 fits, 12 does not
        {"image_size": 44, "window_size": 11},  # 22 is shifted, 11 is one window
        {"image_size": 8, "depths": [3], "num_heads": [2]},  # one window, never shifted
        {"image_size": 36, "window_size": 3, "depths": [1, 3, 2], "num_heads": [1, 2, 4]},
        {"use_absolute_embeddings": True},
        {"use_absolute_embeddings": True, "image_size": 28},
        {"qkv_bias": False},
        {"drop_path_rate": 0.5},  # the same seed drops the same paths
    ],
    ids=str,
)
def test_logits_and_gradients_are_the_stock_ones(changes):
    check_equal(*pair(**changes), images(changes.get("image_size", 32)))


@pytest.mark.parametrize(("height", "width"), [(32, 40), (36, 52), (33, 31), (64, 64)])
def test_another_image_size(height, width):
    check_equal(*pair(), images(height, width))


def kept(model):
    """How many values the forward pass keeps for the backward pass."""
    counts = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: counts.append(tensor.numel()), lambda _: None):
        model(images())
    return sum(counts)


def test_gradient_checkpointing_keeps_less_and_changes_no_gradient():
    stock, fast = pair(drop_path_rate=0.5)
    before = kept(fast)
    fast.gradient_checkpointing_enable({"use_reentrant": False})
    assert kept(fast) < before / 2
    check_equal(stock, fast, images())


def test_dropout_drops_in_training_only():
    stock, fast = pair(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2)
    pixels = images()
    assert not torch.allclose(fast(pixels).logits, fast(pixels).logits)
    torch.testing.assert_close(fast.eval()(images()).logits, stock.eval()(images()).logits, rtol=0, atol=1e-5)


def test_autocast_is_as_near_to_float32_as_the_stock_model():
    stock, fast = pair()
    exact = stock(images()).logits
    with torch.autocast("cpu", torch.bfloat16):
        wrong = {
            name: (model(images()).logits - exact).abs().max() for name, model in (("stock", stock), ("fast", fast))
        }
    assert 0 < wrong["fast"] < 2 * wrong["stock"]


def test_the_saved_folder_is_the_stock_one(tmp_path):
    stock, fast = pair()
    fast(images())  # makes the plan, which must not be saved
    assert list(fast.state_dict()) == list(stock.state_dict())
    for name, model in (("stock", stock), ("fast", fast)):
        model.save_pretrained(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "stock").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "fast").iterdir())
    assert "config.json" in files
    for file in files:
        assert (tmp_path / "stock" / file).read_bytes() == (tmp_path / "fast" / file).read_bytes()
    assert json.loads((tmp_path / "fast" / "config.json").read_text())["architectures"] == [Stock.__name__]
    again = Fast.from_pretrained(tmp_path / "fast")
    torch.testing.assert_close(again(images()).logits, stock.eval()(images()).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_its_own_weights(copied):
    _, fast = pair()
    before = fast(images()).logits
    other = copied(fast)
    assert type(other) is Fast
    torch.testing.assert_close(other(images()).logits, before)
    with torch.no_grad():
        other.swin.layernorm.weight.mul_(2)
    assert not torch.allclose(other(images()).logits, before)
    torch.testing.assert_close(fast(images()).logits, before)


def test_the_plan_follows_the_model_and_can_be_made_in_inference_mode():
    _, fast = pair()
    with torch.inference_mode():
        fast(images(40))
    fast(images(40)).logits.sum().backward()
    fast.to("meta")
    assert {buffer.device.type for buffer in fast.plans.buffers()} == {"meta"}


def test_hooks_of_inner_layers_are_called():
    stock, fast = pair()
    traces = [traced(model.eval(), images()) for model in (stock, fast)]
    torch.testing.assert_close(traces[0].output, traces[1].output, rtol=0, atol=0)
    torch.testing.assert_close(features(fast, images()), features(stock, images()), rtol=0, atol=1e-5)
    check_head(fast, images())
    assert len(fast(images(), output_hidden_states=True).hidden_states) == len(SIZES["depths"]) + 1
    labels = torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(fast(images(), labels=labels).loss, stock(images(), labels=labels).loss)


def test_the_stock_pass_can_be_taken_back():
    stock, fast = pair()
    assert use_attention(fast, "eager") == "eager"
    assert type(fast) is Stock
    torch.testing.assert_close(fast(images()).logits, stock(images()).logits, rtol=0, atol=0)
    assert use_attention(fast, "sdpa") == "sdpa"
    assert fast.config._attn_implementation == "sdpa"
    assert use_attention(fast, sharded=True, bf16=True) == "eager"
    assert use_attention(fast, sharded=True, device="cuda") == "sdpa"


def test_a_window_larger_than_a_grid_is_refused():
    _, fast = pair()
    with pytest.raises(ValueError, match="3 x 3 patches is smaller than"):
        fast(images(12))


def test_fast_is_refused_where_it_cannot_run():
    with pytest.raises(ValueError, match="FSDP"):
        use_attention(pair()[1], "fast", sharded=True)
    with pytest.raises(ValueError, match="one of auto, eager, sdpa, fast"):
        use_attention(pair()[1], "flash")
    with pytest.raises(ValueError, match="not vit"):
        ModelArguments(architecture="vit", attention="fast")


@pytest.mark.parametrize("name", ["vit", "convnext", "swinv2"])
def test_another_architecture_ignores_auto(name):
    model = build_model(ModelArguments(architecture=name, model_kwargs=MODELS[name], image_size=32), NIH14)
    kind = type(model)
    assert use_attention(model) in ("sdpa", "eager")
    assert type(model) is kind
    with pytest.raises(ValueError, match=f"this model is a {name}"):
        use_attention(model, "fast")
