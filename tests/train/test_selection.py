"""The checkpoint that a run keeps is the best by a metric that is a number, among those that were written."""

from tiny import rows, trainer

from hf_cxr.reporting import claims

NAN = float("nan")


class Figures:
    """compute_metrics that gives one figure after another."""

    def __init__(self, *auc):
        self.left = list(auc)

    def __call__(self, prediction):
        return {"auc": self.left.pop(0)}


def run(tmp_path, *auc, **settings):
    data = rows(16)
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch"} | settings
    made = trainer(
        tmp_path,
        dataset=data,
        eval_dataset=data[:4],
        load_best_model_at_end=True,
        num_train_epochs=len(auc),
        per_device_train_batch_size=8,
        save_total_limit=None,
        compute_metrics=Figures(*auc),
        **settings,
    )
    made.train()
    return made


def test_an_undefined_value_does_not_block_a_later_one(tmp_path):
    made = run(tmp_path, NAN, 0.4, NAN, 0.6, 0.5)
    assert made.state.best_metric == 0.6
    assert claims.chosen_step(made.args, made.state) == 8
    assert claims.selection(made.args, made.state) == "best validation auc"


def test_the_best_figure_is_one_whose_checkpoint_was_written(tmp_path):
    """Measured every step and written every second one: the best of what can be gone back to."""
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 2}
    made = run(tmp_path, 0.1, 0.5, 0.9, 0.6, **settings, max_steps=4)
    assert made.state.best_metric == 0.6
    assert claims.chosen_step(made.args, made.state) == 4
