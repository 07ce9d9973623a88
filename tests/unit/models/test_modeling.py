"""The model: a new multi-label head whatever the checkpoint had; refusals before the first step."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SWIN, swin
from transformers import PoolFormerConfig, SwinConfig, SwinForImageClassification

from hf_cxr.config import ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model, check_model, fresh, load_weights
from hf_cxr.models.head import head


def tiny(**kwargs):
    return {**SWIN, **kwargs}


def test_fresh_model_is_multi_label():
    model = build_model(ModelArguments(**tiny()), NIH14, head_bias_C=range(14))
    assert model.config.problem_type == "multi_label_classification"
    assert [model.config.id2label[i] for i in range(14)] == list(NIH14)
    assert model.config.label2id["Hernia"] == 13
    assert head(model).bias.tolist() == list(range(14))
    assert model(pixel_values=torch.zeros(2, 3, 32, 32)).logits.shape == (2, 14)


@pytest.mark.parametrize("classes", [3, 14])
def test_checkpoint_keeps_its_body_and_gets_a_new_head(tmp_path, classes):
    saved = build_model(ModelArguments(**tiny()), [f"class_{i}" for i in range(classes)])
    with torch.no_grad():
        head(saved).weight.fill_(7.0)
    saved.save_pretrained(tmp_path)
    model = build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NIH14)
    assert model.config.num_labels == 14
    assert model.config.id2label[0] == "Atelectasis"
    assert (head(model).bias == 0).all()
    assert 0 < head(model).weight.abs().max() < 1
    after = dict(model.base_model.named_parameters())
    for name, before in saved.base_model.named_parameters():
        assert torch.equal(before, after[name]), name


def test_checkpoint_that_lacks_weights_is_refused(tmp_path):
    saved = build_model(ModelArguments(**swin(use_absolute_embeddings=True)), NIH14)
    saved.save_pretrained(tmp_path)
    smaller = ModelArguments(model_name_or_path=str(tmp_path), model_kwargs={"patch_size": 1}, image_size=32)
    with pytest.raises(ValueError, match=r"does not have 1 of the model's weights, .* another shape: swin\.embed"):
        build_model(smaller, NIH14)  # the positions are interpolated; patches of another size cannot be
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in tensors if "layernorm_before" in name)
    del tensors[gone]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="does not have 1 of the model's weights"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NIH14)


@pytest.mark.parametrize(("size", "window", "fits"), [(33, 3, True), (48, 3, True), (32, 2, True), (49, 5, False)])
def test_the_least_size_that_is_named_is_the_least_that_runs(size, window, fits):
    options = {"patch_size": 2, "window_size": window, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 2, 2, 4]}
    stock = SwinForImageClassification(SwinConfig(image_size=size, **options)).eval()
    pixels = torch.zeros(1, 3, size, size)
    if fits:
        assert stock(pixel_values=pixels).logits.isfinite().all()
        fresh("swin", options, NIH14, size)
        return
    with pytest.raises(RuntimeError):
        stock(pixel_values=pixels)
    with pytest.raises(ValueError, match="last grid"):
        fresh("swin", options, NIH14, size)


def test_grid_smaller_than_the_window_is_refused_by_us_and_fails_in_transformers():
    with pytest.raises(
        ValueError, match=r"last grid of 2 x 2 .* window of 3; set image_size to 33 or more, or window_size to 2"
    ):
        build_model(ModelArguments(**swin(window_size=3)), NIH14)
    config = SwinConfig(
        image_size=32, patch_size=2, window_size=3, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]
    )
    with pytest.raises(RuntimeError):  # if a later transformers accepts it, the check above can go
        SwinForImageClassification(config)(pixel_values=torch.zeros(1, 3, 32, 32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    build_model(ModelArguments(**SWIN), NIH14).save_pretrained(folder)
    return folder


WRONG = {
    "channels 1": ({"num_channels": 1}, "takes 1 channel .num_channels.; this package feeds 3"),
    "channels 4": ({"num_channels": 4}, "takes 4 channels"),
    "channels text": ({"num_channels": "3"}, "num_channels"),
    "channels": ({"embed_dim": 10**7}, "embed_dim"),
    "channels in all": ({"embed_dim": 4096}, "has .* parameters"),
    "channels of text": ({"embed_dim": "8"}, "embed_dim"),
    "channels not whole": ({"embed_dim": 8.5}, "embed_dim"),
    "blocks": ({"depths": [10**6, 1, 1, 1]}, "depths"),
    "blocks in all": ({"depths": [150, 150, 1, 1]}, "depths .* 302 blocks"),
    "no block": ({"depths": [0, 1, 1, 1]}, "depths"),
    "no stage": ({"depths": []}, "depths"),
    "stages": ({"depths": [1] * 40, "num_heads": [1] * 40}, "depths"),
    "blocks a number": ({"depths": 4}, "depths"),
    "fewer heads": ({"num_heads": [1, 2]}, "depths .* 4 stages and num_heads has 2"),
    "no head": ({"num_heads": [0, 2, 2, 4]}, "num_heads"),
    "heads that do not divide": ({"num_heads": [3, 2, 2, 4]}, "8 channels .* which 3 attention heads"),
    "window 0": ({"window_size": 0}, "window_size"),
    "window negative": ({"window_size": -2}, "window_size"),
    "window": ({"window_size": 10**6}, "window_size"),
    "patch 0": ({"patch_size": 0}, "patch_size"),
    "patch negative": ({"patch_size": -4}, "patch_size"),
    "patch a list": ({"patch_size": [2, 2]}, "patch_size"),
    "mlp": ({"mlp_ratio": 1e9}, "mlp_ratio"),
    "mlp NaN": ({"mlp_ratio": float("nan")}, "mlp_ratio"),
    "activation": ({"hidden_act": "nothing"}, "hidden_act"),
    "quantized": ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
    "weights of another name": ({"transformers_weights": "x.safetensors"}, "transformers_weights"),
    "no type": ({"model_type": None}, "architecture of .* is None; hf_cxr works with beit"),
    "record": ({"hf_cxr": "x"}, "hf_cxr in"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_a_config_that_cannot_be_is_refused_before_anything_is_made(saved, tmp_path, changes, message):
    values = json.loads((saved / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(values))  # and no weights: they are not reached
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=32)
    readers = (
        lambda: build_model(arguments, NIH14),
        lambda: check_model(arguments),
        lambda: load_weights(tmp_path),
    )
    for read in readers:
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 10**9}, "image_size"),
        ({"image_size": [32, 32]}, "image_size"),
        ({"image_size": 4096, "patch_size": 1, "window_size": 7}, "16,777,216 patches"),
        ({"num_labels": 10**8, "id2label": None}, "num_labels|id2label"),
        ({"num_labels": 3}, "num_labels 3, but its id2label names 14"),
    ],
)
def test_sizes_that_training_replaces_are_refused_in_measuring(saved, tmp_path, changes, message):
    values = json.loads((saved / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("embed_dim", swin(embed_dim=10**7)),
        ("depths", swin(depths=[10**6, 1, 1, 1])),
        ("num_heads", swin(num_heads=[3, 2, 2, 4])),
        ("window_size", swin(window_size=0)),
        ("patch_size", swin(patch_size=0)),
        ("drop_path_rate", swin(drop_path_rate=1.0)),
        ("image_size", tiny(image_size=10**9, resize_size=10**9)),
    ],
)
def test_options_of_a_fresh_model_are_refused_likewise(key, settings):
    for read in (check_model, lambda arguments: build_model(arguments, NIH14)):
        with pytest.raises(ValueError, match="fresh swin model") as caught:
            read(ModelArguments(**settings))
        assert key in str(caught.value)


def test_checking_a_config_draws_no_random_number(saved):
    before = torch.get_rng_state()
    check_model(ModelArguments(**SWIN))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    one = build_model(ModelArguments(**SWIN), NIH14)
    torch.manual_seed(3)
    two = SwinForImageClassification(one.config)
    assert torch.equal(
        one.swin.embeddings.patch_embeddings.projection.weight, two.swin.embeddings.patch_embeddings.projection.weight
    )


def test_an_image_size_that_is_not_a_multiple_of_the_patch_is_padded():
    model = build_model(ModelArguments(**tiny(image_size=33, resize_size=38)), NIH14)
    assert model(pixel_values=torch.zeros(1, 3, 33, 33)).logits.shape == (1, 14)
    settings = swin(use_absolute_embeddings=True) | {"image_size": 33, "resize_size": 38}
    with pytest.raises(ValueError, match="fresh swin model cannot take an image of 33 pixels"):
        build_model(ModelArguments(**settings), NIH14)


def test_an_architecture_that_is_not_in_the_table_is_refused(tmp_path):
    PoolFormerConfig().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": "levit"}))
    with pytest.raises(
        ValueError, match=r"architecture of .* is 'levit': nothing here tests it.*works with beit, .* vit"
    ):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NIH14)
