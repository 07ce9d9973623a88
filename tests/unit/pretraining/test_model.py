"""The network: the fast pass is the stock one, and its backbone is a classifier's to the last weight."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import SwinConfig, SwinForImageClassification
from transformers.models.swin.modeling_swin import SwinForMaskedImageModeling as Stock

from hf_cxr.config import ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import build_model, load_weights
from hf_cxr.pretraining.masks import PatchMasks
from hf_cxr.pretraining.model import DROPPED, build_masked_model
from tests.tiny import SWIN, swin

SIZES = {
    "image_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2],
    "drop_path_rate": 0.0, "encoder_stride": 4,
}  # fmt: skip


def shaken(model):
    """Random biases, tables and mask token: at the start they are zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def inputs(size=32, patch=2):
    torch.manual_seed(1)
    mask = PatchMasks(size, patch, 2 * patch, 0.6, seed=0).draw(np.arange(3), 0)
    return {"pixel_values": torch.randn(3, 3, size, size), "bool_masked_pos": torch.from_numpy(mask)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_absolute_embeddings": True},
        {"depths": [1, 2], "window_size": 5},  # windows that do not fill the grid
        {"depths": [2, 1, 1], "num_heads": [1, 2, 4], "encoder_stride": 8},
        {"window_size": 8},  # the last grid is one window
    ],
)
def test_the_fast_pass_is_the_stock_one(changes):
    stock = shaken(Stock(SwinConfig(**(SIZES | changes), attn_implementation="eager")))
    fast = copy.deepcopy(stock)
    assert use_attention(fast) == "fast"
    assert type(fast) is not Stock
    given = inputs()
    wanted, made = (model(**given).reconstruction for model in (stock, fast))
    assert made.shape == (3, 3, 32, 32)
    torch.testing.assert_close(made, wanted, rtol=0, atol=2e-5)
    assert wanted.std() > 0.01
    for result in (wanted, made):
        result.square().sum().backward()
    largest = max(weight.grad.abs().max().item() for weight in stock.parameters())
    for (name, weight), (_, other) in zip(stock.named_parameters(), fast.named_parameters(), strict=True):
        scale = max(weight.grad.abs().max().item(), 0.01 * largest)  # a key's bias has a gradient of rounding alone
        torch.testing.assert_close(other.grad, weight.grad, rtol=0, atol=2e-5 * scale, msg=name)
    assert stock.swin.embeddings.mask_token.grad.abs().max() > 0
    assert use_attention(fast, "eager") == "eager"
    assert type(fast) is Stock


def test_the_mask_token_starts_at_random_and_its_gradient_does_not_outweigh_the_rest():
    torch.manual_seed(0)
    model = build_masked_model(ModelArguments(**SWIN))
    token = model.swin.embeddings.mask_token
    assert 0.005 < token.std() < 0.05
    model(**inputs()).loss.backward()
    rest = max(weight.grad.norm().item() for weight in model.parameters() if weight is not token)
    assert 0 < token.grad.norm() < 100 * rest
    with torch.no_grad():
        token.zero_()
    model.zero_grad()
    model(**inputs()).loss.backward()
    assert token.grad.norm() > 1000 * rest  # as transformers starts it


def test_nothing_masked_is_the_image_itself_and_everything_masked_is_no_image():
    fast = shaken(Stock(SwinConfig(**SIZES))).eval()
    use_attention(fast)
    given = inputs()
    none, every = torch.zeros(3, 256, dtype=torch.bool), torch.ones(3, 256, dtype=torch.bool)
    unmasked = fast(pixel_values=given["pixel_values"]).reconstruction
    torch.testing.assert_close(fast(given["pixel_values"], none).reconstruction, unmasked)
    blind = fast(given["pixel_values"], every).reconstruction
    torch.testing.assert_close(blind[0], blind[1])
    assert (unmasked[0] - unmasked[1]).abs().max() > 0.01


def test_a_classifier_takes_every_weight_of_the_backbone_and_no_other(tmp_path):
    pretrained = shaken(build_masked_model(ModelArguments(**SWIN)))
    pretrained.save_pretrained(tmp_path)
    classifier = build_model(ModelArguments(**SWIN | {"model_kwargs": {}, "model_name_or_path": str(tmp_path)}), NIH14)
    assert type(classifier) is SwinForImageClassification
    have, want = pretrained.state_dict(), classifier.state_dict()
    assert have.keys() - want.keys() == set(DROPPED)
    assert want.keys() - have.keys() == {"classifier.weight", "classifier.bias"}
    for name in have.keys() & want.keys():
        assert torch.equal(have[name], want[name]), name
    assert len(have.keys() & want.keys()) > 50
    assert classifier.config.id2label == dict(enumerate(NIH14))


def test_pretraining_goes_on_from_its_own_folder_and_from_a_classifier(tmp_path):
    first = shaken(build_masked_model(ModelArguments(**SWIN)))
    first.save_pretrained(tmp_path / "first")
    classifier = shaken(build_model(ModelArguments(**SWIN), NIH14))
    classifier.save_pretrained(tmp_path / "classifier")
    saved = {"model_kwargs": {}}
    again = build_masked_model(ModelArguments(**SWIN | saved, model_name_or_path=str(tmp_path / "first")))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    other = build_masked_model(ModelArguments(**SWIN | saved, model_name_or_path=str(tmp_path / "classifier")))
    backbone = {name: value for name, value in classifier.state_dict().items() if name.startswith("swin.")}
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in backbone.items())


def test_a_pretrained_folder_is_no_classifier(tmp_path):
    build_masked_model(ModelArguments(**SWIN)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="was pre-trained and has no classifier"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "vit", "model_kwargs": {}}, "pre-training is for swin alone"),
        ({"image_size": 40, "resize_size": 44}, "set image_size to 32"),
        (swin(encoder_stride=8), "encoder_stride is 8; the last patches of a fresh swin model have 16 pixels"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_masked_model(ModelArguments(**SWIN | changes))


def test_a_backbone_that_lacks_a_weight_is_refused(tmp_path):
    model = build_masked_model(ModelArguments(**SWIN))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"depths": [2, 1, 1, 1]}))
    with pytest.raises(ValueError, match=r"does not have \d+ of the backbone's weights"):
        build_masked_model(ModelArguments(**SWIN | {"model_kwargs": {}, "model_name_or_path": str(tmp_path)}))
