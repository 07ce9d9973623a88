"""Depths of parameters: as the published recipes count layers, for each architecture, and by a list for the rest."""

import pytest
import torch
from tiny import MODELS
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    ConvNextV2Config,
    PreTrainedConfig,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
    Swinv2Config,
    ViTConfig,
)

from hf_cxr.models.build import fresh
from hf_cxr.models.depths import depth_of_parameters


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForImageClassification.from_config(config)


def simmim_swin(name, depths):
    """``get_swin_layer`` of github.com/microsoft/SimMIM, on transformers' names."""
    parts = name.split(".")
    if parts[1] == "embeddings":
        return 0
    if parts[1] == "encoder":
        stage = int(parts[3])
        return sum(depths[: stage + 1]) if parts[4] == "downsample" else sum(depths[:stage]) + int(parts[5]) + 1
    return sum(depths) + 1


def convnext_base(name):
    """``get_num_layer_for_convnext`` of github.com/facebookresearch/ConvNeXt, on transformers' names."""
    parts = name.split(".")
    if parts[1] == "embeddings":
        return 0
    if parts[1] == "encoder":
        stage = int(parts[3])
        if stage == 2:
            return 3 if parts[4] == "downsampling_layer" else 3 + int(parts[5]) // 3
        return {0: 1, 1: 2, 3: 12}[stage]
    return 13


def beit_vit(name, blocks):
    """``get_num_layer_for_vit`` of github.com/microsoft/unilm, beit, on transformers' names."""
    parts = name.split(".")
    if parts[1] == "embeddings":
        return 0
    return int(parts[2]) + 1 if parts[1] == "layers" else blocks + 1


SMALL = {"embed_dim": 8, "num_heads": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SwinConfig(depths=[2, 2, 18, 2], **SMALL), lambda name: simmim_swin(name, [2, 2, 18, 2])),
        (Swinv2Config(depths=[2, 2, 6, 2], **SMALL), lambda name: simmim_swin(name, [2, 2, 6, 2])),
        (ConvNextV2Config(depths=[3, 3, 27, 3], hidden_sizes=[8, 8, 8, 8]), convnext_base),
        (ViTConfig(hidden_size=8, num_hidden_layers=12, num_attention_heads=1), lambda name: beit_vit(name, 12)),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_depths_are_those_of_the_published_recipes(config, expected):
    depths = depth_of_parameters(on_meta(config))
    assert depths == {name: expected(name) for name in depths}
    assert len(depths) > 50


def test_each_block_of_a_resnet_is_a_layer():
    model = on_meta(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[3, 4, 6, 3]))
    depths = depth_of_parameters(model)
    assert set(depths.values()) == set(range(18))
    assert depths["resnet.embedder.embedder.convolution.weight"] == 0
    assert depths["resnet.encoder.stages.0.layers.2.layer.1.convolution.weight"] == 3
    assert depths["resnet.encoder.stages.1.layers.0.shortcut.convolution.weight"] == 4
    assert depths["classifier.1.weight"] == 17


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_architecture_has_depths_from_the_input_to_the_head(name):
    model = fresh(name, MODELS[name], ["a", "b"], 32)
    depths = depth_of_parameters(model)
    assert set(depths) == {key for key, _ in model.named_parameters()}
    top = max(depths.values())
    assert set(depths.values()) == set(range(top + 1))
    assert top >= 2
    assert all(depth == 0 for key, depth in depths.items() if ".embeddings." in key)
    assert all(depth == top for key, depth in depths.items() if key.startswith("classifier"))


class Config(PreTrainedConfig):
    model_type = "one_of_no_table"


class Model(PreTrainedModel):
    config_class, base_model_prefix = Config, "body"

    def __init__(self, config, *parts):
        super().__init__(config)
        self.body = nn.ModuleDict({"stem": nn.Linear(2, 2), "parts": nn.Sequential(*parts), "norm": nn.LayerNorm(2)})
        self.classifier = nn.Linear(2, config.num_labels)


def test_an_unknown_model_has_the_members_of_its_largest_list_as_layers():
    model = Model(Config(num_labels=3), *(nn.Linear(2, 2) for _ in range(4)))
    depths = depth_of_parameters(model)
    assert [depths[f"body.{part}.weight"] for part in ("stem", "parts.0", "parts.3", "norm")] == [0, 1, 4, 5]
    assert depths["classifier.bias"] == 5


def test_a_model_without_a_list_is_refused():
    with pytest.raises(ValueError, match="Model has no list of layers, so layer_decay has no depths"):
        depth_of_parameters(Model(Config(num_labels=3), nn.Linear(2, 2)))
