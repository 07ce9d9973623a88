"""Each backbone trains, is calibrated and saved, and the stock pipeline gives the evaluation's scores."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODELS, TRANSFORMER, rows, trainer

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.inference.classifier import Classifier, stock_pipeline
from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.models.head import fold_into_head, head
from hf_cxr.processing import build_image_processor

DENSENET = {
    "architecture": "densenet121",
    "initializer_range": 0.3,
    "model_args": {"growth_rate": 4, "block_config": [1, 1, 1]},
}
NETWORKS = {**MODELS, "timm_wrapper": DENSENET}

# Patches of 32 pixels, and the real stages of the rest with few channels.
PATCHES = {**TRANSFORMER, "patch_size": 32}
WINDOWS_OF_7 = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 7}
LARGE = {
    **{name: kwargs for name, kwargs in NETWORKS.items() if name.startswith(("convnext", "resnet", "timm"))},
    **dict.fromkeys(("beit", "deit", "dinov2", "vit"), PATCHES),
    **dict.fromkeys(("swin", "swinv2"), WINDOWS_OF_7),
}


def need_timm(name):
    if name == "timm_wrapper" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'hf-cxr[timm]'")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_it_trains_is_calibrated_and_saved_and_the_stock_pipeline_agrees(tmp_path, name):
    need_timm(name)
    torch.manual_seed(0)
    model = fresh(name, NETWORKS[name], NIH14, 32)
    before = {key: value.clone() for key, value in model.named_parameters()}
    run = trainer(tmp_path, model=model, dataset=rows(16), per_device_train_batch_size=8, eval_dataset=rows(6, seed=1))
    run.train()
    moved = [not torch.equal(value, before[key]) for key, value in model.named_parameters()]
    assert np.mean(moved) > 0.8  # DINOv2's mask token, for one, takes no part in classification
    validation = rows(6, seed=1)
    logit_NC = run.predict(validation).predictions
    assert np.isfinite(logit_NC).all()
    assert logit_NC.std(axis=0).max() > 0

    slope_C, shift_C = np.linspace(0.5, 2, 14), np.linspace(-1, 1, 14)
    fold_into_head(model, Calibration(slope_C, shift_C, ("affine",) * 14, NIH14, ("",) * 14).fold)
    run.save_model(str(tmp_path / "saved"))
    build_image_processor(36, 32).save_pretrained(tmp_path / "saved")
    images = [Image.fromarray(row["pixels"]) for row in validation]
    stock = stock_pipeline(tmp_path / "saved", images)
    stock_NC = np.array([[scores[finding] for finding in NIH14] for scores in stock])
    np.testing.assert_allclose(stock_NC, 1 / (1 + np.exp(-(slope_C * logit_NC + shift_C))), atol=1e-4)
    pixels = torch.from_numpy(np.stack([row["pixels"] for row in validation])[:, None])
    np.testing.assert_allclose(
        Classifier(tmp_path / "saved", device="cpu").logits(pixels), slope_C * logit_NC + shift_C, atol=1e-4
    )


@pytest.mark.parametrize("size", [224, 384, 512])
@pytest.mark.parametrize("name", sorted(LARGE))
def test_at_the_usual_sizes_the_stock_pipeline_gives_the_evaluations_scores(tmp_path, name, size):
    need_timm(name)
    torch.manual_seed(0)
    model = fresh(name, LARGE[name], NIH14, size)
    with torch.no_grad():
        model(pixel_values=torch.randn(2, 3, size, size))  # batch norm: its averages, which evaluation divides by
        torch.nn.init.normal_(head(model).weight)
    model.eval().save_pretrained(tmp_path)
    build_image_processor(size + 20, size).save_pretrained(tmp_path)
    grey = np.random.default_rng(size).integers(0, 256, (size + 20, size + 20), dtype=np.uint8)
    logit_C = Classifier(tmp_path, device="cpu").logits(torch.from_numpy(grey)[None, None])[0]
    assert np.ptp(logit_C) > 0.1
    [scores] = stock_pipeline(tmp_path, [Image.fromarray(grey)])
    np.testing.assert_allclose([scores[finding] for finding in NIH14], 1 / (1 + np.exp(-logit_C)), atol=1e-4)
