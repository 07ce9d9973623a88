"""A comparison from its YAML to its report: refusals at the door, resuming, a run that fails, what is said."""

import pytest
import yaml
from tiny import SWIN

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.files import write_json
from hf_cxr.run.comparing.compare import best_point, check_run, final_runs, load_plan, tuned_points, tuning_runs
from hf_cxr.run.comparing.plan import folder_name

BASE = {
    "dataset": "phantom",
    "phantom_train": 48,
    "phantom_validation": 32,
    "phantom_test": 40,
    "phantom_size": 64,
    "phantom_prevalence_floor": 0.05,
    **SWIN,
    "loss": "class_aware",
    "loss_kwargs": {"margin": 0.1},
    "per_device_train_batch_size": 8,
    "num_train_epochs": 2,
    "bootstrap_resamples": 20,
    "logging_steps": 1,
}
METHODS = {"BCE": {"loss": "bce"}, "Class-aware": {}}
TINY = {
    "base": BASE,
    "methods": METHODS,
    "baseline": "BCE",
    "seeds": [0, 1],
    "tune": {"grid": {"learning_rate": ["1e-3"]}, "seed": 7},
    "resamples": 300,
}


def write_plan(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY | changes, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methodes": {}}, "methodes in .*tiny.yaml.* mean methods"),
        ({"methods": METHODS | {"ASL": {"los": "asymmetric"}}}, "los in ASL .*mean loss"),
        ({"base": BASE | {"images_size": 64}}, "images_size in base .*mean image_size"),
        ({"baseline": "bce"}, "baseline bce .* BCE, Class-aware"),
        ({"methods": METHODS | {"bce": {"loss": "bce"}}}, "method 'bce' .*folder.* BCE"),
        ({"methods": METHODS | {"S": {"seed": 3}}}, "seed .*for S"),
        ({"base": BASE | {"push_to_hub": True}}, "push_to_hub .*for base"),
        ({"base": BASE | {"hub_token": "hf_x"}}, "hub_token .*for base"),
        ({"base": "no_such.yaml"}, "no such file.* no_such.yaml"),
        ({"overrides": {"loss": "bce"}}, "overrides .*path"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": 3}, "different whole numbers"),
        ({"tune": {"grid": {"learning_rte": [1]}}}, "learning_rte in grid .*mean learning_rate"),
        ({"tune": {"grid": {"learning_rate": 1e-3}}}, "a list of values"),
        ({"tune": {"grid": {"learning_rate": [1e-3]}, "by": "AUC"}}, "choose from auc, ap"),
        ({"tune": {"grid": {"loss": ["bce"]}}}, "loss .*tuned .*BCE"),
        ({"tiers": {"body": 3}}, "body in tiers"),
        ({"resamples": 5}, "at least 100"),
        ({"methods": METHODS | {"T": {"predictions": "gone.csv"}}}, "predictions of T .*no such file: gone.csv"),
        ({"methods": METHODS | {"T": {"predictions": ".", "loss": "bce"}}}, "loss of T .*file of predictions"),
        (
            {"methods": METHODS | {"T": {"predictions": ".", "scores": "odds"}}},
            "scores of T .*probabilities or logits",
        ),
        ({"methods": METHODS | {"BCE": {"predictions": "."}}}, "baseline BCE .*must be trained"),
        ({"confidence": 95}, "between 0 and 1"),
        (
            {"confidence": 0.99},
            "3 comparisons .*tiers .*0.020, .* 0.01; give at least 599",
        ),
    ],
)
def test_bad_plans_are_refused_at_the_door(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_plan(write_plan(tmp_path, **changes))


def test_a_row_may_be_a_file_which_is_checked_before_anything_is_trained(tmp_path, capsys):
    (tmp_path / "theirs.csv").write_text("image,Mass\nsynthetic_99999_000.png,0.5\n")
    path = write_plan(tmp_path, methods=METHODS | {"Theirs": {"predictions": "theirs.csv", "scores": "logits"}})
    plan = load_plan(path)
    assert (list(plan.methods), list(plan.files)) == (list(METHODS), ["Theirs"])
    assert (plan.files["Theirs"].path, plan.files["Theirs"].kind) == (tmp_path / "theirs.csv", "logits")
    assert hf_cxr_main(["compare", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "no image of the scores in" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_a_repeated_name_is_refused(tmp_path):
    path = write_plan(tmp_path)
    path.write_text(path.read_text().replace("methods:\n", "methods:\n  BCE: {loss: focal}\n"))
    with pytest.raises(ValueError, match="BCE occurs twice"):
        load_plan(path)


def test_names_and_points_stay_as_they_are_written(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "base: {loss: bce, learning_rate: 1e-5, eval_strategy: no, load_best_model_at_end: false}\n"
        "methods:\n  no: {}\n  1e-3: {lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {min_lr: 1e-6}}\n"
        "baseline: no\nseeds: [0]\ntune: {grid: {weight_decay: [1e-3, 0.5], lr_scheduler_kwargs: [{min_lr: 1e-7}]}}\n"
    )
    with pytest.raises(ValueError, match=r"lr_scheduler_kwargs .*tuned .*1e-3"):
        load_plan(path)
    path.write_text(path.read_text().replace(", lr_scheduler_kwargs: [{min_lr: 1e-7}]", ""))
    plan = load_plan(path)
    assert (list(plan.methods), plan.baseline) == (["no", "1e-3"], "no")
    assert plan.base["eval_strategy"] == "no"
    assert plan.values("1e-3")["lr_scheduler_kwargs"] == {"min_lr": 1e-6}
    assert [run.label for run in tuning_runs(plan, tmp_path)][:2] == ["weight_decay 1e-3", "weight_decay 0.5"]
    assert len(final_runs(plan, tmp_path, {})) == 2


@pytest.mark.parametrize(
    ("name", "folder"), [("a: b/c", "a_b_c"), ("Con", "Con_"), ("com1.x", "com1.x_"), ("a.", "a")]
)
def test_folders_have_names_that_windows_takes(name, folder):
    assert folder_name(name) == folder


def test_flags_that_are_not_for_all_runs_are_refused(tmp_path):
    assert load_plan(write_plan(tmp_path), ["--num_train_epochs", "1"]).flags == ("--num_train_epochs", "1")
    for flag in ("--loss", "--learning_rate", "--learning-rate", "--seed", "--measure-test"):
        with pytest.raises(ValueError, match=f"{flag.replace('-', '_').lstrip('_')} .*all runs"):
            load_plan(write_plan(tmp_path), [flag, "1"])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"loss": "bce", "loss_kwargs": {"margin": 0.1}}, "bce takes no option 'margin'"),
        ({"loss": "focal", "loss_kwargs": {"gamma": -1.0}}, "gamma must be finite"),
        ({"loss": "bce", "reweight_from_epoch": 1}, "reweight_from_epoch is 1"),
        ({"model_kwargs": {"drop_path_rate": 1.5}}, "drop_path_rate"),
        ({"margin": 0.1}, "Odd in {path}: margin: 0.1 is now loss_kwargs: {{margin: 0.1}}"),
    ],
)
def test_an_option_that_the_loss_does_not_take_starts_nothing(tmp_path, capsys, own, message):
    path = write_plan(tmp_path, methods=METHODS | {"Odd": own})
    try:
        status = hf_cxr_main(["compare", str(path), "--out", str(tmp_path / "out")])
    except SystemExit as stop:  # a run's own arguments
        status = stop.code
    assert status == 2
    line = capsys.readouterr().err
    assert "Odd" in line
    assert message.format(path=path) in line
    assert not (tmp_path / "out").exists()


def test_a_value_out_of_range_starts_nothing(tmp_path, capsys):
    path = write_plan(tmp_path, methods=METHODS | {"Odd": {"horizontal_flip": 1.5}})
    with pytest.raises(SystemExit):
        hf_cxr_main(["compare", str(path), "--out", str(tmp_path / "out")])
    line = capsys.readouterr().err
    assert "Odd, learning_rate 1e-3" in line
    assert "horizontal_flip is 1.5" in line
    assert not (tmp_path / "out").exists()


def test_base_by_path_with_overrides_is_the_base_written_out(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"output_dir": "runs/x", "seed": 3, "image_size": 64}))
    named = load_plan(write_plan(tmp_path, base="base.yaml", overrides={"image_size": 32}))
    assert named.base == load_plan(write_plan(tmp_path)).base


def test_methods_leave_the_bases_loss_options_behind(tmp_path):
    plan = load_plan(write_plan(tmp_path))
    assert "loss_kwargs" not in plan.values("BCE")
    assert plan.values("Class-aware")["loss_kwargs"] == {"margin": 0.1}


def test_methods_and_points_change_the_bases_options_one_by_one(tmp_path):
    methods = METHODS | {"Coupled": {"loss_kwargs": {"decoupled": False}}}
    plan = load_plan(write_plan(tmp_path, methods=methods))
    assert plan.values("Coupled")["loss_kwargs"] == {"margin": 0.1, "decoupled": False}
    assert plan.values("Coupled", {"loss_kwargs.margin": 0.2})["loss_kwargs"] == {"margin": 0.2, "decoupled": False}
    assert plan.values("Class-aware")["loss_kwargs"] == {"margin": 0.1}


def test_a_grid_of_an_option_is_tried_point_by_point(tmp_path):
    grid = {"loss_kwargs.class_weights": ["inverse", "none"], "learning_rate": ["1e-3"]}
    plan = load_plan(write_plan(tmp_path, tune={"grid": grid}))
    runs = tuning_runs(plan, tmp_path)
    weights = {run.name: check_run(run, plan).loss.loss_kwargs["class_weights"] for run in runs}
    assert weights["BCE, loss_kwargs.class_weights inverse, learning_rate 1e-3"] == "inverse"
    assert sorted(weights.values()) == ["inverse", "inverse", "none", "none"]
    with pytest.raises(ValueError, match=r"--loss_kwargs.class_weights .*all runs"):
        load_plan(path := write_plan(tmp_path, tune={"grid": grid}), ["--loss_kwargs.class_weights", "none"])
    assert load_plan(path, ["--loss_kwargs.beta", "0.9"]).flags
    methods = METHODS | {"Weighted": {"loss_kwargs": {"class_weights": "inverse"}}}
    with pytest.raises(ValueError, match=r"loss_kwargs\.class_weights .*tuned .*Weighted"):
        load_plan(write_plan(tmp_path, tune={"grid": grid}, methods=methods))


def test_tuning_runs_do_not_measure_test_and_differ_from_the_seeds(tmp_path):
    plan = load_plan(write_plan(tmp_path, tune={"grid": {"learning_rate": [1e-3, 3e-3], "weight_decay": [0.0, 0.1]}}))
    tuning, final = tuning_runs(plan, tmp_path), final_runs(plan, tmp_path, {"BCE": {"learning_rate": 3e-3}})
    assert (len(tuning), len(final)) == (8, 4)
    assert len({run.folder for run in (*tuning, *final)}) == 12
    assert not any(check_run(run, plan).evaluation.measure_test for run in tuning)
    assert all(check_run(run, plan).evaluation.measure_test for run in final)
    rates = {run.name: check_run(run, plan).training.learning_rate for run in final}
    assert rates["BCE, seed 1"] == 3e-3
    assert rates["Class-aware, seed 1"] == 1e-4


def test_the_best_validation_figure_chooses_once_all_are_there(tmp_path):
    plan = load_plan(write_plan(tmp_path, tune={"grid": {"learning_rate": [1, 2, 3]}}))
    runs = [run for run in tuning_runs(plan, tmp_path) if run.method == "BCE"]
    for run, auc in zip(runs[:2], (0.6, 0.7), strict=True):
        write_json(run.folder / "validation.json", {"validation": {"auc": auc, "ap": 1 - auc}})
    assert best_point(tuned_points(plan, tmp_path, "BCE"), "auc") is None
    write_json(runs[2].folder / "validation.json", {"validation": {"auc": 0.7, "ap": 0.1}})
    assert best_point(tuned_points(plan, tmp_path, "BCE"), "auc") == {"learning_rate": 2}


def test_tuning_runs_of_an_earlier_version_are_not_repeated(tmp_path):
    plan = load_plan(write_plan(tmp_path, tune={"grid": {"learning_rate": [1, 2]}, "by": "ap"}))
    runs = [run for run in tuning_runs(plan, tmp_path) if run.method == "BCE"]
    for run, ap in zip(runs, (0.2, 0.3), strict=True):
        write_json(run.folder / "validation.json", {"validation": {"auc": 0.5, "mean_average_precision": ap}})
    assert [point.figure for point in tuned_points(plan, tmp_path, "BCE")] == [0.2, 0.3]


# Real runs, each in its own process.


def test_data_that_are_not_there_are_named_before_a_run_starts(tmp_path, capsys):
    path = write_plan(tmp_path, base={**BASE, "dataset": "nih", "nih_root": str(tmp_path / "release")})
    assert hf_cxr_main(["compare", str(path), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'release'} is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
