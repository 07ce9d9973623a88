"""Converted weights: the outputs of an independent Swin in float64 and of timm's; whole or refused; named."""

import argparse
import json
import pickle
import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from converted_files import ORIGIN, converted, saved
from official_swin import SIZES, features, random_weights, tables
from safetensors.torch import save_file

from hf_cxr.conversion.folder import convert_file, write_folder
from hf_cxr.conversion.parts import Sizes
from hf_cxr.models.head import features as own_features
from hf_cxr.models.record import ModelRecord

SECOND = SIZES | {"depths": [2, 1, 1], "num_heads": [1, 2, 2]}  # grids of 8, 4 and 2 patches


def tensors(arrays):
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def official(seed=0, *, sizes=SIZES, pretrained=None, **how):
    """A file of the official code: weights in float32, buffers, and a classifier of ImageNet's."""
    second = pretrained is not None
    weights = random_weights(seed, second=second, sizes=sizes, **how)
    floats = {name: tensor.float() for name, tensor in tensors(weights).items()}
    head = {"head.weight": torch.ones(7, 8), "head.bias": torch.ones(7)}
    return weights, floats | tensors(tables(sizes, pretrained)) | head


def assert_same_features(model, weights, sizes, pretrained=None):
    pixels = np.random.default_rng(5).normal(size=(3, sizes["image_size"], sizes["image_size"]))
    with torch.inference_mode():
        found = own_features(model, torch.from_numpy(pixels).float()[None])[0].numpy()
    expected = features(weights, pixels, sizes, pretrained)
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"absolute": True}, {"qkv_bias": False}])
def test_a_swin_gives_the_features_of_the_official_equations(tmp_path, how):
    weights, content = official(**how)
    model = converted(tmp_path, saved(tmp_path / "swin.pth", {"model": content}))
    assert_same_features(model, weights, SIZES)


@pytest.mark.parametrize("pretrained", [[0, 0, 0], [3, 3, 3]])
def test_a_second_version_with_a_clipped_last_window(tmp_path, pretrained):
    """Window, image size and windows of pre-training come from the tables of the file."""
    weights, content = official(sizes=SECOND, pretrained=pretrained)
    model = converted(tmp_path, saved(tmp_path / "v2.pth", {"model": content}))
    assert list(model.config.pretrained_window_sizes) == pretrained
    assert_same_features(model, weights, SECOND, pretrained)


def test_the_comparison_sees_a_swapped_query_and_key(tmp_path):
    """So that the tests above cannot pass by chance."""
    weights, content = official()
    swapped = content["layers.0.blocks.0.attn.qkv.weight"]
    content["layers.0.blocks.0.attn.qkv.weight"] = torch.cat([swapped[8:], swapped[:8]])
    model = converted(tmp_path, saved(tmp_path / "swin.pth", content))
    with pytest.raises(AssertionError):
        assert_same_features(model, weights, SIZES)


@pytest.mark.parametrize("kind", ["swin", "swinv2"])
def test_timms_own_forward(tmp_path, kind):
    try:
        from timm.models.swin_transformer import SwinTransformer
        from timm.models.swin_transformer_v2 import SwinTransformerV2
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        pytest.skip(f"timm cannot be imported: {error}")
    sizes = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 2)}
    torch.manual_seed(0)
    model = (SwinTransformer if kind == "swin" else SwinTransformerV2)(**sizes, num_classes=3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    given = Sizes(32) if kind == "swin" else Sizes(32, 4, [0, 0])
    ours = converted(tmp_path, path, sizes=given)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
        logits = model(pixels)
        found = own_features(ours, pixels)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    head = model.head.fc
    torch.testing.assert_close(found @ head.weight.T + head.bias, logits, atol=1e-5, rtol=0)


def test_timms_places_of_merging_are_the_official_ones(tmp_path):
    """Without timm: its names differ in the stage of the merging and in the head."""
    weights, content = official()
    names = {re.sub(r"layers\.0\.downsample", "layers.1.downsample", name): name for name in content}
    renamed = {name.replace("head.", "head.fc."): content[own] for name, own in names.items()}
    bare = {name: tensor for name, tensor in renamed.items() if "index" not in name and "mask" not in name}
    path = tmp_path / "model.safetensors"
    save_file(bare, path)
    assert_same_features(converted(tmp_path, path, sizes=Sizes(16)), weights, SIZES)


def wrapped(content, prefix, more):
    inside = {f"{prefix}{name}": tensor for name, tensor in content.items() if not name.startswith("head.")}
    return inside | {name: torch.zeros(3) for name in more}


ARK = ("omni_heads.0.weight", "omni_heads.5.bias", "projector.weight", "projector.bias", "head.weight", "head.bias")
PEAC = ("mlp.0.weight", "mlp.3.bias", "mlp_local.6.weight", "head.weight", "head.bias", "bias", "decoder.0.weight")
LAYOUTS = {
    "SimMIM pre-training": lambda c: {"model": wrapped(c, "encoder.", ("encoder.mask_token", "decoder.0.weight"))},
    "SimMIM fine-tuning": lambda c: {"model": c, "max_accuracy": 83.5, "epoch": 99},
    "Ark, bare teacher": lambda c: wrapped(c, "", ARK),
    "Ark+": lambda c: {"state_dict": wrapped(c, "", ARK), "teacher": wrapped(c, "module.", ()), "lossMIN": [0.1]},
    "PEAC": lambda c: {"student": wrapped(c, "module.swin_model.", ()), "teacher": wrapped(c, "swin_model.", PEAC)},
    "POPAR": lambda c: {f"module.{n}": t for n, t in wrapped(c, "backbone.", ("head.weight", "bias")).items()},
}


@pytest.fixture(scope="module")
def plain_tensors(tmp_path_factory):
    """Of the same weights, as the official code saves them."""
    return convert_file(saved(tmp_path_factory.mktemp("plain") / "swin.pth", official()[1]), ORIGIN).tensors


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_field(tmp_path, layout, plain_tensors):
    _, content = official()
    path = saved(tmp_path / "file.pth", LAYOUTS[layout](content))
    key = "teacher" if layout in ("Ark+", "PEAC") else None
    result = convert_file(path, ORIGIN, key=key)
    assert result.tensors.keys() == plain_tensors.keys()
    assert all(torch.equal(tensor, plain_tensors[name]) for name, tensor in result.tensors.items())
    left = [name for names in result.left_out.values() for name in names]
    assert all(any(name.endswith(entry) for name in left) for entry in (ARK if "Ark, " in layout else ()))
    assert not any(re.search("norm|qkv|fc1", name) for name in left)


def test_two_sets_of_weights_need_a_key(tmp_path):
    _, content = official()
    path = saved(tmp_path / "ark.pth", {"state_dict": content, "teacher": content, "optimizer": {"lr": 0.1}})
    with pytest.raises(ValueError, match=r"--key state_dict or --key teacher"):
        convert_file(path, ORIGIN)
    with pytest.raises(ValueError, match="no weights under 'techer'"):
        convert_file(path, ORIGIN, key="techer")
    with pytest.raises(ValueError, match="leave out --key"):
        convert_file(saved(tmp_path / "bare.pth", content), ORIGIN, key="model")


def without(content, name):
    return {own: tensor for own, tensor in content.items() if own != name}


DAMAGES = {
    "left over: layers.0.blocks.0.extra": lambda c: c | {"layers.0.blocks.0.extra": torch.ones(2)},
    "left over: layers.0.blocks.0.attn.gamma": lambda c: c | {"layers.0.blocks.0.attn.gamma": torch.ones(2)},
    "missing: norm.bias": lambda c: without(c, "norm.bias"),
    "missing: patch_embed.norm": lambda c: without(without(c, "patch_embed.norm.weight"), "patch_embed.norm.bias"),
    "of another shape: norm.weight is (9,) and not (8,)": lambda c: c | {"norm.weight": torch.ones(9)},
    "left over: layers.0.downsample": lambda c: {n: t for n, t in c.items() if "layers.1.blocks.0" not in n},
    "not finite": lambda c: c | {"norm.weight": torch.full((8,), torch.nan)},
    "windows of 4, 2 patches": lambda c: c | {"layers.1.blocks.0.attn.relative_position_bias_table": torch.ones(9, 2)},
    "no square window": lambda c: c | {"layers.1.blocks.0.attn.relative_position_bias_table": torch.ones(48, 2)},
    "numbers positions in a different way": lambda c: (
        c | {"layers.0.blocks.0.attn.relative_position_index": c["layers.0.blocks.0.attn.relative_position_index"].T}
    ),
    "1 channel": lambda c: c | {"patch_embed.proj.weight": torch.ones(4, 1, 2, 2)},
    "epoch in": lambda c: c | {"epoch": 3},
    "2 backbones": lambda c: {f"{who}.{n}": t for n, t in c.items() for who in ("encoder", "momentum_encoder")},
    "contains no Swin": lambda c: {"blocks.0.attn.qkv.weight": torch.ones(3), "cls_token": torch.ones(3)},
    "several sizes": lambda c: c | {"absolute_pos_embed": torch.ones(1, 9, 4)},
}


@pytest.mark.parametrize("message", DAMAGES)
def test_what_is_not_a_whole_swin_is_refused_by_name(tmp_path, message):
    _, content = official()
    path = saved(tmp_path / "swin.pth", DAMAGES[message](content))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        convert_file(path, ORIGIN)
    assert "\n" not in str(refused.value)


def test_sizes_that_the_file_does_not_say_are_asked_for_with_what_its_name_says(tmp_path):
    _, content = official()
    bare = {name: tensor for name, tensor in content.items() if "attn_mask" not in name}
    with pytest.raises(ValueError, match=r"give --image_size 192 if that is right \(so its name says"):
        convert_file(saved(tmp_path / "swin_base_patch4_window6_192.pth", bare), ORIGIN)
    with pytest.raises(ValueError, match=r"give --image_size 16 if that is right \(its window fits"):
        convert_file(saved(tmp_path / "a.pth", bare), ORIGIN)
    with pytest.raises(ValueError, match="says image_size 16, and --image_size 32"):
        convert_file(saved(tmp_path / "b.pth", content), ORIGIN, sizes=Sizes(32))
    with pytest.raises(ValueError, match="leave out --window_size"):
        convert_file(tmp_path / "b.pth", ORIGIN, sizes=Sizes(window_size=4))
    _, second = official(sizes=SECOND, pretrained=[0, 0, 0])
    bare = {name: tensor for name, tensor in second.items() if not re.search("mask|index|coords", name)}
    path = saved(tmp_path / "swinv2_tiny_window12to16_192to256.pth", bare)
    hint = "--window_size 16 --image_size 256 --pretrained_window_sizes 12 12 12"
    with pytest.raises(ValueError, match=hint):
        convert_file(path, ORIGIN)
    with pytest.raises(ValueError, match="does not say its earlier windows"):
        convert_file(path, ORIGIN, sizes=Sizes(16, 4))
    assert convert_file(path, ORIGIN, sizes=Sizes(16, 4, [0, 0, 0])).config.window_size == 4


class Config(dict):
    """A settings object as yacs has it: a dict with attributes of its own."""


Config.__module__, Config.__qualname__ = "yacs.config", "CfgNode"


@pytest.mark.parametrize("zipped", [True, False])  # torch.save before 1.6 wrote no zip
def test_settings_of_training_programs_are_skipped(tmp_path, monkeypatch, zipped):
    _, content = official()
    yacs = ModuleType("yacs.config")
    yacs.CfgNode = Config
    settings = Config(MODEL=Config(TYPE="swin"))
    settings.__dict__["__immutable__"] = True
    more = {"config": settings, "args": argparse.Namespace(lr=0.1), "lossMIN": [np.float64(0.5)]}
    path = tmp_path / "training.pth"
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "yacs", ModuleType("yacs"))
        patched.setitem(sys.modules, "yacs.config", yacs)
        torch.save({"model": content} | more, path, _use_new_zipfile_serialization=zipped)
    assert all(name in path.read_bytes() for name in (b"yacs", b"Namespace", b"scalar"))
    assert convert_file(path, ORIGIN).tensors


class Greeting:
    """Its pickle calls print."""

    def __reduce__(self):
        return print, ("executed",)


def test_an_object_that_could_execute_code_is_refused_and_not_made(tmp_path, capsys):
    path = saved(tmp_path / "greeting.pth", {"model": official()[1], "x": Greeting()})
    with pytest.raises(ValueError, match="contains an object of print"):
        convert_file(path, ORIGIN)
    assert capsys.readouterr().out == ""
    pickle.loads(pickle.dumps(Greeting()))  # what a pickle of it does elsewhere
    assert capsys.readouterr().out == "executed\n"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04 cut off", "cannot read the weights"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}", "cannot read the weights"),
        (b"no weights at all", "is not a file of PyTorch weights"),
    ],
)
def test_files_that_are_not_weights(tmp_path, start, message):
    path = tmp_path / "file.pth"
    path.write_bytes(start)
    with pytest.raises(ValueError, match=message):
        convert_file(path, ORIGIN)
    with pytest.raises(ValueError, match="is a folder"):
        convert_file(tmp_path, ORIGIN)
    with pytest.raises(FileNotFoundError):
        convert_file(tmp_path / "none.pth", ORIGIN)


def test_the_folder_says_where_its_weights_come_from(tmp_path):
    _, content = official()
    path = saved(tmp_path / "swin.pth", content)
    folder = tmp_path / "converted"
    folder.mkdir()
    write_folder(convert_file(path, ORIGIN | {"licence": "<b>CC</b>"}), folder, mean=[0.5056] * 3, std=[0.252] * 3)
    record = ModelRecord.of(json.loads((folder / "config.json").read_text()))
    assert record.weights_origin["saw_test_images"] == "unknown"
    assert len(record.weights_origin["sha256"]) == 64
    card = (folder / "README.md").read_text()
    assert record.weights_origin["sha256"] in card
    assert "<b>" not in card
    assert json.loads((folder / "preprocessor_config.json").read_text())["image_mean"] == [0.5056] * 3
    with pytest.raises(ValueError, match="saw_test_images"):
        convert_file(path, ORIGIN | {"saw_test_images": "perhaps"})
