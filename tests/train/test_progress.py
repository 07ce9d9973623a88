"""What training shows: a table row an epoch, the same in a log; a bar in a terminal alone; no dictionaries."""

import io
import logging
import sys

import numpy as np
import pytest
import torch
from test_trainer import StopAt
from tiny import rows, trainer

from hf_cxr.evaluation import headline_metrics
from hf_cxr.training import progress
from hf_cxr.training.checkpoints import usable_checkpoint
from hf_cxr.training.progress import LossMean, header

SETTINGS = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,  # 5 steps an epoch
    "eval_strategy": "epoch",
    "metric_for_best_model": "auc",
    "drop_path_rate": 0.3,
}


def build(folder, scores, **settings):
    """A trainer whose validation has these values of AUC."""
    values = iter(scores)
    return trainer(
        folder,
        eval_dataset=rows(8, seed=1),
        compute_metrics=lambda prediction: {"auc": next(values)},
        **(SETTINGS | settings),
    )


def table(caplog):
    """The rows that were logged, as cells: epoch, train loss, ..., and "*" where it is."""
    lines = [record.message for record in caplog.records if record.name == "hf_cxr.training.progress"]
    return [line.split() for line in lines if line != header()]


@pytest.fixture(autouse=True)
def at_info(caplog):
    caplog.set_level(logging.INFO)


def test_a_row_has_the_epochs_figures_and_marks_the_best(tmp_path, caplog, capsys):
    run = build(tmp_path, [0.6, float("nan"), 0.7])
    run.train()
    lines = table(caplog)
    assert [line[0] for line in lines] == ["1/3", "2/3", "3/3"]
    assert [line[-1] == "*" for line in lines] == [True, False, True]
    history = run.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]  # of every step
    for epoch, line in enumerate(lines):
        assert float(line[1]) == pytest.approx(np.mean(losses[5 * epoch : 5 * epoch + 5]), abs=6e-5)
    evaluated = [entry for entry in history if "eval_loss" in entry]
    assert [line[2] for line in lines] == [f"{entry['eval_loss']:.4f}" for entry in evaluated]
    assert [line[3] for line in lines] == ["0.600", "nan", "0.700"]
    assert {line[4] for line in lines} == {"-"}  # this trainer measures no AP
    images, seconds = zip(*((float(line[5].replace(",", "")), float(line[6])) for line in lines), strict=True)
    assert min(images) > 0
    assert min(seconds) >= 0
    printed = capsys.readouterr()
    assert "{" not in printed.out + printed.err  # the Trainer's dictionaries


def test_the_columns_are_those_of_the_headline_metrics():
    assert [metric.macro_title in header() for metric in headline_metrics().values()] == [True, True]
    assert len(header()) + len("12:34:56 ") + len(" *") < 80


def test_a_resumed_run_continues_the_table(tmp_path, caplog):
    checkpoints = {"save_strategy": "epoch", "save_total_limit": None}
    build(tmp_path / "straight", [0.6, 0.7, 0.65], **checkpoints).train()
    straight = [line[:4] + line[7:] for line in table(caplog)]
    caplog.clear()
    build(tmp_path / "stopped", [0.6, 0.7], callbacks=[StopAt(10)], **checkpoints).train()
    resumed = build(tmp_path / "stopped", [0.65], **checkpoints)
    resumed.train(resume_from_checkpoint=str(usable_checkpoint(tmp_path / "stopped")))
    assert [line[:4] + line[7:] for line in table(caplog)] == straight
    assert straight[2][0] == "3/3"
    assert "*" not in straight[2]  # it knows from the checkpoint that 0.7 was before


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"eval_strategy": "no"}, ["1/3", "2/3", "3/3"]),
        ({"eval_strategy": "steps", "eval_steps": 6}, ["1/3", "1.2/3", "2.4/3", "3/3"]),
        ({"eval_strategy": "epoch", "eval_delay": 2}, ["1/3", "2/3", "3/3"]),
        ({"eval_on_start": True}, ["0/3", "1/3", "2/3", "3/3"]),
        ({"logging_strategy": "no"}, ["1/3", "2/3", "3/3"]),
        ({"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}, ["0.4/0.8", "0.8/0.8"]),
        ({"max_steps": 7}, ["1/1.4", "1.4/1.4"]),
    ],
    ids=str,
)
def test_every_epoch_has_a_row_and_every_evaluation(tmp_path, caplog, settings, epochs):
    run = build(tmp_path, [0.5, 0.5, 0.5, 0.5], **settings)
    run.train()
    lines = table(caplog)
    assert [line[0] for line in lines] == epochs
    trained = [line for line in lines if line[0] != "0/3"]
    assert all(0 < float(line[1]) < 1 for line in trained)  # whether or not the Trainer logs losses


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("disable", [False, True])
def test_a_bar_is_one_line_of_a_terminal(tmp_path, monkeypatch, disable):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0)  # a fast machine trains this in less
    build(tmp_path, [0.5, 0.6, 0.7], disable_tqdm=disable).train()
    shown = terminal.getvalue()
    assert ("\r" in shown) == (not disable)
    if not disable:
        assert all(words in shown for words in ("epoch 1/3", "images/s", "left", "validation, batch 1 of 1"))
        assert "\n" not in shown


def test_without_a_terminal_there_is_no_bar(tmp_path, capfd):
    build(tmp_path, [0.5, 0.6, 0.7], disable_tqdm=False).train()
    assert "\r" not in capfd.readouterr().err


def test_the_mean_of_losses_is_that_of_steps_however_they_are_cut():
    mean = LossMean(lambda total: total)
    assert mean.drain() is None
    for value, last in ((0.25, False), (0.5, True), (1.0, True)):
        mean.add(torch.tensor(value), last=last)
    assert mean.drain() == 0.875
    mean.add(torch.tensor(3.0), last=True)
    assert mean.drain() == 3.0
