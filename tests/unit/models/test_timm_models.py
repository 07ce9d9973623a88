"""timm's networks through transformers' wrapper: head, calibration, maps, checkpoints in timm's own layout."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODELS
from transformers import TimmWrapperConfig

from hf_cxr.config import ModelArguments
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.explain.maps import grad_cam
from hf_cxr.models import features, fresh, head
from hf_cxr.models.timm_models import TIMM, check_timm

NAMES = ("Mass", "Nodule", "Hernia")
# Networks of a few thousand weights: convolutions, tokens, and channels last; each gives a grid of 4 x 4 at 32 pixels.
NETWORKS = {
    "densenet": {
        "architecture": "densenet121",
        "model_args": {"growth_rate": 4, "block_config": [1, 1, 1], "stem_type": "deep"},
    },
    "resnet": {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}},
    "vit": {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2},
    },
    "swin": {
        "architecture": "swin_tiny_patch4_window7_224",
        "model_args": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    },
}
HAS_TIMM = importlib.util.find_spec("timm") is not None
needs_timm = pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed: pip install 'hf-cxr[timm]'")


def images(count=4, seed=0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def network_of(name):
    torch.manual_seed(0)
    model = fresh(TIMM, {"initializer_range": 0.3, **NETWORKS[name]}, NAMES, 32)
    with torch.no_grad():
        model(pixel_values=images(16))
    return model.eval()


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return network_of(request.param)


@pytest.mark.skipif(HAS_TIMM, reason="timm is installed: the install line is given only without it")
def test_without_timm_the_install_line_is_given():
    with pytest.raises(ValueError, match=r"pip install 'hf-cxr\[timm\]'") as caught:
        fresh(TIMM, {"architecture": "densenet121"}, NAMES, 32)
    assert "\n" not in str(caught.value)


@needs_timm
@torch.no_grad()
def test_logits_are_the_heads_map_of_the_features(network):
    feature_BD, layer = features(network, images()), head(network)
    assert feature_BD.shape == (4, layer.in_features)
    logit_BC = network(pixel_values=images()).logits
    assert logit_BC.std() > 0
    torch.testing.assert_close(feature_BD @ layer.weight.T + layer.bias, logit_BC)


@needs_timm
def test_it_is_calibrated_saved_and_read_by_us_and_by_the_stock_pipeline_alike(network, tmp_path):
    from hf_cxr.inference.classifier import Classifier, stock_pipeline
    from hf_cxr.models.build import load_weights
    from hf_cxr.models.head import fold_into_head, outputs_of
    from hf_cxr.processing import build_image_processor

    with torch.no_grad():
        before = network(pixel_values=images()).logits
        fold = Calibration(np.array([0.5, 2, 1.5]), np.array([1, -3, 0.25]), ("affine",) * 3, NAMES, ("",) * 3).fold
        fold_into_head(network, fold)
        expected = network(pixel_values=images()).logits
    torch.testing.assert_close(expected, before * torch.tensor([0.5, 2, 1.5]) + torch.tensor([1, -3, 0.25]))
    network.save_pretrained(tmp_path)
    build_image_processor(36, 32).save_pretrained(tmp_path)
    ours = load_weights(tmp_path).eval()
    assert [ours.config.id2label[i] for i in range(3)] == list(NAMES)
    torch.testing.assert_close(ours(pixel_values=images()).logits, expected, rtol=0, atol=1e-6)
    grey = np.random.default_rng(0).integers(0, 256, (36, 36), dtype=np.uint8)
    logit_C = Classifier(tmp_path, device="cpu").logits(torch.from_numpy(grey)[None, None])[0]
    [scores] = stock_pipeline(tmp_path, [Image.fromarray(grey)])
    np.testing.assert_allclose([scores[name] for name in NAMES], torch.sigmoid(torch.tensor(logit_C)), atol=1e-4)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert outputs_of(shapes) == 3


@needs_timm
@pytest.mark.parametrize("name", ["densenet", "vit"])
def test_a_checkpoint_in_timms_own_layout_gives_its_body_its_processing_and_a_new_head(tmp_path, name):
    import timm

    from hf_cxr.models.build import build_model, check_model
    from hf_cxr.processing import image_processor_for

    options = NETWORKS[name]
    sized = {"img_size": 32} if name == "vit" else {}
    torch.manual_seed(1)
    saved = timm.create_model(options["architecture"], num_classes=5, **options["model_args"], **sized).eval()
    saved.pretrained_cfg |= {"interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    timm.models.save_for_hf(saved, tmp_path, model_args=options["model_args"], safe_serialization=True)
    values = json.loads((tmp_path / "config.json").read_text())
    assert "model_type" not in values
    assert "pretrained_cfg" in values
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=32)
    check_model(arguments)
    model = build_model(arguments, NAMES, head_bias_C=[1.0, 2.0, 3.0]).eval()
    body = model.timm_model.state_dict()
    same = {key for key, value in saved.state_dict().items() if torch.equal(value, body[key])}
    assert set(body) - same == {"classifier.weight", "classifier.bias"} or set(body) - same == {
        "head.weight",
        "head.bias",
    }
    with torch.no_grad():
        feature_BD = saved.forward_head(saved.forward_features(images()), pre_logits=True)
        torch.testing.assert_close(features(model, images()), feature_BD)
    assert head(model).bias.tolist() == [1.0, 2.0, 3.0]
    ours = image_processor_for(arguments)
    assert ({*ours.image_mean}, {*ours.image_std}, ours.resample) == ({0.5}, {0.25}, Image.Resampling.BILINEAR)
    model.save_pretrained(tmp_path / "ours")
    ours.save_pretrained(tmp_path / "ours")
    again = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert "pretrained_cfg" not in again  # transformers would take its preprocessing from there
    assert (again["image_size"], again["label_names"]) == (32, list(NAMES))


@needs_timm
def test_a_checkpoint_of_timm_runs_at_another_size_and_is_the_backbone_of_a_system(tmp_path):
    import timm

    from hf_cxr.models.build import build_model, check_model, describe_positions

    sizes = {"growth_rate": 4, "block_config": [2, 2], "bn_size": 2}
    torch.manual_seed(1)
    saved = timm.create_model("densenet121", num_classes=5, **sizes)
    timm.models.save_for_hf(saved, tmp_path, model_args=sizes, safe_serialization=True)
    assert "image_size" not in json.loads((tmp_path / "config.json").read_text())
    other_size = ModelArguments(model_name_or_path=str(tmp_path), image_size=64)
    check_model(other_size)
    assert describe_positions(other_size) is None
    system = ModelArguments(
        architecture="dnet", model_kwargs=MODELS["dnet"], image_size=64, backbone_name_or_path=str(tmp_path)
    )
    check_model(system)
    body = build_model(system, NAMES).densenet.state_dict()
    assert len(body) > 20
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in body.items())


@needs_timm
def test_maps_are_of_the_last_layer_with_places(network):
    maps = grad_cam(network, images(2), [0, 1, 2])
    assert maps.shape[:2] == (2, 3)
    assert maps.shape[2] == maps.shape[3]
    assert maps.max() > 0


@needs_timm
@torch.no_grad()
def test_a_place_of_the_image_is_the_same_place_of_the_grid():
    from hf_cxr.models.map_layer import traced
    from hf_cxr.systems.grids import as_grid

    for name in ("vit", "swin"):
        model, pixels = network_of(name), images(16)
        changed = pixels.clone()
        changed[..., :8, 24:] = images(16, seed=1)[..., :8, :8]
        grids = [as_grid(model, traced(model, given).output, 32) for given in (pixels, changed)]
        difference = (grids[1] - grids[0]).norm(dim=1).mean(dim=0)
        assert difference.shape == (4, 4), name
        assert divmod(int(difference.argmax()), 4) == (0, 3), name


@needs_timm
def test_a_network_of_one_size_is_built_for_the_runs():
    model = fresh(TIMM, NETWORKS["vit"], NAMES, 64)
    assert model.config.model_args["img_size"] == 64
    with torch.no_grad():
        assert model(pixel_values=torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)


@needs_timm
def test_batch_norm_of_timm_is_converted_by_timm():
    from torch import nn

    from hf_cxr.models.batch_norm import batch_norms, synchronised
    from hf_cxr.models.head import freeze_backbone

    model = network_of("densenet")
    pixels, count = images(), len(batch_norms(model))
    assert count > 3
    with torch.no_grad():
        expected = model(pixel_values=pixels).logits
        changed = synchronised(model).eval()
        assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in changed.modules()) == count
        torch.testing.assert_close(changed(pixel_values=pixels).logits, expected)  # its activations are still there
    freeze_backbone(changed)
    assert batch_norms(changed) == []


@needs_timm
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "densenet12"}, "has no network 'densenet12'"),
        ({"architecture": "hf-hub:someone/model"}, "has no network 'hf-hub:someone/model'"),
        ({"architecture": "local-dir:/tmp/model"}, "has no network"),
        ({"architecture": None}, "has no network None"),
        ({"model_args": [1]}, "must be a mapping"),
        ({"model_args": {"checkpoint_path": "evil.pth"}}, "'checkpoint_path', which is not an option of a network"),
        ({"model_args": {"pretrained_cfg": {}}}, "'pretrained_cfg'"),
        ({"model_args": {"growth_rate": 10**9}}, "growth_rate .* is 1000000000"),
        ({"model_args": {"block_config": [150, 150]}}, "block_config .* the most that is built is 200"),
        ({"model_args": {"depth": float("nan")}}, "depth .* is nan"),
        ({"model_args": {"act_layer": {"a": 1}}}, "give numbers, text"),
    ],
)
def test_what_timm_must_not_build_is_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_timm({"architecture": "densenet121", **values}, "a test's model")
    assert "\n" not in str(caught.value)


@needs_timm
@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "deit_tiny_distilled_patch16_224"])
def test_a_head_that_is_not_one_linear_layer_is_refused(name):
    with pytest.raises(ValueError, match=f"cannot be used: .* timm's {name} ends in another layer, or in several"):
        fresh(TIMM, {"architecture": name}, NAMES, 224)


def test_the_config_of_the_wrapper_needs_no_timm():
    assert TimmWrapperConfig().model_type == TIMM
