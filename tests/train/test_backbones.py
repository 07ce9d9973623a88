"""Each backbone trains, is calibrated and saved, and the stock pipeline gives the evaluation's scores."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODELS, rows, trainer

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.inference.classifier import Classifier, stock_pipeline
from hf_cxr.labels import NIH14
from hf_cxr.models import fresh
from hf_cxr.models.head import fold_into_head
from hf_cxr.processing import build_image_processor

DENSENET = {"architecture": "densenet121", "model_args": {"growth_rate": 4, "block_config": [1, 1, 1]}}
NETWORKS = {**MODELS, "timm_wrapper": DENSENET}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_it_trains_is_calibrated_and_saved_and_the_stock_pipeline_agrees(tmp_path, name):
    if name == "timm_wrapper" and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'hf-cxr[timm]'")
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
