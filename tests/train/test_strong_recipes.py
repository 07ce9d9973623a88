"""The strong recipes run as they are shipped, on small images, from small weights: every lever in one run."""

import json

import pytest
import yaml
from safetensors.torch import load_file
from test_run import ROOT, TINY, train
from tiny import MODELS

from hf_cxr.config import ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model
from hf_cxr.processing import build_image_processor

SMALL = {key: value for key, value in TINY.items() if key.startswith("phantom_")}
SMALL |= {"dataset": "phantom", "image_size": 32, "resize_size": 36, "num_train_epochs": 2, "bf16": False}
SMALL |= {"per_device_train_batch_size": 8, "images_per_step": 8, "dataloader_num_workers": 0, "use_cpu": True}
SMALL |= {"bootstrap_resamples": 50, "logging_steps": 1}


@pytest.mark.parametrize(
    ("recipe", "architecture"), [("nih_swin_base_strong", "swin"), ("nih_convnextv2_base_512", "convnextv2")]
)
def test_a_strong_recipe_runs_with_every_lever(recipe, architecture, tmp_path):
    sizes = {"image_size": 32, "resize_size": 36}
    build_model(
        ModelArguments(architecture=architecture, model_kwargs=MODELS[architecture], **sizes), NIH14
    ).save_pretrained(tmp_path / "weights")
    build_image_processor(36, 32).save_pretrained(tmp_path / "weights")
    shipped = yaml.safe_load((ROOT / "configs" / f"{recipe}.yaml").read_text())
    config = shipped | SMALL | {"model_name_or_path": str(tmp_path / "weights")}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    assert train(tmp_path / "small.yaml", tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    protocol = metrics["protocol"]
    for key in ("layer_decay", "head_learning_rate", "freeze_backbone_epochs", "mixup_alpha"):
        assert protocol["recipe"][key] == shipped[key]
    assert protocol["stages"]["ema_decay"] == shipped["ema_decay"]
    assert protocol["loss"]["label_smoothing"] == shipped["label_smoothing_factor"]
    assert protocol["augmentation"]["erasing_area"] == shipped["erasing_area"]
    assert metrics["stock_pipeline"]["largest_difference"] < 1e-4
    rates = [entry["learning_rate"] for entry in metrics["history"] if "learning_rate" in entry]
    assert max(rates) == pytest.approx(shipped["head_learning_rate"], rel=0.1)  # the head's
    # The least rate is a fiftieth of the greatest, and the last step of twelve is near it.
    assert min(rates[2:]) < 0.1 * max(rates)
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("weights", "run"))
    moved = [name for name in before if not before[name].equal(after[name])]
    assert len(moved) == len(before)
