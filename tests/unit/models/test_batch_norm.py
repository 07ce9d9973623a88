"""Batch norm: which layers the rule is about, what it refuses, and what SyncBatchNorm takes over."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import MODELS
from torch import nn

from hf_cxr.config import ModelArguments
from hf_cxr.models import fresh
from hf_cxr.models.batch_norm import (
    batch_norms,
    check_batch_norm,
    describe_batch_norm,
    frozen_parts,
    synchronised,
)
from hf_cxr.models.build import build_model
from hf_cxr.models.head import freeze_backbone, head

NAMES = ("Mass", "Nodule", "Hernia")
WHOLE = {"images": 8, "accumulation": 1, "processes": 1, "device": "cpu"}


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return fresh("resnet", MODELS["resnet"], NAMES, 32)


def test_a_step_that_is_taken_whole_is_taken(resnet):
    check_batch_norm(resnet, **WHOLE)
    check_batch_norm(resnet, **WHOLE | {"processes": 4, "device": "cuda"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulation": 4}, "use gradient_accumulation_steps 1, not 4"),
        ({"accumulation": 2, "processes": 2, "device": "cuda"}, "use gradient_accumulation_steps 1, not 2"),
        ({"processes": 2}, "use 1 process on cpu, not 2"),
        ({"sharded": True}, "FSDP or DeepSpeed"),
        ({"images": 1}, "use per_device_train_batch_size 2 or more"),
    ],
)
def test_a_step_that_is_split_up_is_refused_in_one_line(resnet, changes, message):
    with pytest.raises(
        ValueError, match=rf"ResNetForImageClassification has 16 batch norm layers.*{message}"
    ) as caught:
        check_batch_norm(resnet, **WHOLE | changes)
    assert "\n" not in str(caught.value)


def test_other_models_and_frozen_ones_are_split_as_they_please(resnet):
    split = {"images": 1, "accumulation": 4, "processes": 2, "device": "cpu", "sharded": True}
    check_batch_norm(fresh("vit", MODELS["vit"], NAMES, 32), **split)
    freeze_backbone(resnet)
    check_batch_norm(resnet, **split)


def test_averages_that_forget_all_but_the_last_step_are_refused():
    options = {**MODELS["efficientnet"], "batch_norm_momentum": 0.99}  # as on the Hub, and TensorFlow's meaning of it
    model = fresh("efficientnet", options, NAMES, 32)
    with pytest.raises(ValueError, match=r"averages are 99\.00% .* give --model_kwargs.batch_norm_momentum 0\.01"):
        check_batch_norm(model, **WHOLE)


def test_the_frozen_parts_are_the_largest_without_a_gradient():
    model = nn.ModuleDict({"a": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "b": nn.Linear(4, 2)})
    assert list(frozen_parts(model)) == []
    assert len(batch_norms(model)) == 1
    model["a"].requires_grad_(False)
    assert list(frozen_parts(model)) == [model["a"]]
    assert batch_norms(model) == []
    model["a"][1].requires_grad_(True)
    assert list(frozen_parts(model)) == [model["a"][0]]
    assert len(batch_norms(model)) == 1
    # inside a part that has the head too, as in timm's models
    outer = nn.ModuleDict({"whole": nn.ModuleDict({"body": nn.BatchNorm2d(4), "head": nn.Linear(4, 2)})})
    outer["whole"]["body"].requires_grad_(False)
    assert list(frozen_parts(outer)) == [outer["whole"]["body"]]


def test_synchronised_layers_have_the_same_weights_and_evaluate_alike(resnet):
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        resnet(pixel_values=pixels)
        before = {name: value.clone() for name, value in resnet.state_dict().items()}
        expected = resnet.eval()(pixel_values=pixels).logits
        model = synchronised(resnet).eval()
        assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in model.modules()) == 16
        assert model.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        torch.testing.assert_close(model(pixel_values=pixels).logits, expected)
    assert isinstance(head(model), nn.Linear)


def test_a_checkpoint_without_the_layers_counters_loads_and_one_without_their_averages_does_not(resnet, tmp_path):
    resnet.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=32)

    def save(*left_out):
        kept = {name: value for name, value in weights.items() if not name.endswith(left_out)}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})

    save("num_batches_tracked")
    state = build_model(arguments, ["a"]).state_dict()
    assert {value.item() for name, value in state.items() if name.endswith("num_batches_tracked")} == {0}
    save("running_var")
    with pytest.raises(ValueError, match="does not have 16 of the model's weights"):
        build_model(arguments, ["a"])


def test_a_report_says_how_many_images_are_measured_at_once(resnet):
    assert describe_batch_norm(resnet, 32) == {"layers": 16, "images": 32}
    assert describe_batch_norm(fresh("vit", MODELS["vit"], NAMES, 32), 32) is None
