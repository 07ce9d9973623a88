"""Training on the fast attention: the same run as on the stock one, averaged, in bf16 and compiled."""

import numpy as np
import pytest
import torch

from hf_cxr.config import ModelArguments
from hf_cxr.labels import NIH14
from hf_cxr.models.attention import use_attention
from hf_cxr.models.build import build_model
from hf_cxr.training.callbacks import WeightAverage
from tests.tiny import rows, swin, trainer


def model_of(attention, **kwargs):
    torch.manual_seed(0)
    model = build_model(ModelArguments(**swin(depths=[1, 2, 2, 1], **kwargs)), NIH14)
    assert use_attention(model, attention) == attention
    return model


@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_is_the_stock_run(tmp_path, bf16):
    losses = {}
    for attention in ("eager", "fast"):
        own = trainer(
            tmp_path / attention,
            model=model_of(attention, drop_path_rate=0.2),
            average=WeightAverage(0.9),
            eval_dataset=rows(10, seed=1),
            bf16=bf16,
            max_steps=4,
            per_device_train_batch_size=8,
        )
        own.train()
        history = [entry["loss"] for entry in own.state.log_history if "loss" in entry]
        losses[attention] = [*history, own.evaluate()["eval_loss"]]
    assert len(losses["fast"]) == 5
    assert len(set(losses["fast"])) == 5
    np.testing.assert_allclose(losses["fast"], losses["eager"], rtol=0.02 if bf16 else 1e-4)


def test_it_compiles_as_one_graph():
    model = model_of("fast", drop_path_rate=0.2)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    pixels = torch.randn(2, 3, 32, 32)
    found = []
    for run in (model, compiled):
        model.zero_grad()
        torch.manual_seed(1)
        logits = run(pixel_values=pixels).logits
        logits.square().sum().backward()
        found.append([logits.detach(), *(weight.grad.clone() for weight in model.parameters())])
    for own, wanted in zip(*found, strict=True):
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-6)
