"""The model: a new multi-label head whatever the checkpoint had; refusals before the first step."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import SWIN
from transformers import SwinConfig, SwinForImageClassification, ViTConfig, ViTForImageClassification

from hf_cxr.config import ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.modeling import build_model


def tiny(**kwargs):
    return {**SWIN, **kwargs}


def test_fresh_model_is_multi_label():
    model = build_model(ModelArguments(**tiny()), NIH14, head_bias_C=range(14))
    assert model.config.problem_type == "multi_label_classification"
    assert [model.config.id2label[i] for i in range(14)] == list(NIH14)
    assert model.config.label2id["Hernia"] == 13
    assert model.classifier.bias.tolist() == list(range(14))
    assert model(pixel_values=torch.zeros(2, 3, 32, 32)).logits.shape == (2, 14)


@pytest.mark.parametrize("classes", [3, 14])
def test_checkpoint_keeps_its_body_and_gets_a_new_head(tmp_path, classes):
    saved = build_model(ModelArguments(**tiny()), [f"class_{i}" for i in range(classes)])
    with torch.no_grad():
        saved.classifier.weight.fill_(7.0)
    saved.save_pretrained(tmp_path)
    model = build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NIH14)
    assert model.config.num_labels == 14
    assert model.config.id2label[0] == "Atelectasis"
    assert (model.classifier.bias == 0).all()
    assert 0 < model.classifier.weight.abs().max() < 1
    for (name, before), (_, after) in zip(saved.swin.named_parameters(), model.swin.named_parameters(), strict=True):
        assert torch.equal(before, after), name


def test_checkpoint_that_lacks_weights_is_refused(tmp_path):
    saved = build_model(ModelArguments(**tiny(swin_absolute_embeddings=True)), NIH14)
    saved.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 1 of the model's weights, .* another shape: swin\.embed"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=64), NIH14)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in tensors if "layernorm_before" in name)
    del tensors[gone]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 of the model's weights"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NIH14)


def test_grid_smaller_than_the_window_is_refused_by_us_and_fails_in_transformers():
    with pytest.raises(ValueError, match=r"last grid of 2 x 2 .* window of 3; set image_size to 48 or more"):
        build_model(ModelArguments(**tiny(swin_window_size=3)), NIH14)
    config = SwinConfig(
        image_size=32, patch_size=2, window_size=3, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]
    )
    with pytest.raises(RuntimeError):  # if a later transformers accepts it, the check above can go
        SwinForImageClassification(config)(pixel_values=torch.zeros(1, 3, 32, 32))


def test_other_architecture_is_refused(tmp_path):
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a vit model; hf_cxr works with Swin models"):
        build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NIH14)
