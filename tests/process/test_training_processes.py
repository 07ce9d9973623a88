"""Training in two processes: how long they wait for one another, and what ends the other when one fails."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from launches import launch
from safetensors.torch import load_file
from test_pretraining import write_config as pretraining_config
from test_run import write_config
from tiny import MODELS, swin

from hf_cxr import processes
from hf_cxr.commands import run_command
from hf_cxr.commands.errors import leave_process_group
from hf_cxr.config import parse_arguments
from hf_cxr.run import data, stages
from hf_cxr.run.other_processes import why_bound
from hf_cxr.run.pretraining import data as pretraining_data
from hf_cxr.run.pretraining import pretrain
from hf_cxr.saved_models import read_json
from hf_cxr.training import sharding
from hf_cxr.training.trainer import CXRTrainer

LIMIT = 8  # seconds that a collective call may take here
LONG = 11  # seconds of the main process's own work
SHORT = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "bootstrap_resamples": 20, "disable_tqdm": True}


def command(name, config, run_dir):
    """A command in a process whose collective calls have a time limit."""

    def work():
        torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=LIMIT))
        return run_command(name, [str(config), "--output_dir", str(run_dir)])

    return work


def after(seconds, work):
    """``work``, which takes so long on the main process."""

    def slow(*args, **kwargs):
        if processes.is_main():
            time.sleep(seconds)
        return work(*args, **kwargs)

    return slow


def lines_of(ended):
    return [line for one in ended for line in one.err.splitlines() if line.startswith("hf-cxr")]


def test_training_waits_for_the_main_process_as_long_as_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_source", after(LONG, data.load_source))
    monkeypatch.setattr(stages, "finish", after(LONG, stages.finish))
    ended = launch(command("train", write_config(tmp_path, **SHORT), tmp_path / "run"), tmp_path / "said")
    assert [one.status for one in ended] == [0, 0], ended[0].err[-3000:] + ended[1].err[-3000:]
    assert (tmp_path / "run" / "metrics.json").exists()


def test_pretraining_waits_for_the_main_process_as_long_as_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining_data, "load_source", after(LONG, pretraining_data.load_source))
    monkeypatch.setattr(pretrain, "document", after(LONG, pretrain.document))
    config = pretraining_config(tmp_path, num_train_epochs=1, per_device_train_batch_size=4, disable_tqdm=True)
    ended = launch(command("pretrain", config, tmp_path / "run"), tmp_path / "said")
    assert [one.status for one in ended] == [0, 0], ended[0].err[-3000:] + ended[1].err[-3000:]
    assert (tmp_path / "run" / "metrics.json").exists()


def test_the_main_process_stays_for_one_that_still_asks(tmp_path, monkeypatch):
    """It hosts the store. Process 1 asks again a second after the main process has seen that both are there."""
    check = processes.check

    def slow_check():
        time.sleep(0 if processes.is_main() else 1)
        check()

    def work():
        processes.connect()
        time.sleep(0.5 if processes.is_main() else 0)
        try:
            processes.meet()
            return 0
        finally:
            leave_process_group()

    monkeypatch.setattr(processes, "check", slow_check)
    ended = launch(work, tmp_path / "said")
    assert [one.status for one in ended] == [0, 0], ended[1].err[-2000:]


def test_a_run_of_two_processes_is_continued_by_one(tmp_path, monkeypatch, capsys):
    """2 x 4 images a step, killed, then 1 x 8: the weights of the straight run."""
    settings = SHORT | swin(drop_path_rate=0.0) | {"save_strategy": "steps", "eval_strategy": "steps"}
    settings |= {"num_train_epochs": 2, "save_steps": 4, "eval_steps": 4, "images_per_step": 8}  # 12 steps
    config, eight = write_config(tmp_path, **settings), ["--per_device_train_batch_size", "8"]
    one, two = str(tmp_path / "one"), tmp_path / "two"
    assert run_command("train", [config, "--output_dir", one, *eight]) == 0

    step = CXRTrainer.training_step

    def stop(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise RuntimeError("stopped here")
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(CXRTrainer, "training_step", stop)
        ended = launch(lambda: run_command("train", [config, "--output_dir", str(two)]), tmp_path / "said")
        assert [line.status for line in ended] == [2, 2]
    assert {path.name for path in (two / "checkpoint-4").glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}

    middle = load_file(two / "checkpoint-4" / "model.safetensors")

    capsys.readouterr()
    words = ["--output_dir", str(two), *eight]
    six = ["--per_device_train_batch_size", "6", "--images_per_step", "6"]
    assert run_command("train", [config, "--output_dir", str(two), *six]) == 2
    assert "images_per_step was 8 and is 6" in capsys.readouterr().err
    assert run_command("train", [config, *words]) == 0
    assert read_json(two / "metrics.json")["training"]["resumed_from"] == "checkpoint-4"
    straight, continued = (load_file(folder / "model.safetensors") for folder in (Path(one), two))
    for name, weight in straight.items():
        torch.testing.assert_close(continued[name], weight, atol=2e-4, rtol=0)
    assert max((middle[name] - straight[name]).abs().max() for name in middle if "classifier" not in name) > 3e-3


def test_a_run_is_bound_to_its_processes_by_what_each_draws_for_itself(tmp_path, monkeypatch):
    def reason(**changes):
        return why_bound(parse_arguments([write_config(tmp_path, **SHORT, **changes)]))

    still = swin(drop_path_rate=0.0)
    assert reason(**still) is None
    assert "drop_path_rate 0.2" in reason(**swin(drop_path_rate=0.2))
    assert "hidden_dropout_prob 0.1" in reason(**swin(drop_path_rate=0.0, hidden_dropout_prob=0.1))
    assert "batch norm" in reason(architecture="resnet", model_kwargs=MODELS["resnet"])
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    gpus = SimpleNamespace(distributed_type=DistributedType.MULTI_GPU)
    monkeypatch.setattr(sharding, "PartialState", lambda: gpus)
    assert "FSDP" in reason(**still)


@pytest.mark.parametrize(
    ("name", "error"), [("load_source", RuntimeError), ("check_resume", ValueError)], ids=["load", "resume"]
)
def test_an_error_of_the_main_process_ends_training_in_one_line(tmp_path, monkeypatch, name, error):
    def fail(*_args, **_kwargs):
        assert processes.is_main()
        raise error("the table is damaged")

    monkeypatch.setattr(data, name, fail)
    start = time.monotonic()
    ended = launch(command("train", write_config(tmp_path, **SHORT), tmp_path / "run"), tmp_path / "said")
    assert [one.status for one in ended] == [2, 2]
    assert lines_of(ended) == ["hf-cxr train: the table is damaged"]
    assert time.monotonic() - start < 60


def test_training_ends_when_a_process_is_killed_outside_of_a_step(tmp_path, monkeypatch):
    def wait(*_args, **_kwargs):
        if processes.index() == 1:
            (tmp_path / "waiting").touch()
            time.sleep(300)

    monkeypatch.setattr(stages, "check_training_model", wait)
    monkeypatch.setattr(processes, "BEAT", 0.05)
    monkeypatch.setattr(processes, "PATIENCE", 2.0)
    ended = launch(
        command("train", write_config(tmp_path, **SHORT), tmp_path / "run"),
        tmp_path / "said",
        kill=lambda: 1 if (tmp_path / "waiting").exists() else None,
    )
    assert [one.status for one in ended] == [2, -9]
    assert [line for line in lines_of(ended) if "process 1 of 2" in line]


def test_training_ends_when_a_process_stands_still_within_a_step(tmp_path, monkeypatch):
    """Its connections stay open, so that the collective call of the other one does not end by itself."""
    step = CXRTrainer.training_step

    def training_step(self, *args, **kwargs):
        if processes.index() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(CXRTrainer, "training_step", training_step)
    monkeypatch.setattr(processes, "BEAT", 0.1)
    monkeypatch.setattr(processes, "PATIENCE", 3.0)
    monkeypatch.setattr(processes, "GRACE", 0.5)
    log = tmp_path / "run" / "run.log"
    ended = launch(
        lambda: run_command("train", [write_config(tmp_path, **SHORT), "--output_dir", str(tmp_path / "run")]),
        tmp_path / "said",
        kill=lambda: 1 if log.exists() and "has not answered" in log.read_text() else None,
    )
    assert [one.status for one in ended] == [2, -9]
    assert "process 1 of 2 (they count from 0) has not answered for 3 seconds" in log.read_text()
