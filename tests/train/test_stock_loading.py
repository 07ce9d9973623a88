"""A pushed model by transformers alone, from the Hub: calibrated, all findings, and no code of this package."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_runs import REPO, write_run
from huggingface_hub import snapshot_download
from PIL import Image
from tiny import MODELS, swin
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.hub import push_run
from hf_cxr.labels import NIH14

SETTINGS = {
    "swin": swin(initializer_range=0.5),
    "convnextv2": {
        "architecture": "convnextv2",
        "image_size": 32,
        "resize_size": 36,
        "model_kwargs": MODELS["convnextv2"] | {"initializer_range": 0.5},
    },
}


def some_calibration() -> Calibration:
    rng = np.random.default_rng(2)
    slope_C, intercept_C = rng.uniform(0.5, 2, 14), rng.uniform(-2, 0, 14)
    return Calibration(slope_C, intercept_C, ("affine",) * 14, tuple(NIH14), ("",) * 14)


@pytest.fixture
def image(tmp_path) -> Path:
    pixel_HW = np.random.default_rng(0).integers(0, 256, (50, 44), dtype=np.uint8)
    Image.fromarray(pixel_HW).save(tmp_path / "chest.png")
    return tmp_path / "chest.png"


@pytest.mark.parametrize("architecture", SETTINGS)
def test_transformers_alone_gives_the_calibrated_score_of_each_finding(hub, tmp_path, image, architecture):
    settings, calibration = SETTINGS[architecture], some_calibration()
    plain = write_run(tmp_path / "plain", settings)
    pushed = push_run(write_run(tmp_path / "run", settings, calibration), REPO)

    model = AutoModelForImageClassification.from_pretrained(REPO, revision=pushed.tag).eval()
    processor = AutoImageProcessor.from_pretrained(REPO, revision=pushed.tag)
    assert type(model).__module__.startswith("transformers.")
    assert type(processor).__module__.startswith("transformers.")
    assert list(model.config.id2label.values()) == list(NIH14)
    classify = pipeline("image-classification", model=REPO, revision=pushed.tag)
    scores = {entry["label"]: entry["score"] for entry in classify(str(image), top_k=len(NIH14))}

    before = AutoModelForImageClassification.from_pretrained(plain).eval()
    values = processor(Image.open(image).convert("RGB"), return_tensors="pt")
    with torch.no_grad():
        logit_1C, logit_before_1C = model(**values).logits.numpy(), before(**values).logits.numpy()
    expected_C = 1 / (1 + np.exp(-calibration.apply(logit_before_1C)[0]))
    np.testing.assert_allclose(1 / (1 + np.exp(-logit_1C[0])), expected_C, atol=1e-5)
    assert scores == pytest.approx(dict(zip(NIH14, expected_C, strict=True)), abs=1e-5)
    assert np.abs(expected_C - 1 / (1 + np.exp(-logit_before_1C[0]))).max() > 0.05  # the calibration shows
    assert sum(scores.values()) > 1.5  # 14 sigmoids, not a softmax


def test_the_pipelines_own_default_is_five_labels_which_no_config_can_change(hub, tmp_path, image):
    """So the card's example gives top_k. If this fails, transformers has learnt to read it: then put it there."""
    run = write_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(
        json.dumps(config | {"task_specific_params": {"image-classification": {"top_k": 14}}, "top_k": 14})
    )
    push_run(run, REPO)
    classify = pipeline("image-classification", model=REPO)
    assert len(classify(str(image))) == 5
    assert len(classify(str(image), top_k=14)) == 14


def test_a_pushed_repository_has_no_code_unless_the_handler_was_asked_for(hub, tmp_path):
    push_run(write_run(tmp_path / "run"), REPO)
    folder = Path(snapshot_download(REPO))
    assert not list(folder.rglob("*.py"))
    for name in ("config.json", "preprocessor_config.json"):
        assert not {"auto_map", "custom_pipelines"} & set(json.loads((folder / name).read_text()))
