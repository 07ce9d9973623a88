"""The seam: one way to build, read, freeze, calibrate and save whatever architecture the table has."""

import ast
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import CONVOLUTIONS, MODELS, TRANSFORMER
from transformers import (
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2Model,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

import hf_cxr
from hf_cxr.arguments.components import ARCHITECTURES, architecture_options
from hf_cxr.config import ModelArguments
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.inference.classifier import Classifier, stock_pipeline
from hf_cxr.models import features, fresh, head
from hf_cxr.models.architectures import CHECKS, checked_config
from hf_cxr.models.build import build_model, check_model, load_weights
from hf_cxr.models.head import check_head, fold_into_head, head_keys, outputs_of
from hf_cxr.models.refused import REFUSED
from hf_cxr.models.timm_models import TIMM
from hf_cxr.processing import build_image_processor, image_processor_for
from hf_cxr.systems import SYSTEMS, register
from hf_cxr.systems.output_layer import OutputLayer

NAMES = ("Mass", "Nodule", "Hernia")


def test_the_tests_have_every_architecture():
    assert MODELS.keys() | {TIMM} == set(ARCHITECTURES)  # test_timm_models.py has those of timm
    assert CHECKS.keys() <= set(ARCHITECTURES)


def test_every_classifier_of_transformers_is_used_or_refused_with_a_reason():
    register()
    systems = set(SYSTEMS)
    known = set(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES) | systems
    assert set(ARCHITECTURES) | set(REFUSED) == known
    assert not set(ARCHITECTURES) & set(REFUSED)


@pytest.fixture(scope="module", params=sorted(MODELS))
def network(request):
    torch.manual_seed(0)
    model = fresh(request.param, MODELS[request.param], NAMES, 32)
    with torch.no_grad():
        model(pixel_values=torch.randn(16, 3, 32, 32))  # batch norm: its averages, which evaluation divides by
        model.eval()
        head(model).bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    return model


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_logits_are_the_heads_map_of_the_features(network, images):
    feature_BD, layer = features(network, images), head(network)
    logit_BC = network(pixel_values=images).logits
    assert feature_BD.shape == (4, layer.in_features)
    assert logit_BC.shape == (4, 3)
    assert logit_BC.std() > 0
    torch.testing.assert_close(feature_BD @ layer.weight.T + layer.bias, logit_BC)


@torch.no_grad()
def test_a_calibration_that_is_folded_in_calibrates_the_logits(network, images, tmp_path):
    network.save_pretrained(tmp_path)
    model = load_weights(tmp_path).eval()
    before = model(pixel_values=images).logits
    slope_C, shift_C = np.array([0.5, 2.0, 1.5]), np.array([1.0, -3.0, 0.25])
    fold_into_head(model, Calibration(slope_C, shift_C, ("affine",) * 3, NAMES, ("",) * 3).fold)
    after = model(pixel_values=images).logits
    torch.testing.assert_close(after, before * torch.tensor(slope_C).float() + torch.tensor(shift_C).float())
    assert not torch.allclose(after, before)


@torch.no_grad()
def test_it_is_saved_and_read_by_us_and_by_transformers_alike(network, images, tmp_path):
    network.save_pretrained(tmp_path)
    build_image_processor(36, 32).save_pretrained(tmp_path)
    expected = network(pixel_values=images).logits
    ours = load_weights(tmp_path).eval()
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in network.state_dict().items())
    # Convolutions round by where a tensor lies in memory.
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-6)
    close(ours(pixel_values=images).logits, expected)
    stock = AutoModelForImageClassification.from_pretrained(tmp_path, trust_remote_code=False).eval()
    assert type(stock) is type(network)
    close(stock(pixel_values=images).logits, expected)
    grey = np.random.default_rng(0).integers(0, 256, (36, 36), dtype=np.uint8)
    logit_C = Classifier(tmp_path, device="cpu").logits(torch.from_numpy(grey)[None, None])[0]
    [scores] = stock_pipeline(tmp_path, [Image.fromarray(grey)])
    np.testing.assert_allclose([scores[name] for name in NAMES], torch.sigmoid(torch.tensor(logit_C)), atol=1e-4)


def test_a_checkpoint_gives_its_body_and_a_new_or_its_own_head(network, tmp_path):
    network.save_pretrained(tmp_path)
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=32)
    check_model(arguments)
    new = build_model(arguments, ["a", "b", "c"], head_bias_C=[1.0, 2.0, 3.0])
    after = new.state_dict()
    different = {name for name, value in network.state_dict().items() if not torch.equal(value, after[name])}
    if isinstance(head(new), OutputLayer):
        assert {f"classifier.{name}" for name in head(new).state_dict()} < head_keys(new)
        assert torch.equal(head(new).weight, torch.eye(3))
        assert head(new).bias.tolist() == [0.0, 0.0, 0.0]
        assert different < head_keys(new)
        assert len(different) > 2
    else:
        assert different == head_keys(new)
        assert head(new).bias.tolist() == [1.0, 2.0, 3.0]
    kept = build_model(arguments, NAMES, keep_head=True)
    assert torch.equal(head(kept).weight, head(network).weight)


def test_the_outputs_are_counted_from_the_names_and_shapes_of_saved_weights(network):
    assert outputs_of({name: tuple(value.shape) for name, value in network.state_dict().items()}) == 3
    assert outputs_of({"backbone.bias": (3,)}) is None


USERS = ("commands/", "demo/", "serving/", "run/evaluating/")


def test_only_the_seam_knows_a_family_or_the_parts_of_a_model():
    package = Path(hf_cxr.__file__).parent
    names = {"classifier", "pooler_output", "swin", "hf_cxr", "SwinConfig", "SwinForImageClassification"}
    found = {}
    for path in package.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        place = path.relative_to(package)
        # In these folders an attribute of that name is this package's own Classifier and not a model's layer.
        found[str(place)] = used & (names - {"classifier"} if any(map(place.as_posix().startswith, USERS)) else names)
    assert len(found) > 50
    own = {"models/fast_swin.py", "pretraining/model.py"}  # the pass, and the pre-training, of one family
    assert {file for file, used in found.items() if used and not file.startswith("systems/")} == own


def test_a_distilled_deit_gives_its_body_and_its_two_heads_are_refused(tmp_path):
    config = DeiTConfig(**MODELS["deit"], image_size=32, num_labels=3, id2label=dict(enumerate(NAMES)))
    saved = DeiTForImageClassificationWithTeacher(config)
    saved.save_pretrained(tmp_path)
    model = build_model(ModelArguments(model_name_or_path=str(tmp_path), image_size=32), NAMES)
    body = model.base_model.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in saved.base_model.state_dict().items())
    with pytest.raises(ValueError, match=r"WithTeacher cannot be used: .* it has 2 of 3 outputs"):
        load_weights(tmp_path)


def test_rad_dinos_backbone_gets_a_new_head_on_its_class_token_and_its_patches(tmp_path):
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    saved = Dinov2Model(Dinov2Config(**options, image_size=518)).eval()
    saved.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["architectures"] == ["Dinov2Model"]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {"embeddings.mask_token", "encoder.layer.0.attention.attention.query.weight"} <= names  # as on the Hub
    processor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 518}, "resample": 3}
    processor |= {"crop_size": {"height": 518, "width": 518}, "image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=518)
    check_model(arguments)
    model = build_model(arguments, NAMES, head_bias_C=[1.0, 2.0, 3.0]).eval()
    body = model.base_model.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in saved.state_dict().items())
    pixels = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = saved(pixel_values=pixels).last_hidden_state
        expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
        torch.testing.assert_close(features(model, pixels), expected)
    assert head(model).bias.tolist() == [1.0, 2.0, 3.0]
    ours = image_processor_for(arguments)
    assert (ours.crop_size["height"], {*ours.image_mean}, {*ours.image_std}) == (518, {0.5307}, {0.2583})


def test_a_swin_v2_as_the_hub_has_it_gives_its_body(tmp_path):
    saved = fresh("swinv2", MODELS["swinv2"], NAMES, 32)
    saved.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values |= {"num_layers": 2, "hidden_size": 16, "path_norm": True, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    weights = load_file(tmp_path / "model.safetensors")
    blocks = [name.removesuffix("logit_scale") for name in weights if name.endswith("self.logit_scale")]
    assert len(blocks) == 2
    weights |= {f"{name}relative_coords_table": torch.zeros(1, 7, 7, 2) for name in blocks}
    weights |= {f"{name}relative_position_index": torch.zeros(16, 16, dtype=torch.long) for name in blocks}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for size in (32, 64):  # its positions are computed, so that any size has them
        arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=size)
        check_model(arguments)
        body = build_model(arguments, NAMES).base_model.state_dict()
        assert all(torch.equal(value, body[name]) for name, value in saved.base_model.state_dict().items())


def test_a_network_whose_config_says_no_size_is_measured_at_its_processors(tmp_path):
    saved = fresh("resnet", MODELS["resnet"], NAMES, 32)
    saved.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["image_size"]  # as on the Hub
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"image_size .* is None"):
        load_weights(tmp_path)
    build_image_processor(73, 64).save_pretrained(tmp_path)
    assert load_weights(tmp_path).config.image_size == 64


# Refusals


def network_with(layer):
    model = fresh("vit", MODELS["vit"], NAMES, 32)
    model.classifier = layer
    return model


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (torch.nn.Identity(), "it has 0 of 3 outputs"),
        (torch.nn.Conv1d(16, 3, 1), "it has 0 of 3 outputs"),
        (
            torch.nn.Sequential(torch.nn.Linear(16, 3), torch.nn.Linear(3, 3)),
            r"it has 2 .*classifier\.0, classifier\.1",
        ),
        (torch.nn.Sequential(torch.nn.Linear(16, 3), torch.nn.Tanh()), "not the output of one linear layer"),
        (torch.nn.Linear(16, 3, bias=False), "not the output of one linear layer with a bias"),
    ],
    ids=["none", "convolution", "two", "something behind it", "no bias"],
)
def test_a_head_that_is_not_one_linear_layer_is_refused(layer, message):
    with pytest.raises(ValueError, match=rf"ViTForImageClassification cannot be used: .*{message}") as caught:
        check_head(network_with(layer), torch.zeros(1, 3, 32, 32))
    assert "\n" not in str(caught.value)


def test_a_head_behind_another_layer_is_one():
    model = network_with(torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Linear(8, 3)))
    check_head(model, torch.zeros(1, 3, 32, 32))
    assert features(model, torch.zeros(1, 3, 32, 32)).shape == (1, 8)


@pytest.mark.parametrize(
    ("name", "kwargs", "size", "message"),
    [
        ("siglip", {}, 32, "architecture of a fresh siglip model .* 'siglip': it is a model of images and text"),
        ("vit_mae", {}, 32, "'vit_mae': transformers has no image classifier of it; hf_cxr works with beit, "),
        ("swine", {}, 32, "is 'swine'; hf_cxr works with beit, "),
        (
            "swin",
            {"embed_dmi": 8},
            32,
            "a fresh swin model: swin takes no option 'embed_dmi'; did you mean embed_dim",
        ),
        ("vit", {"image_size": 32}, 32, "no option 'image_size'"),
        ("vit", {"id2label": {}}, 32, "no option 'id2label'"),
        (
            "vit",
            TRANSFORMER | {"hidden_size": "16"},
            32,
            "a fresh vit model: hidden_size is '16', .* a whole number",
        ),
        ("vit", TRANSFORMER | {"hidden_act": "none"}, 32, "hidden_act .* no such function"),
        ("vit", TRANSFORMER | {"patch_size": 5}, 32, "image_size 32 .* not a multiple of its patch_size 5.* 30 or 35"),
        ("vit", TRANSFORMER | {"patch_size": 64}, 32, "not a multiple of its patch_size 64.* 64"),
        ("vit", TRANSFORMER | {"num_hidden_layers": 10**6}, 32, "num_hidden_layers .* from 1 to 200"),
        ("vit", TRANSFORMER | {"hidden_size": 10**6}, 32, r"has .* parameters; at most 2e\+09"),
        ("dinov2", TRANSFORMER | {"hidden_size": 10**12}, 32, "hidden_size .* largest number"),
        ("convnextv2", CONVOLUTIONS | {"depths": [150, 150, 1, 1]}, 32, "depths .* 302 blocks"),
        ("convnextv2", CONVOLUTIONS | {"hidden_sizes": [8] * 2000}, 32, "hidden_sizes .* 2,000 entries"),
        ("convnextv2", CONVOLUTIONS | {"layer_norm_eps": float("nan")}, 32, "layer_norm_eps .* is nan"),
        ("convnext", CONVOLUTIONS, 16, "a fresh convnext model cannot take an image of 16 pixels"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(name, kwargs, size, message):
    with pytest.raises(ValueError, match=message) as caught:
        fresh(name, kwargs, NAMES, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["convnextv2", "swin"])
def test_options_that_are_left_out_have_their_defaults(name):
    config = checked_config({"model_type": name, "image_size": 224}, "a test's model")
    assert tuple(config.depths) == tuple(architecture_options(name)["depths"].default)


def test_the_options_of_an_architecture_are_the_arguments_of_its_config():
    assert architecture_options("swin")["depths"].default == (2, 2, 6, 2)
    assert architecture_options("convnextv2")["drop_path_rate"].default == 0
    assert not {"image_size", "num_channels", "id2label", "model_type"} & architecture_options("vit").keys()
