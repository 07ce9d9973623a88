"""Training smooths its labels and validation does not."""

import pytest
from tiny import rows, trainer


def test_training_smooths_and_validation_does_not(tmp_path):
    settings = {"eval_strategy": "epoch", "eval_dataset": rows(12, seed=1), "loss": "bce", "learning_rate": 1e-9}
    settings["metric_for_best_model"] = "loss"
    logs = {}
    for epsilon in (0.0, 0.8):
        run = trainer(tmp_path / str(epsilon), label_smoothing_factor=epsilon, **settings)
        run.loss.set_label_smoothing(epsilon)
        run.model.classifier.bias.data.fill_(-3.0)  # at a logit of 0 every target costs the same
        run.train()
        logs[epsilon] = {key: value for entry in run.state.log_history for key, value in entry.items()}
    assert logs[0.8]["eval_loss"] == pytest.approx(logs[0.0]["eval_loss"], abs=1e-5)
    assert abs(logs[0.8]["loss"] - logs[0.0]["loss"]) > 0.1
