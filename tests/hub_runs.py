"""A run folder to be pushed: a tiny classifier of the 14 findings, what is sent with it, and what stays at home."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas
import torch
from hub_server import USER
from PIL import Image
from tiny import swin

from hf_cxr.config import ModelArguments
from hf_cxr.evaluation.calibration import Calibration
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model
from hf_cxr.models.head import fold_into_head
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import build_image_processor

REPO = f"{USER}/swin-nih"
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
tags: [chest-x-ray]
model-index:
- name: swin-nih
  results:
  - task: {type: image-classification}
    dataset: {name: ChestX-ray14, type: nih}
    metrics: [{type: roc_auc, value: 0.5}]
---

# Swin on ChestX-ray14
"""
KEPT_HERE = {
    "checkpoint-10/model.safetensors": "weights of step 10",
    "checkpoint-10/optimizer.pt": "state",
    "optimizer.pt": "state",
    "training_args.bin": "pickle",
    "train.log": "a line",
    "logs/events.out.tfevents.1": "events",
    "figures/notes.txt": "a note",
    "figures/reliability.png": "a picture of another program",
}
SENT = {
    "README.md": CARD,
    "config.yaml": "loss: bce\nweight_decay: 0.05\n",
    "metrics.json": "{}",
    "report.html": "<html>report</html>",
    "figures/training.png": "a picture",
}
MODEL = {"config.json", "model.safetensors", "preprocessor_config.json"}


def write_run(run: Path, settings: Mapping[str, Any] | None = None, calibration: Calibration | None = None) -> Path:
    """The folder, filled.

    Args:
        run: the folder.
        settings: of the model; by default a Swin.
        calibration: folded into the head; None leaves it as it is.
    """
    torch.manual_seed(0)
    settings = settings or swin(initializer_range=0.5)  # so that the scores differ
    model = build_model(ModelArguments(**settings), NIH14)
    if calibration is not None:
        fold_into_head(model, calibration.fold)
    ModelRecord(version="1.0").write(model.config)
    model.save_pretrained(run)
    build_image_processor(36, 32).save_pretrained(run)
    for name, text in (SENT | KEPT_HERE).items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    Image.new("L", (8, 8)).save(run / "figures/training.png")
    (run / "predictions").mkdir()
    for split in ("validation", "test"):
        pandas.DataFrame({"patient_id": ["patient 13"]}).to_parquet(run / f"predictions/{split}.parquet")
    return run
