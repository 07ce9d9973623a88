"""A backbone inside a system starts from a saved model's weights, which are checked as those of any saved model."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import DENSE, MODELS

from hf_cxr.config import ModelArguments
from hf_cxr.models import ModelRecord, fresh
from hf_cxr.models.build import build_model, check_model, describe_initial_weights, initial_record, load_weights
from hf_cxr.processing import build_image_processor, image_processor_for

NAMES = ("Mass", "Nodule", "Hernia")
SIZES = {key: value for key, value in MODELS["swinchex"].items() if key != "head_sizes"}


def arguments(folder, **changes):
    values = {"architecture": "swinchex", "model_kwargs": MODELS["swinchex"], "image_size": 32}
    return ModelArguments(backbone_name_or_path=str(folder), **values | changes)


@pytest.fixture
def saved(tmp_path):
    """A Swin of two other findings, on a split of its own."""
    torch.manual_seed(0)
    model = fresh("swin", SIZES, ("a", "b"), 32)
    ModelRecord(version="1", dataset="a hospital's", split="f" * 64).write(model.config)
    folder = tmp_path / "swin"
    model.save_pretrained(folder)
    build_image_processor(36, 32, mean=(0.4,) * 3, std=(0.3,) * 3).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("system", ["swinchex", "csra"])
def test_the_backbone_is_the_saved_one_and_the_rest_is_new(system, saved):
    kwargs = MODELS["swinchex"] if system == "swinchex" else {"backbone_config": {"model_type": "swin"} | SIZES}
    args = arguments(saved, architecture=system, model_kwargs=kwargs)
    assert check_model(args).device.type == "meta"
    model = build_model(args, NAMES, [-1.0, -2.0, -3.0])
    assert model.config.model_type == system
    weights = load_weights(saved).state_dict()  # not the file's own names, which are those of an older transformers
    taken = model.base_model.state_dict()
    assert len(taken) > 20
    assert all(torch.equal(value, weights[f"swin.{name}"]) for name, value in taken.items())
    other = build_model(ModelArguments(architecture=system, model_kwargs=kwargs, image_size=32), NAMES)
    assert not torch.equal(
        other.base_model.embeddings.patch_embeddings.projection.weight,
        model.base_model.embeddings.patch_embeddings.projection.weight,
    )


# System -> what its backbone is saved as, its sizes, and where it is in the system.
SAVED_AS = {
    "wang2017": ("resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, "body.resnet"),
    "dnet": ("dnet", DENSE, "densenet"),
    "yao2017": ("dnet", DENSE, "densenet"),
}


@pytest.mark.parametrize("system", SAVED_AS)
def test_a_backbone_whose_config_names_no_image_size_fits_any(system, tmp_path):
    """As microsoft/resnet-50 and every model of timm: convolutions fit any size, and config.json names none."""
    architecture, sizes, part = SAVED_AS[system]
    torch.manual_seed(0)
    source = fresh(architecture, sizes, ("a", "b"), 64)
    source.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values.pop("image_size", None)
    (tmp_path / "config.json").write_text(json.dumps(values))
    args = arguments(tmp_path, architecture=system, model_kwargs=MODELS[system])
    check_model(args)
    taken = build_model(args, NAMES).get_submodule(part).state_dict()
    prefix = f"{source.base_model_prefix}."
    assert len(taken) > 10
    assert all(torch.equal(value, source.state_dict()[prefix + name]) for name, value in taken.items())


def test_a_report_says_whose_weights_they_are(saved):
    args = arguments(saved)
    assert describe_initial_weights(args) == {
        "initial_weights": f"backbone from local folder swin, trained on the split {'f' * 64}",
        "base_model": None,
    }
    assert initial_record(args).dataset == "a hospital's"
    hub = arguments("microsoft/swin-large-patch4-window7-224-in22k")
    assert describe_initial_weights(hub) == {
        "initial_weights": "backbone from microsoft/swin-large-patch4-window7-224-in22k",
        "base_model": "microsoft/swin-large-patch4-window7-224-in22k",
    }
    random = ModelArguments(architecture="swinchex", model_kwargs=MODELS["swinchex"])
    assert describe_initial_weights(random)["initial_weights"] == "random"


def test_preprocessing_is_that_of_the_weights(saved):
    assert list(image_processor_for(arguments(saved)).image_mean) == [0.4] * 3


def change_weights(folder, change):
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (
            lambda folder: change_weights(folder, lambda weights: weights.pop("swin.layernorm.weight")),
            "does not have 1 of the model's weights, .*: swin.layernorm.weight",
        ),
        (
            lambda folder: change_weights(folder, lambda weights: weights["swin.layernorm.weight"].fill_(torch.nan)),
            "16 weights in swin.layernorm.weight that are not finite",
        ),
        (
            lambda folder: (folder / "config.json").write_text(
                json.dumps(json.loads((folder / "config.json").read_text()) | {"model_type": "bert"})
            ),
            "the architecture of .* is 'bert'",
        ),
    ],
    ids=["no weights", "a missing one", "not finite", "another kind"],
)
def test_a_damaged_backbone_is_refused_before_data_are_read(break_it, message, saved):
    break_it(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        check_model(arguments(saved))
    assert "\n" not in str(caught.value)


def test_a_backbone_that_does_not_fit_is_refused_by_name(saved):
    wide = arguments(saved, model_kwargs=MODELS["swinchex"] | {"embed_dim": 16})
    with pytest.raises(ValueError, match=r"swin cannot be the backbone of swinchex: embed_dim is 8 there and 16 here"):
        check_model(wide)
    other = arguments(saved, architecture="csra", model_kwargs=MODELS["csra"])
    with pytest.raises(
        ValueError, match="cannot be the backbone of csra: the backbone must be a convnextv2, and this"
    ):
        check_model(other)


def test_it_is_for_systems_and_goes_with_no_whole_model():
    with pytest.raises(ValueError, match=r"for the backbone within a system \(csra, .*give the weights as --model_na"):
        ModelArguments(backbone_name_or_path="x/y")
    with pytest.raises(ValueError, match="goes with a fresh model, not with model_name_or_path"):
        ModelArguments(backbone_name_or_path="x/y", model_name_or_path="x/z", architecture="swinchex")
