"""A comparison from its YAML to its report: refusals at the door, resuming, a run that fails, what is said."""

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import yaml
from tiny import SWIN

from hf_cxr.commands import main as hf_cxr_main
from hf_cxr.config import parse_arguments
from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.files import write_json, write_text
from hf_cxr.labels import NIH14
from hf_cxr.losses import LOSSES, build_loss
from hf_cxr.predictions import Predictions
from hf_cxr.reporting import comparison as comparison_report
from hf_cxr.reporting.comparison import build_report, has_loss_of_a_cell, loss_curves
from hf_cxr.run.compare import best_point, check_run, final_runs, load_plan, tuned_points, tuning_runs
from hf_cxr.run.comparison_plan import folder_name

BASE = {
    "dataset": "phantom",
    "phantom_train": 48,
    "phantom_validation": 32,
    "phantom_test": 40,
    "phantom_size": 64,
    "phantom_prevalence_floor": 0.05,
    **SWIN,
    "loss": "class_aware",
    "margin": 0.1,
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
        ({"methodes": {}}, "unknown key methodes in .*tiny.yaml; did you mean methods"),
        ({"methods": METHODS | {"ASL": {"los": "asymmetric"}}}, "unknown key los in ASL in .*did you mean loss"),
        ({"base": BASE | {"images_size": 64}}, "unknown key images_size in base in .*did you mean image_size"),
        ({"baseline": "bce"}, "baseline bce .* is not among the methods: BCE, Class-aware"),
        ({"methods": METHODS | {"bce": {"loss": "bce"}}}, "the method 'bce' .* has no folder of its own: BCE"),
        ({"methods": METHODS | {"S": {"seed": 3}}}, "seed cannot be set for S"),
        ({"base": BASE | {"push_to_hub": True}}, "push_to_hub cannot be set for base"),
        ({"base": BASE | {"hub_token": "hf_x"}}, "hub_token cannot be set for base"),
        ({"base": "no_such.yaml"}, "no such file as no_such.yaml"),
        ({"overrides": {"loss": "bce"}}, "overrides .* go with a base that is a path"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": 3}, "different whole numbers"),
        ({"tune": {"grid": {"learning_rte": [1]}}}, "unknown key learning_rte in grid .*did you mean learning_rate"),
        ({"tune": {"grid": {"learning_rate": 1e-3}}}, "must be a list of values"),
        ({"tune": {"grid": {"learning_rate": [1e-3]}, "by": "AUC"}}, "choose from auc, mean_average_precision"),
        ({"tune": {"grid": {"loss": ["bce"]}}}, "loss .* is tuned and also set by BCE"),
        ({"tiers": {"body": 3}}, "unknown key body in tiers"),
        ({"resamples": 5}, "at least 100"),
        ({"confidence": 95}, "between 0 and 1"),
        (
            {"confidence": 0.99},
            "correction for 3 comparisons within tiers no p value could be below 0.020, .* at 0.01",
        ),
    ],
)
def test_bad_plans_are_refused_at_the_door(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_plan(write_plan(tmp_path, **changes))


def test_a_name_that_stands_twice_is_refused(tmp_path):
    path = write_plan(tmp_path)
    path.write_text(path.read_text().replace("methods:\n", "methods:\n  BCE: {loss: focal}\n"))
    with pytest.raises(ValueError, match="BCE stands twice"):
        load_plan(path)


def test_names_and_points_stay_as_they_are_written(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "base: {loss: bce, learning_rate: 1e-5, eval_strategy: no, load_best_model_at_end: false}\n"
        "methods:\n  no: {}\n  1e-3: {lr_scheduler_type: cosine_with_min_lr, lr_scheduler_kwargs: {min_lr: 1e-6}}\n"
        "baseline: no\nseeds: [0]\ntune: {grid: {weight_decay: [1e-3, 0.5], lr_scheduler_kwargs: [{min_lr: 1e-7}]}}\n"
    )
    with pytest.raises(ValueError, match=r"lr_scheduler_kwargs .* is tuned and also set by 1e-3"):
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
        with pytest.raises(ValueError, match=f"{flag.replace('-', '_').lstrip('_')} is not for all runs alike"):
            load_plan(write_plan(tmp_path), [flag, "1"])


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"loss": "bce", "margin": 0.1}, "Odd: bce takes no option 'margin'"),
        ({"loss": "focal", "gamma": -1.0}, "Odd: gamma must be finite and not negative"),
        ({"loss": "bce", "reweight_from_epoch": 1}, "Odd: reweight_from_epoch is 1, but bce has no class weights"),
    ],
)
def test_an_option_that_the_loss_does_not_take_starts_nothing(tmp_path, capsys, own, message):
    path = write_plan(tmp_path, methods=METHODS | {"Odd": own})
    assert hf_cxr_main(["compare", str(path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_value_out_of_range_starts_nothing(tmp_path, capsys):
    path = write_plan(tmp_path, methods=METHODS | {"Odd": {"drop_path_rate": 1.5}})
    with pytest.raises(SystemExit):
        hf_cxr_main(["compare", str(path), "--out", str(tmp_path / "out")])
    assert "Odd, learning_rate 1e-3: drop_path_rate is 1.5; it must be between 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_base_by_path_with_overrides_is_the_base_written_out(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"output_dir": "runs/x", "seed": 3, "image_size": 64}))
    named = load_plan(write_plan(tmp_path, base="base.yaml", overrides={"image_size": 32}))
    assert named.base == load_plan(write_plan(tmp_path)).base


def test_methods_leave_the_bases_loss_options_behind(tmp_path):
    plan = load_plan(write_plan(tmp_path))
    assert "margin" not in plan.values("BCE")
    assert plan.values("Class-aware")["margin"] == 0.1


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
        write_json(run.folder / "validation.json", {"validation": {"auc": auc, "mean_average_precision": 1 - auc}})
    assert best_point(tuned_points(plan, tmp_path, "BCE")) is None
    write_json(runs[2].folder / "validation.json", {"validation": {"auc": 0.7, "mean_average_precision": 0.1}})
    assert best_point(tuned_points(plan, tmp_path, "BCE")) == {"learning_rate": 2}


# Reports from run folders that were written here, so that what they must say is known.


def run_folder(path, *, gain=0.0, seed=0, images=240, method="bce", fingerprint="f", turn=False, missing=None):
    """A finished run's folder with predictions of known quality; ``gain`` raises it."""
    common, rng = np.random.default_rng(0), np.random.default_rng([1, seed, int(100 * abs(gain)), len(method)])
    label_NC = (common.random((images, 14)) < 0.25).astype(np.float32)
    shared_NC = common.normal(size=label_NC.shape) + 0.5 * label_NC
    logits = shared_NC + gain * label_NC + 0.3 * rng.normal(size=label_NC.shape)
    step = -1 if turn else 1
    for split in ("validation", "test"):
        predictions = Predictions(
            logits=logits[::step],
            labels=label_NC[::step],
            image_ids=[f"{split}{row}" for row in range(images)][::step],
            patient_ids=[f"p{row // 2}" for row in range(images)][::step],
            label_names=NIH14,
            split=split,
        )
        predictions.save(path / "predictions" / f"{split}.parquet")
    report = evaluate_predictions(
        predictions.probabilities, label_NC[::step], predictions.patient_ids, label_names=NIH14, resamples=10
    )
    history = [{"epoch": epoch, "step": epoch, "loss": 1 / epoch, "eval_loss": 1 / epoch, "eval_auc": 0.5} for epoch in (1, 2)]  # fmt: skip  # noqa: E501
    write_json(
        path / "metrics.json",
        {
            "protocol": {
                "dataset": "ChestX-ray14",
                "synthetic": False,
                "splits": {"test": {"images": images, "patients": images // 2}},
                "split_fingerprint": fingerprint,
                "training_positives": [6000] * 3 + [2000] * 9 + [100] * 2,
                "training_known": [50000] * 14,
                "labels_shuffled": False,
                "training_images_limited_to": None,
                "missing_images": missing or {},
                "initial_weights": "random",
                "selection": "best validation auc",
                "calibration": None,
                "loss": {"name": method, "options": {"margin": None}, "class_weights_kind": "none"},
            },
            "test": report.to_dict(),
            "validation": report.to_dict(),
            "calibration": None,
            "training": {"parameters": 1000},
            "environment": {"hf_cxr": "0", "torch": "0", "device": "cpu"},
            "history": history,
        },
    )
    args = parse_arguments(["--loss", method, "--seed", str(seed)])
    write_text(path / "config.yaml", yaml.safe_dump(args.to_dict()))
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """BCE, a method as good, and one that is better: three seeds each."""
    root = tmp_path_factory.mktemp("planted")
    methods = {"BCE": ("bce", 0.0), "Same_&_50%": ("focal", 0.0), "Better": ("class_aware", 0.6)}
    return {
        name: {seed: run_folder(root / name / str(seed), method=loss, gain=gain, seed=seed) for seed in range(3)}
        for name, (loss, gain) in methods.items()
    }


@pytest.fixture(scope="module")
def report(planted):
    return build_report("planted", planted, baseline="BCE", resamples=200)


def test_a_planted_difference_is_told_and_a_null_is_not(report):
    first = report.conclusions()[0]
    assert re.search(r"By macro AUC, .* these differ from BCE: Better \(\+0\.\d+, .* higher in 3 of 3 seeds\)", first)
    assert first.endswith("The others do not: Same_&_50%.")
    assert report.different("auc") == report.different("ap") == ["Better"]
    assert report.ranks("auc")["Better"] == 1
    assert not any("does not say which method is better" in sentence for sentence in report.conclusions())


def test_a_difference_that_turns_with_the_seed_is_called_unsteady(planted, tmp_path, report):
    gains = (0.9, 0.9, -0.3)
    turning = {seed: run_folder(tmp_path / str(seed), gain=gain, seed=seed) for seed, gain in enumerate(gains)}
    folders = {"BCE": planted["BCE"], "Turning": turning}
    said = build_report("unsteady", folders, baseline="BCE", resamples=200).conclusions()[0]
    assert "higher in 2 of 3 seeds" in said
    assert said.endswith("Not of one sign in all seeds, so the chance of training may be all: Turning.")
    assert "Not of one sign" not in report.conclusions()[0]


def test_without_a_difference_the_report_says_so(planted):
    folders = {name: planted[name] for name in ("BCE", "Same_&_50%")}
    said = " ".join(build_report("null", folders, baseline="BCE", resamples=200).conclusions())
    assert "By macro AUC, no method differs from BCE beyond the chance of which patients" in said
    assert "this comparison does not say which method is better" in said
    assert "does not show that the methods are equally good either" in said
    assert "intervals of all methods overlap" in said


def test_a_test_set_too_small_to_test_is_called_that(tmp_path):
    folders = {
        name: {0: run_folder(tmp_path / name, gain=gain, images=14)} for name, gain in (("BCE", 0), ("Better", 3))
    }
    small = build_report("small", folders, baseline="BCE", resamples=200)
    assert "nothing can be tested" in small.conclusions()[0]
    assert small.different("auc") == []
    assert any("One seed" in caution for caution in small.cautions())


def test_means_and_sds_are_those_of_the_runs_own_reports(report, planted):
    for method, by_seed in planted.items():
        aucs = [json.loads((folder / "metrics.json").read_text())["test"]["macro_auc"] for folder in by_seed.values()]
        overall = report.test.auc[method].overall
        assert overall.mean == pytest.approx(np.mean(aucs))
        assert overall.sd == pytest.approx(np.std(aucs, ddof=1))


def test_tiers_are_those_of_the_training_counts(report):
    assert {tier: len(names) for tier, names in report.tiers.items()} == {"head": 3, "medium": 9, "tail": 2}
    figures = report.test.auc["Better"]
    assert figures.groups["tail"].mean == pytest.approx(figures.finding_C[12:].mean())
    assert "tail: Fibrosis" not in report.tier_words()
    assert "tail: Pleural Thickening, Hernia." in report.tier_words()


def test_every_form_says_the_same(report, tmp_path):
    report.write(tmp_path)
    values = json.loads((tmp_path / "comparison.json").read_text())
    with (tmp_path / "comparison.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    markdown, tex, page = ((tmp_path / f"comparison.{kind}").read_text() for kind in ("md", "tex", "html"))
    for method, figures in values["methods"].items():
        assert float(rows[method]["auc_mean"]) == figures["auc"]["mean"]
        cell = f"{figures['auc']['mean']:.3f} ± {figures['auc']['sd']:.3f}"
        assert cell in markdown
        assert cell in page
        assert cell.replace("±", r"$\pm$") in tex
    assert rows["BCE"]["auc_difference_p"] == ""
    assert r"Same\_\&\_50\%" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == tex.count(r"\bottomrule") >= 6
    assert not re.search(r"(?<!\\)[%&]", re.sub(r"&(?= )|^%.*|%$", "", tex, flags=re.MULTILINE))
    assert "Not comparable with the tables above" in markdown
    assert "| the reference study (Swin-B, BCE) | 0.804 | 0.268 |" in markdown
    pictures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert pictures == {
        "differences", "roc", "training", "mean_probability", "loss_by_method", "loss_by_prevalence"
    }  # fmt: skip
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "{" not in page.split("</style>")[1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"fingerprint": "g"}, "split_fingerprint is f in one and g in the other"),
        ({"turn": True}, "their validation sets differ in images or their order, patients, labels"),
        ({"images": 100}, "splits is"),
    ],
)
def test_runs_on_other_images_are_refused(planted, tmp_path, other, message):
    folders = {"BCE": planted["BCE"], "Other": {0: run_folder(tmp_path / "other", **other)}}
    with pytest.raises(ValueError, match=message):
        build_report("x", folders, baseline="BCE")


def test_a_method_without_runs_is_left_out_and_named(planted):
    folders = {"BCE": planted["BCE"], "Gone": {}}
    gone = build_report("x", folders, baseline="BCE", missing={"Gone, seed 0": "why"}, resamples=100)
    assert list(gone.runs) == ["BCE"]
    assert any("missing from the figures: Gone, seed 0" in caution for caution in gone.cautions())
    with pytest.raises(ValueError, match="no finished run of the baseline Gone"):
        build_report("x", folders, baseline="Gone")


def test_curves_of_a_loss_are_the_functions_own():
    prob_K = np.array([0.1, 0.5, 0.9])
    loss = build_loss("class_aware", positives_C=[1, 400], known_C=[1000, 1000])
    plain = build_loss("bce", positives_C=[1, 400], known_C=[1000, 1000])
    positive_K, negative_K = loss_curves(plain, 1, prob_K)
    np.testing.assert_allclose(positive_K, -np.log(prob_K))
    np.testing.assert_allclose(negative_K, -np.log(1 - prob_K))
    rare, frequent = loss_curves(loss, 0, prob_K), loss_curves(loss, 1, prob_K)
    assert (rare[0] > frequent[0]).all()  # a rare finding's positives weigh more, its negatives less
    assert (rare[1][1:] < frequent[1][1:]).all()
    np.testing.assert_allclose(rare[0][1], -(1 - 0.001**0.5) * np.log(0.5))


def test_every_loss_has_its_curves_or_none():
    prob_K = np.array([0.1, 0.5, 0.9])
    without = []
    for name in LOSSES:
        loss = build_loss(name, positives_C=[10, 400, 100], known_C=[1000] * 3)
        if has_loss_of_a_cell(loss):
            positive_K, negative_K = loss_curves(loss, 1, prob_K)
            assert (np.diff(positive_K) < 0).all(), name
            assert negative_K[2] > negative_K[0], name
        else:
            without.append(name)
    assert without == ["two_way", "zlpr"]
    loss = build_loss("pos_weighted", positives_C=[10, 400, 100], known_C=[1000] * 3)
    np.testing.assert_allclose(loss_curves(loss, 2, prob_K)[0], -9 * np.log(prob_K), rtol=1e-6)
    # Of an image with this finding alone, and of one without any.
    loss = build_loss("distribution_balanced", positives_C=[10, 400, 100], known_C=[1000] * 3, gamma=0, bias_scale=0)
    positive_K, negative_K = loss_curves(loss, 1, prob_K)
    np.testing.assert_allclose(positive_K, -(0.1 + 1 / (1 + np.exp(-8))) * np.log(prob_K), rtol=1e-6)
    np.testing.assert_allclose(negative_K[1], 1.1 * np.log(2) / 2, rtol=1e-6)


def test_the_losses_are_drawn_as_the_runs_built_them(planted, tmp_path):
    losses = {"LDAM": "ldam", "ZLPR": "zlpr", "Drawn": "logit_adjusted"}
    folders = {name: {0: run_folder(tmp_path / name, method=loss)} for name, loss in losses.items()}
    metrics = json.loads((tmp_path / "Drawn" / "metrics.json").read_text())
    metrics["protocol"]["loss"]["prevalence"] = [0.5] * 14  # a sampler's, not the data's
    write_json(tmp_path / "Drawn" / "metrics.json", metrics)
    mixed = build_report("mixed", {"BCE": planted["BCE"], **folders}, baseline="BCE", resamples=100)
    drawn = mixed.figures()
    lines = {line.get_label(): line for line in drawn["loss_by_method"].axes[0].get_lines()}
    assert set(lines) == {"BCE", "LDAM", "Drawn"}
    np.testing.assert_allclose(lines["Drawn"].get_ydata(), lines["BCE"].get_ydata(), rtol=1e-6)
    assert (lines["LDAM"].get_ydata() > lines["BCE"].get_ydata()).all()
    labels = [line.get_label() for line in drawn["loss_by_prevalence"].axes[0].get_lines()]
    assert all(label.endswith("(50.0%)") for label in labels)
    alone = build_report("alone", {"ZLPR": folders["ZLPR"]}, baseline="ZLPR", resamples=100).figures()
    assert not {"loss_by_method", "loss_by_prevalence"} & set(alone)


def test_what_a_method_changes_besides_its_loss_is_said(report, planted, tmp_path):
    assert report.settings_table()[0][3:] == ("learning_rate", "weight_decay", "validation AUC", "validation mAP")
    assert report.protocol_rows()[0] == ("settings", "of every run")
    longer = run_folder(tmp_path / "longer")
    args = parse_arguments(["--loss", "bce", "--sampler", "class_aware", "--num_train_epochs", "60", "--seed", "5"])
    write_text(longer / "config.yaml", yaml.safe_dump(args.to_dict()))
    other = build_report("x", {"BCE": planted["BCE"], "Longer": {5: longer}}, baseline="BCE", resamples=100)
    head, rows = other.settings_table()
    said = [dict(zip(head, row, strict=True))["other than BCE in"] for row in rows]
    assert said == ["–", "num_train_epochs 60.0, sampler class_aware"]
    assert other.protocol_rows()[0][1] == "of BCE; what others change: see Settings"


def test_the_highest_of_several_is_not_called_the_best(report, planted):
    assert any(
        "tested against BCE only" in caution and "the highest of several is partly luck" in caution
        for caution in report.cautions()
    )
    assert any("higher in all of them by luck alone in 1 of 4" in caution for caution in report.cautions())
    two = build_report("two", {name: planted[name] for name in ("BCE", "Better")}, baseline="BCE", resamples=100)
    assert not any("tested against BCE only" in caution for caution in two.cautions())


def test_chance_is_told_from_what_is_undefined(planted, report, tmp_path):
    guess = {0: run_folder(tmp_path / "guess")}
    path = tmp_path / "guess" / "predictions" / "test.parquet"
    saved = Predictions.load(path)
    dataclasses.replace(saved, logits=np.random.default_rng(5).normal(size=saved.logits.shape)).save(path)
    said = " ".join(build_report("x", {"BCE": planted["BCE"], "Guess": guess}, baseline="BCE").conclusions())
    assert "The AUC interval of Guess does not lie above 0.5: not shown to be better than chance" in said
    figures = report.test.auc["BCE"]
    figures = dataclasses.replace(figures, overall=dataclasses.replace(figures.overall, low=math.nan, high=math.nan))
    test = dataclasses.replace(report.test, auc=report.test.auc | {"BCE": figures})
    assert not any("better than chance" in said for said in dataclasses.replace(report, test=test).conclusions())


def test_tiers_are_shown_with_their_intervals(report):
    head, rows = report.tier_table()
    tail = report.test.auc["BCE"].groups["tail"]
    cell = dict(zip(head, rows[0], strict=True))["tail AUC (interval)"]
    assert cell == f"{tail.mean:.3f} ± {tail.sd:.3f} ({tail.low:.3f}–{tail.high:.3f})"
    assert tail.low < tail.mean < tail.high


def test_unequal_steps_are_a_caution_and_equal_ones_none(planted, report):
    assert not any("optimizer steps" in caution for caution in report.cautions())
    runs = {method: dict(by_seed) for method, by_seed in report.runs.items()}
    for count, (method, by_seed) in enumerate(runs.items()):
        training = {"parameters": 1000, "steps": 500 + 100 * count}
        runs[method] = {
            s: dataclasses.replace(run, metrics=run.metrics | {"training": training}) for s, run in by_seed.items()
        }
    said = " ".join(dataclasses.replace(report, runs=runs).cautions())
    assert "optimizer steps (BCE 500, Same_&_50% 600, Better 700)" in said


def test_every_tested_tier_has_its_sentence(report):
    told = report.tier_conclusions()
    for tier in report.tested_tiers():
        assert sum(sentence.startswith(f"On {tier} findings by") for sentence in told) == 2


def test_a_tier_of_a_handful_of_patients_is_not_tested(planted, monkeypatch):
    monkeypatch.setattr(comparison_report, "LEAST_IN_TIER", 10**6)
    report = build_report("few", planted, baseline="BCE", resamples=100)
    assert report.tested_tiers() == []
    assert "Not tested, because fewer than" in " ".join(report.conclusions())
    assert report.to_dict()["methods"]["Better"]["auc"]["tier_differences"] == {}
    assert "Differences to BCE, head, medium and tail" not in [title for title, _, _ in report._sections()]


def test_differences_within_tiers_are_told_with_their_own_correction(report, planted):
    head, rows = report.tier_difference_table()
    assert len(rows) == (len(report.runs) - 1) * len(report.tiers)
    method, tier = rows[-1][:2]
    within = report.test.auc[method].group_differences[tier]
    assert dict(zip(head, rows[-1], strict=True))["AUC difference (interval)"].startswith(f"{within.value:+.3f}")
    report = build_report("more", planted, baseline="BCE", resamples=600)
    told = " ".join(report.tier_conclusions())
    differs = [
        (name, key, tier)
        for key in ("auc", "ap")
        for name, figures in report.metric(key).items()
        for tier, difference in figures.group_differences.items()
        if difference.p_corrected < 0.05
    ]
    assert differs, "the planted report should have a difference"
    assert all(f"On {tier} findings" in told and name in told for name, _, tier in differs)


# Real runs, each in its own process.


def test_method_names_are_shown_literally_in_markdown(planted):
    folders = {"BCE": planted["BCE"], "a|b *c*": planted["BCE"]}
    text = build_report("x_ <b>", folders, baseline="BCE").to_markdown()
    assert text.startswith("# x\\_ \\<b\\>: comparison\n")
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert rows
    assert all(row.startswith("| a\\|b \\*c\\* |") for row in rows)
    assert "*c*" not in text
