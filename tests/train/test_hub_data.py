"""A run on a dataset of the Hub: its commit in config.yaml, protocol and page; and a resume on another commit."""

import dataclasses
import json
import shutil

import yaml
from hub_datasets import point_datasets_at, push, write_nih
from hub_server import USER
from tiny import SWIN

from hf_cxr.commands import main
from hf_cxr.data import load_description
from hf_cxr.run.comparing.compare import final_runs, load_plan, pinned_plan
from hf_cxr.run.tuning.search_space import load_search
from hf_cxr.run.tuning.tune import arguments_of, pinned_search, settings_of_search
from hf_cxr.yaml_files import read_yaml

NAME = f"{USER}/nih-chest-xray-14"


def test_a_run_keeps_its_commit_and_does_not_resume_on_another(hub, tmp_path, monkeypatch, capsys):
    point_datasets_at(hub, tmp_path / "home", monkeypatch)
    copy = write_nih(tmp_path / "copy", train=60)
    first = push(NAME, copy)
    ready = load_description("timm_nih_chest_xray_14").path.read_text()
    ready = ready.replace("timm/nih-chest-xray-14", NAME).replace("hub_revision: c1b", "# hub_revision: c1b")
    (tmp_path / "table.yaml").write_text(ready)
    keys = {
        "dataset": "table",
        "table": str(tmp_path / "table.yaml"),
        "num_train_epochs": 1,
        "bootstrap_resamples": 10,
    }
    keys |= {**SWIN, "per_device_train_batch_size": 18, "metric_for_best_model": "loss", "save_strategy": "epoch"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(keys))
    train = ["train", str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / "run")]
    assert main([*train, "--measure_test", "false"]) == 0
    assert read_yaml(tmp_path / "run" / "config.yaml")["table_revision"] == first
    protocol = json.loads((tmp_path / "run" / "validation.json").read_text())["protocol"]
    assert protocol["hub_dataset"] == f"{NAME} at commit {first}"
    assert "lossy" in protocol["data_notes"][0]
    assert protocol["splits_from"].startswith("the folder's own test list of 18 images, not the official one")
    changed = tmp_path / "changed"
    shutil.copytree(copy, changed)
    (changed / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    second = push(NAME, changed)
    capsys.readouterr()
    assert main([*train, "--table_revision", "main"]) == 2
    assert f"table_revision was {first} and is {second}" in capsys.readouterr().err
    assert main(train) == 0, capsys.readouterr().err  # the same command reads the commit that it was started with
    assert read_yaml(tmp_path / "run" / "config.yaml")["table_revision"] == first
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{NAME} at commit {first}" in page
    assert "lossy compression" in page
    assert main(["describe", str(tmp_path / "run.yaml"), "--table_revision", first]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Hub dataset: {NAME} at commit {first}" in printed
    assert "lossy compression" in printed
    for by, name in (("image", "images"), ("study", "studies")):  # each study has one image: the same to the bit
        words = ["evaluate", "--model", str(tmp_path / "run"), "--by", by, "--out", str(tmp_path / name)]
        assert main(words) == 0
    assert "18 test studies of 6 patients" in capsys.readouterr().out
    figures = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("images", "studies")]
    assert figures[0]["all"] == figures[1]["all"]
    assert (figures[1]["unit"], "unit" in figures[0]) == ("study", False)
    analysis = json.loads((tmp_path / "studies" / "analysis.json").read_text())
    assert "operating_points" in analysis  # chosen on the run's validation studies


def test_all_runs_and_trials_read_one_commit_that_a_flag_does_not_undo(hub, tmp_path, monkeypatch):
    point_datasets_at(hub, tmp_path / "home", monkeypatch)
    copy = write_nih(tmp_path / "copy")
    first = push(NAME, copy)
    ready = load_description("timm_nih_chest_xray_14").path.read_text()
    (tmp_path / "table.yaml").write_text(ready.replace("timm/nih-chest-xray-14", NAME))
    base = {**SWIN, "dataset": "table", "table": str(tmp_path / "table.yaml"), "loss": "bce"}
    space = {"learning_rate": [1e-3, 1e-2]}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({"base": base, "space": space}))
    methods = {"base": {}, "other": {"weight_decay": 0.1}}
    plan_values = {"base": base, "methods": methods, "baseline": "base", "seeds": [0], "resamples": 300}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan_values))
    flags = ("--weight-decay=0", "--table-revision", "main")
    search = load_search(tmp_path / "search.yaml", flags)
    plan = load_plan(tmp_path / "plan.yaml", flags[1:])
    for one in (pinned_search(search, None), pinned_plan(plan, tmp_path / "out")):
        assert (one.base["table_revision"], "main" in one.flags) == (first, False)
    pinned = pinned_search(search, None)
    assert pinned.flags == flags[:1]
    revisions = {arguments_of(pinned, point, tmp_path).data.table_revision for point in pinned.extremes()}
    assert revisions == {first}
    started = settings_of_search(pinned)
    (copy / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    second = push(NAME, copy)
    assert second != first
    ready = ready.replace("hub_revision: c1b", "# hub_revision: c1b")
    (tmp_path / "table.yaml").write_text(ready.replace("timm/nih-chest-xray-14", NAME))
    search, plan = (dataclasses.replace(one, flags=()) for one in (search, plan))
    assert pinned_search(search, None).base["table_revision"] == second
    assert pinned_search(search, started).base["table_revision"] == first  # the search goes on where it was
    assert pinned_plan(plan, tmp_path / "out").base["table_revision"] == second
    folder = final_runs(plan, tmp_path / "out", {})[0].folder
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(started["run"]))
    assert pinned_plan(plan, tmp_path / "out").base["table_revision"] == first
