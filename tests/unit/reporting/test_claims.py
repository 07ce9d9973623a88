"""What card, report and metrics.json say of a run is what happened: undefined figures, lost images, other lists."""

import dataclasses
import json

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tiny import PROTOCOL
from transformers import SwinConfig, TrainerState, TrainingArguments

from hf_cxr.evaluation import evaluate_predictions, fit_calibration
from hf_cxr.reporting import claims
from hf_cxr.reporting.card.model_card import render
from hf_cxr.reporting.run import Report

NAN = float("nan")


def arguments(tmp_path, **changes):
    settings = {"load_best_model_at_end": True, "metric_for_best_model": "auc", "use_cpu": True}
    settings |= {"eval_strategy": "epoch", "save_strategy": "epoch"}
    return TrainingArguments(str(tmp_path), **(settings | changes))


@pytest.mark.parametrize(
    ("best_metric", "checkpoint", "words", "step"),
    [
        (0.7, "/gone/run/checkpoint-20", "best validation auc", 20),
        (0.7, None, "last epoch; no checkpoint of the best validation auc was kept", None),
        (None, None, "last epoch; validation auc was never defined", None),
        (float("-inf"), "/run/checkpoint-20", "last epoch; validation auc was never defined", None),
        (NAN, "/run/checkpoint-20", "last epoch; validation auc was never defined", None),
    ],
)
def test_a_checkpoint_is_the_best_only_by_a_figure_that_is_a_number(tmp_path, best_metric, checkpoint, words, step):
    state = TrainerState(best_metric=best_metric, best_model_checkpoint=checkpoint, best_global_step=20)
    assert claims.selection(arguments(tmp_path), state) == words
    assert claims.chosen_step(arguments(tmp_path), state) == step
    last = arguments(tmp_path, load_best_model_at_end=False)
    assert claims.selection(last, state) == "last epoch, none was chosen"
    assert claims.chosen_step(last, state) is None


def test_only_calibrated_runs_are_called_calibrated():
    logit_NC = np.random.default_rng(0).normal(size=(200, 3))
    label_NC = (logit_NC + np.random.default_rng(1).normal(size=(200, 3)) > 0).astype(float)
    assert claims.calibration(fit_calibration(logit_NC, label_NC)).startswith("per finding, affine")
    label_NC[:, 1], label_NC[:, 2] = 0, NAN
    words = claims.calibration(fit_calibration(logit_NC, label_NC))
    assert "affine in the logit for 1, a shift of the logit alone for 1, none for 1" in words
    assert claims.calibration(fit_calibration(logit_NC, np.full_like(label_NC, NAN))) is None
    assert claims.calibration(None) is None


def test_a_test_list_is_official_only_if_it_is_of_that_length():
    source = {"splits_from": "official test list; validation cut by patient", "split_file": None}
    assert claims.split_source(source, 25_596, {}, {}) == source
    assert claims.split_source(source, 100, {"test": 25_490}, {"test": 6}) == source
    words = claims.split_source(source, 100, {}, {})["splits_from"]
    assert "own test list of 100 images, not the official one of 25,596" in words
    assert words.endswith("; validation cut by patient")
    other = {"splits_from": "the phantom generator", "split_file": None}
    assert claims.split_source(other, 100, {}, {}) == other


def test_views_are_counted():
    assert claims.views(["PA", None, "AP", "PA"]) == {"AP": 1, "PA": 2, "unknown": 1}


TRAINING = {
    "epochs": 3.0,
    "best_epoch": 2.0,
    "images_per_second": None,
    "resumed_from": None,
    "peak_memory_gib": 1.0,
}


def report(names=("Mass", "Hernia"), training=(), **protocol):
    rng = np.random.default_rng(0)
    label_NC = (rng.random((40, len(names))) < 0.5).astype(float)
    figures = evaluate_predictions(
        rng.random(label_NC.shape), label_NC, np.arange(40) // 2, label_names=names, resamples=10
    )
    return Report(
        name=protocol.pop("name", "run"),
        model_id=".",
        protocol=PROTOCOL | protocol,
        test=figures,
        validation=figures,
        calibration=None,
        training=TRAINING | dict(training),
        history=[],
        environment={"hf_cxr": "1", "device": "cpu"},
    )


def pages(made, tmp_path):
    """Card and report, as texts."""
    return render(made, SwinConfig()), made.document().to_html(tmp_path)


def test_labels_views_and_calibration_are_not_invented(tmp_path):
    card, page = pages(report(), tmp_path)
    assert "mined from radiology reports" not in card
    assert "frontal" in card
    assert "calibrated on" not in card
    assert "model-index" in card
    for counts in ({"PA": 3, "LATERAL": 1}, {"unknown": 4}):
        assert "frontal" not in pages(report(training_views=counts), tmp_path)[0]
    card = pages(report(dataset="ChestX-ray14", calibration="per finding"), tmp_path)[0]
    assert "mined from radiology reports" in card
    assert "calibrated on" in card.replace("\n", " ")
    assert "best validation auc" in page


def test_what_was_never_chosen_by_is_a_caution(tmp_path):
    words = "last epoch; validation auc was never defined"
    made = report(selection=words, training={"best_epoch": None})
    assert any("No checkpoint was chosen" in caution for caution in made.cautions())
    for page in pages(made, tmp_path):
        assert "best validation" not in page
        assert words in page
        assert "No checkpoint was chosen" in page
    assert not any("No checkpoint" in caution for caution in report().cautions())


def test_images_left_out_are_counted_and_keep_the_figures_out_of_leaderboards(tmp_path):
    for page in pages(report(unreadable_images={"test": 3}), tmp_path):
        assert "left out (3 in test)" in page
    assert "model-index" not in pages(report(unreadable_images={"test": 3}), tmp_path)[0]
    for other in (
        {"split_file": {"name": "own.csv"}},
        {"dataset": "ChestX-ray14", "splits_from": "the folder's own test list"},
    ):
        assert "model-index" not in pages(report(**other), tmp_path)[0]


def test_a_finding_that_was_never_learnt_is_a_caution():
    said = " ".join(report(training_positives=[5, 0]).cautions())
    assert "never learned: Hernia." in said
    assert "never learned" not in " ".join(report(training_positives=[5, 1]).cautions())


def test_calibration_exceptions_say_which_kind():
    wrong = "shift: the fitted slope is -0.63, not above zero: the scores do not rank this finding"
    exceptions = {"A": "identity: no known label", "B": "intercept: few", "C": wrong}
    cautions = " ".join(report(calibration_exceptions=exceptions).cautions())
    assert "wrong way round, so their slope was not calibrated: C." in cautions
    assert "validation has no known label of: A." in cautions
    assert "the slope of: B." in cautions


@pytest.mark.parametrize(
    ("start", "epochs", "best", "words"),
    [
        (2, 3.0, 3.0, "act from epoch 2"),
        (2, 3.0, 1.0, "is from before"),
        (2, 2.0, None, "did not act: training ended before"),
    ],
)
def test_deferred_weights_are_mentioned_only_where_they_acted(start, epochs, best, words):
    stages = PROTOCOL["stages"] | {"reweight_from_epoch": start}
    made = report(stages=stages, training={"epochs": epochs, "best_epoch": best})
    said = dict(made.protocol_facts().pairs)["deferred re-weighting"]
    assert words in said
    assert ("from before" in said) == (words == "is from before")


def test_the_levers_of_the_recipe_are_named_where_a_run_had_them():
    plain = dict(report().protocol_facts().pairs)
    recipe = {"layer_decay": 0.65, "head_learning_rate": 0.002, "freeze_backbone_epochs": 1, "mixup_alpha": 0.2}
    said = dict(report(recipe=recipe).protocol_facts().pairs)
    new = {name: said[name] for name in said.keys() - plain.keys()}
    assert sorted(new) == ["backbone", "layer decay", "learning rate of the classifier", "mixup"]
    assert all(f"{value:g}" in " ".join(new.values()) for value in recipe.values())
    off = {"layer_decay": 1.0, "head_learning_rate": None, "freeze_backbone_epochs": 0}
    only = dict(report(recipe=off | {"mixup_alpha": 0.2}).protocol_facts().pairs)
    assert only.keys() - plain.keys() == {"mixup"}


def test_hostile_names_break_neither_table_nor_page(tmp_path):
    names = (r"$\frac{$", "a|b", "<b>bold</b>", "_it_ *is*", "Pleural_Thickening", '"quoted"', "\N{LUNGS}", "x" * 200)
    made = dataclasses.replace(report(names), name="$run_|<i>\n# two")
    card, page = pages(made, tmp_path)
    findings = card.split("## How good it is")[1].split("### ")[0]
    table = [line for line in findings.splitlines() if line.startswith("| ")]
    cells = [line.replace(r"\|", "").count("|") for line in table]
    assert len(set(cells)) == 1
    assert len(table) == len(names) + 3
    text = ModelCard(card).text
    for raw in ("<b>", "<i>", "\n# two", " $"):
        assert raw not in text
    assert "<b>" not in page
    assert "<i>" not in page
    assert "Pleural_Thickening" in text
    assert json.loads(json.dumps(made.to_dict()))["test"]["label_names"] == list(names)
