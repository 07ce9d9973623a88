"""`hf-cxr tune`: the search is the same when it is stopped, reads no test image, and leaves a config for training."""

import errno
import importlib.util
import json

import optuna
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from tiny import SWIN
from transformers import TrainerCallback

from hf_cxr.commands import main
from hf_cxr.run import folder as run_folder
from hf_cxr.run.tuning import tune as module
from hf_cxr.run.tuning.search_space import load_search
from hf_cxr.run.tuning.tune import read_results, tune
from hf_cxr.yaml_files import read_yaml

BASE = {
    "dataset": "phantom",
    "phantom_train": 32,
    "phantom_validation": 24,
    "phantom_test": 12,
    "phantom_size": 64,
    "phantom_prevalence_floor": 0.2,
    **SWIN,
    "loss": "asymmetric",
    "per_device_train_batch_size": 16,
    "num_train_epochs": 1,
    "bootstrap_resamples": 10,
}
SEARCH = {
    "base": BASE,
    "space": {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "loss_kwargs.gamma_neg": {"low": 0, "high": 3},
        "weight_decay": [0.0, 0.05],
    },
    "trials": 2,
    "prune": True,
}


def write(folder, name="search", **changes):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(SEARCH | changes, sort_keys=False))
    return path


def points(out):
    return [(one["point"], one["figures"]["auc"]) for one in json.loads((out / "tuning.json").read_text())["trials"]]


def test_a_stopped_search_goes_on_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, capsys):
    straight = tmp_path / "straight"
    assert main(["tune", str(write(tmp_path)), "--out", str(straight), "--trials", "3"]) == 0
    assert "best settings:" in capsys.readouterr().out
    stopped, real = tmp_path / "stopped", module.run

    def interrupted(args, callbacks=()):
        if args.training.output_dir.endswith("0001"):
            raise KeyboardInterrupt
        return real(args, callbacks)

    monkeypatch.setattr(module, "run", interrupted)
    assert main(["tune", str(write(tmp_path)), "--out", str(stopped)]) == 130
    monkeypatch.setattr(module, "run", real)
    assert main(["tune", str(write(tmp_path)), "--out", str(stopped)]) == 0
    assert len(points(stopped)) == 2
    assert main(["tune", str(write(tmp_path)), "--out", str(stopped), "--trials", "3"]) == 0
    assert points(stopped) == points(straight)
    folders = sorted(path.name for path in (stopped / "trials").iterdir())
    assert len(folders) == 3
    assert not list(stopped.glob("trials/*/checkpoint-*"))
    best = max(points(straight), key=lambda one: one[1])[0]
    chosen = read_yaml(straight / "best.yaml")
    assert chosen["learning_rate"] == best["learning_rate"]
    assert chosen["loss_kwargs"] == {"gamma_neg": best["loss_kwargs.gamma_neg"]}
    assert (straight / "best.yaml").read_text().startswith("# The best of 3 trials")
    other = write(tmp_path, base=BASE | {"num_train_epochs": 2})
    assert main(["tune", str(other), "--out", str(straight)]) == 2
    assert "contains a search with other settings (num_train_epochs was 1 and is 2)" in capsys.readouterr().err
    other = write(tmp_path, space=SEARCH["space"] | {"weight_decay": [0.0, 0.1]})
    assert main(["tune", str(other), "--out", str(straight)]) == 2
    assert "contains a search with other settings (space)" in capsys.readouterr().err


def reported(out):
    """The validation figures that each trial that is done reported to the study, by step."""
    trials = optuna.load_study(study_name="search", storage=f"sqlite:///{out}/study.db").trials
    return [one.intermediate_values for one in trials if one.state.name == "COMPLETE"]


def test_a_trial_that_is_stopped_after_an_evaluation_resumes_and_reports_it_again(tmp_path, monkeypatch):
    path = write(tmp_path, base=BASE | {"num_train_epochs": 2}, trials=1)
    tune(load_search(path), tmp_path / "straight")
    real, stopped = module.run, tmp_path / "stopped"
    resumed_at = []

    class Stop(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            resumed_at.append(state.global_step)

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:  # after the evaluation and the checkpoint of step 2
                raise KeyboardInterrupt

    def early(args, callbacks=()):
        raise KeyboardInterrupt  # before it has reported anything again

    for patched in (lambda args, callbacks: real(args, [*callbacks, Stop()]), early):
        monkeypatch.setattr(module, "run", patched)
        with pytest.raises(KeyboardInterrupt):
            tune(load_search(path), stopped)
        assert (stopped / "trials" / "0000" / "checkpoint-2").is_dir()
    Stop.on_step_end = TrainerCallback.on_step_end
    monkeypatch.setattr(module, "run", lambda args, callbacks: real(args, [*callbacks, Stop()]))
    tune(load_search(path), stopped)
    assert resumed_at == [0, 2]
    assert points(stopped) == points(tmp_path / "straight")
    assert reported(stopped) == reported(tmp_path / "straight")
    assert [list(figures) for figures in reported(stopped)] == [[2, 4]]


def test_best_yaml_gives_the_best_trial_again_without_the_flags(tmp_path):
    path = write(tmp_path, trials=1, base=BASE)
    flags = ["--warmup-steps", "1", "--sampler", "class_aware", "--no_load_best_model_at_end"]
    tune(load_search(path, flags), tmp_path / "out")
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "out" / "best.yaml"), "--output_dir", str(run)]) == 0
    assert (run / "metrics.json").is_file()
    trial, again = (read_yaml(folder / "config.yaml") for folder in (tmp_path / "out" / "trials" / "0000", run))
    assert (trial["warmup_steps"], trial["sampler"], trial["load_best_model_at_end"]) == (1, "class_aware", False)
    changed = {key for key in trial if trial[key] != again[key]}
    assert changed == {"output_dir", "seed", "measure_test", "disable_tqdm"}


def test_a_full_disk_and_a_folder_in_use_stop_the_search_and_fail_no_trial(tmp_path, monkeypatch, capsys):
    real, out = module.run, tmp_path / "out"
    words = ["tune", str(write(tmp_path, trials=1)), "--out", str(out)]

    def full(args, callbacks=()):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("writing a checkpoint failed") from error

    monkeypatch.setattr(module, "run", full)
    assert main(words) == 2
    assert "trial 0000: the disk is full" in capsys.readouterr().err
    monkeypatch.setattr(module, "run", real)
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0)
    folder = out / "trials" / "0000"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".run.lock"):
        assert main(words) == 2
    assert "trial 0000: another run is working in" in capsys.readouterr().err
    assert main(words) == 0
    trials = json.loads((out / "tuning.json").read_text())["trials"]
    assert [(one["number"], one["state"]) for one in trials] == [(0, "finished")]


def test_the_place_of_the_data_may_change_and_the_data_may_not(tmp_path, capsys):
    places = []
    for name, shift in (("here", 0), ("moved", 0), ("changed", 1)):
        places.append(tmp_path / name)
        places[-1].mkdir()
        rows = ["file,patient,part,Mass"]
        for number in range(24):
            Image.new("L", (40, 40), number * 6).save(places[-1] / f"{number}.png")
            part = ("train", "train", "validation", "test")[number % 4]
            rows.append(f"{number}.png,{number},{part},{(number // 4 + shift) % 2}")
        (places[-1] / "rows.csv").write_text("\n".join(rows) + "\n")
    table = {"files": "rows.csv", "image_column": "file", "findings": ["Mass"], "blank": "zero"}
    table |= {"patient_column": "patient", "split_column": "part"}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    base = {key: value for key, value in BASE.items() if not key.startswith("phantom")}
    base |= {"dataset": "table", "table": str(tmp_path / "table.yaml"), "per_device_train_batch_size": 6}
    words = ["tune", str(write(tmp_path, base=base)), "--out", str(tmp_path / "out"), "--table_root"]
    assert main([*words, str(places[0]), "--trials", "1"]) == 0
    assert main([*words, str(places[1]), "--trials", "2", "--dataloader_num_workers", "1"]) == 0
    capsys.readouterr()
    assert main([*words, str(places[2]), "--trials", "3"]) == 2
    assert "labels are not those that the search was started with" in capsys.readouterr().err
    assert main([*words, str(places[0]), "--trials", "3"]) == 0
    assert len(points(tmp_path / "out")) == 3


def test_no_test_image_is_opened(tmp_path):
    rows = ["file,patient,part,Mass,Nodule"]
    for number in range(40):
        part = ("train", "train", "validation", "test")[number % 4]
        rows.append(f"{part}{number}.png,{number},{part},{number // 4 % 2},{number // 8 % 2}")
        place = tmp_path / f"{part}{number}.png"
        if part == "test":
            place.write_bytes(b"not an image")
        else:
            Image.new("L", (40, 40), number * 6).save(place)
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    table = {"files": "rows.csv", "image_column": "file", "findings": ["Mass", "Nodule"], "blank": "zero"}
    table |= {"patient_column": "patient", "split_column": "part"}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(table))
    base = {key: value for key, value in BASE.items() if not key.startswith("phantom")}
    base |= {"dataset": "table", "table": str(tmp_path / "table.yaml")}
    base |= {"per_device_train_batch_size": 8}
    path = write(tmp_path, base=base, trials=1, prune=False)
    assert tune(load_search(path), tmp_path / "out").best is not None
    assert main(["train", str(tmp_path / "out" / "best.yaml"), "--output_dir", str(tmp_path / "run")]) == 2


def test_pruned_and_failed_trials_are_named(tmp_path, monkeypatch):
    search = load_search(write(tmp_path, trials=4))
    calls = []

    def run(args, callbacks=()):
        calls.append(args)
        folder = tmp_path / "out" / "trials" / args.training.output_dir[-4:]
        for name in ("checkpoint-2", "stages"):
            (folder / name).mkdir(parents=True)
            (folder / name / "model.safetensors").write_bytes(b"weights")
        if len(calls) == 1:
            raise RuntimeError("no memory")
        if len(calls) == 2:
            raise optuna.TrialPruned("at epoch 1")
        figures = {"validation": {"auc": 0.5 + len(calls) / 10, "ap": 0.2}, "protocol": {}}
        (folder / "validation.json").write_text(json.dumps(figures))
        return

    monkeypatch.setattr(module, "run", run)
    results = tune(search, tmp_path / "out")
    assert [one.state for one in results.trials] == ["failed", "pruned", "finished", "finished"]
    assert (results.trials[0].reason, results.best.number) == ("no memory", 3)
    assert len({args.training.learning_rate for args in calls}) == 4
    assert sorted(path.name for path in (tmp_path / "out" / "trials").iterdir()) == ["0000", "0001", "0002", "0003"]
    assert not list((tmp_path / "out" / "trials").rglob("*.safetensors"))
    assert {args.training.seed for args in calls} == {1000}
    assert not any(args.evaluation.measure_test for args in calls)
    storage = f"sqlite:///{tmp_path}/out/study.db"
    again = read_results(search, tmp_path / "out", optuna.load_study(study_name="search", storage=storage))
    assert str(again) == str(results)


def test_the_data_themselves_may_be_searched(tmp_path):
    path = write(tmp_path, space={"train_limit": {"low": 14, "high": 30}})
    results = tune(load_search(path), tmp_path / "out")
    assert len({one.point["train_limit"] for one in results.finished}) == 2


def test_values_that_no_run_takes_are_refused_before_training(tmp_path, capsys):
    path = write(tmp_path, space={"loss": ["bce", "focal"], "loss_kwargs.gamma_neg": {"low": 0, "high": 1}})
    with pytest.raises(SystemExit, match="2"):
        main(["tune", str(path), "--out", str(tmp_path / "out")])
    assert "bce takes no option 'gamma_neg'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_trained_so_is_refused_before_training(tmp_path, capsys):
    resnet = {"architecture": "resnet", "model_kwargs": {"embedding_size": 8, "hidden_sizes": [8], "depths": [1]}}
    base = {key: value for key, value in BASE.items() if key not in SWIN} | {"image_size": 32, "resize_size": 36}
    path = write(tmp_path, base=base | resnet | {"gradient_accumulation_steps": 2})
    assert main(["tune", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "batch norm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("a file")  # and a place that cannot be a folder before that
    assert main(["tune", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "not a folder" in capsys.readouterr().err


def test_optuna_is_asked_for_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["tune", str(write(tmp_path))]) == 2
    assert "pip install 'hf-cxr[tune]'" in capsys.readouterr().err
