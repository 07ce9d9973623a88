"""A model before its first step: what is refused before data are read, and where its head's bias starts."""

import importlib.util

import datasets
import numpy as np
import pytest
from tiny import SWIN

from hf_cxr.config import parse_arguments
from hf_cxr.labels import NIH14
from hf_cxr.losses import LOSSES
from hf_cxr.models import depths
from hf_cxr.models.build import build_model
from hf_cxr.models.head import head
from hf_cxr.run.training import build_training_loss, check_training_model

HAS_TIMM = importlib.util.find_spec("timm") is not None


def arguments(folder, **changes):
    values = SWIN | {"dataset": "phantom", "output_dir": str(folder)} | changes
    path = folder / "run.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in values.items()))
    return parse_arguments([str(path)])


def test_layer_decay_needs_a_model_with_layers(tmp_path, monkeypatch):
    one_block = {"model_kwargs": SWIN["model_kwargs"] | {"depths": [1], "num_heads": [1]}}
    check_training_model(arguments(tmp_path, layer_decay=0.7, **one_block))
    monkeypatch.setattr(depths, "BLOCKS", ())  # as if this were an unknown model: no list of three members is left
    with pytest.raises(ValueError, match=r"Swin.* has no list of layers, so layer_decay has no depths"):
        check_training_model(arguments(tmp_path, layer_decay=0.7, **one_block))
    check_training_model(arguments(tmp_path, head_learning_rate=0.01, **one_block))


@pytest.mark.skipif(not HAS_TIMM, reason="timm is not installed: pip install 'hf-cxr[timm]'")
def test_a_fresh_model_of_timm_chooses_its_attention_itself(tmp_path):
    options = {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8]}}
    values = {"architecture": "timm_wrapper", "model_kwargs": options}
    check_training_model(arguments(tmp_path, **values))
    with pytest.raises(ValueError, match="attention eager is not for models of timm"):
        check_training_model(arguments(tmp_path, attention="eager", **values))


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_finding_without_a_known_label_starts_at_one_half(tmp_path, loss):
    args = arguments(tmp_path, loss=loss, head_bias="no_information")
    label_NC = np.zeros((10, 14), np.float32)
    label_NC[:3, 0], label_NC[:, 1], label_NC[:4, 2] = 1, np.nan, np.nan
    rows = datasets.Dataset.from_dict({"labels": label_NC})
    _, bias_C = build_training_loss(args, rows, np.ones(10), NIH14)
    model = build_model(args.model, NIH14, bias_C)
    prob_C = head(model).bias.sigmoid().tolist()
    assert prob_C[1] == 0.5
    if loss == "bce":
        assert prob_C[:3] == pytest.approx([0.3, 0.5, 1e-6], rel=1e-3)  # positives, nothing, negatives
