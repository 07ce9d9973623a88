"""A model whose findings have outputs of their own, behind the same seam."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.models.head import check_head, features, fold_into_head, freeze_backbone, head, reset_head
from hf_cxr.systems.output_layer import OutputLayer

NAMES = ("Mass", "Nodule", "Hernia")


class OwnOutputs(PreTrainedModel):
    """A finding's logit is its weight times the image's mean, plus its bias."""

    config_class = PreTrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.own = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(config.num_labels))
        self.classifier = OutputLayer(config.num_labels)

    def start_outputs(self, bias_C):
        for layer, bias in zip(self.own, bias_C, strict=True):
            torch.nn.init.ones_(layer.weight)
            torch.nn.init.constant_(layer.bias, bias)

    def forward(self, pixel_values):
        mean_B1 = pixel_values.mean(dim=(1, 2, 3))[:, None]
        return ImageClassifierOutput(logits=self.classifier(torch.cat([layer(mean_B1) for layer in self.own], dim=1)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return OwnOutputs(PreTrainedConfig(num_labels=3)).eval()


@pytest.fixture
def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_head_is_the_identity_until_a_calibration_is_folded_in(model, images):
    check_head(model, images)
    before = model(pixel_values=images).logits
    assert torch.equal(features(model, images), before)
    slope_C, shift_C = np.array([0.5, 2.0, 1.5]), np.array([1.0, -3.0, 0.25])
    fold_into_head(model, Calibration(slope_C, shift_C, ("affine",) * 3, NAMES, ("",) * 3).fold)
    after = model(pixel_values=images).logits
    torch.testing.assert_close(after, before * torch.tensor(slope_C).float() + torch.tensor(shift_C).float())
    reset_head(model)
    assert torch.equal(head(model).weight, torch.eye(3))


@torch.no_grad()
def test_the_models_own_outputs_start_at_the_bias(model, images):
    reset_head(model, np.array([-1.0, -2.0, -3.0]))
    mean_B1 = images.mean(dim=(1, 2, 3))[:, None]
    torch.testing.assert_close(model(pixel_values=images).logits, mean_B1 - torch.tensor([[1.0, 2.0, 3.0]]))


def test_it_is_not_trained(model, images):
    model(pixel_values=images).logits.sum().backward()
    assert head(model).weight.grad is None
    assert model.own[0].weight.grad is not None
    with pytest.raises(ValueError, match="no classifier behind its backbone"):
        freeze_backbone(model)
