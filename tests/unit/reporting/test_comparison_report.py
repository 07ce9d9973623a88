"""The report of a comparison: what it says follows from the numbers, in every form; unlike runs are refused."""

import csv
import dataclasses
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from hf_cxr.config import parse_arguments
from hf_cxr.evaluation import evaluate_predictions, headline_metrics
from hf_cxr.files import write_json, write_text
from hf_cxr.labels import NIH14
from hf_cxr.losses import LOSSES, build_loss
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.comparison import (
    compare_runs,
    comparison_document,
    figures,
    results,
    sentences,
    systems,
    tables,
)
from hf_cxr.reporting.comparison.figures import has_loss_of_a_cell, loss_curves
from hf_cxr.reporting.comparison.score_files import ScoreFile


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
                "loss": {"name": method, "options": {}, "class_weights_kind": "none"},
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
def found(planted):
    return compare_runs("planted", planted, baseline="BCE", resamples=200)


def cells(table, row):
    """A row of a table by the names of its columns."""
    return dict(zip(table.frame.columns, table.rows[row], strict=True))


def test_a_planted_difference_is_reported_and_a_null_is_not(found):
    first = sentences.conclusions(found)[0]
    assert re.search(r"By macro AUC, .* differ from BCE .*: Better \(\+0\.\d+, .* higher in 3 of 3 seeds\)", first)
    assert re.search(r" not: Same_&_50%\.$", first)
    assert list(found.different("auc")) == list(found.different("ap")) == ["Better"]
    assert found.ranks("auc")["Better"] == 1
    assert not any("not show which" in sentence for sentence in sentences.conclusions(found))


def test_a_difference_that_turns_with_the_seed_is_called_unsteady(planted, tmp_path, found):
    gains = (0.9, 0.9, -0.3)
    turning = {seed: run_folder(tmp_path / str(seed), gain=gain, seed=seed) for seed, gain in enumerate(gains)}
    folders = {"BCE": planted["BCE"], "Turning": turning}
    first = sentences.conclusions(compare_runs("unsteady", folders, baseline="BCE", resamples=200))[0]
    assert "higher in 2 of 3 seeds" in first
    assert re.search("sign differs .* Turning", first)
    assert "sign differs" not in sentences.conclusions(found)[0]


def test_without_a_difference_the_report_says_so(planted):
    folders = {name: planted[name] for name in ("BCE", "Same_&_50%")}
    text = " ".join(sentences.conclusions(compare_runs("null", folders, baseline="BCE", resamples=200)))
    assert "no method differs from BCE" in text
    assert "not show which" in text
    assert "equally good" in text
    assert "overlap" in text


def test_a_test_set_too_small_to_test_is_called_that(tmp_path):
    folders = {
        name: {0: run_folder(tmp_path / name, gain=gain, images=14)} for name, gain in (("BCE", 0), ("Better", 3))
    }
    small = compare_runs("small", folders, baseline="BCE", resamples=200)
    assert "nothing" in sentences.conclusions(small)[0]
    assert small.different("auc") == {}
    assert any("One seed" in caution for caution in sentences.cautions(small))


def test_means_and_sds_are_those_of_the_runs_own_reports(found, planted):
    for method, by_seed in planted.items():
        reports = [json.loads((folder / "metrics.json").read_text())["test"]["all"] for folder in by_seed.values()]
        for key in headline_metrics():
            overall = found.test.figures[key][method].overall
            macros = [report[key]["macro"] for report in reports]
            assert overall.mean == pytest.approx(np.mean(macros))
            assert overall.sd == pytest.approx(np.std(macros, ddof=1))


def test_tiers_are_those_of_the_training_counts(found):
    assert {tier: len(names) for tier, names in found.tiers.items()} == {"head": 3, "medium": 9, "tail": 2}
    figures = found.test.figures["auc"]["Better"]
    assert figures.groups["tail"].mean == pytest.approx(figures.finding_C[12:].mean())
    assert "tail: Pleural_Thickening, Hernia." in sentences.tiers(found)


def test_every_form_has_the_same_numbers(found):
    document = comparison_document(found)
    values = json.loads(document.to_json())
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(document.to_csv()))}
    markdown, tex, page, text = (
        document.to_markdown(), document.to_latex(), document.to_html("nowhere"), document.to_terminal()
    )  # fmt: skip
    for method, numbers in values["methods"].items():
        for key in headline_metrics():
            assert float(rows[method][f"{key}_mean"]) == numbers[key]["mean"]
            cell = f"{numbers[key]['mean']:.3f} ± {numbers[key]['sd']:.3f}"
            assert all(cell in form for form in (markdown, page, text))
            assert cell.replace("±", r"$\pm$") in tex
    assert rows["BCE"]["auc_difference_p"] == ""
    assert r"Same\_\&\_50\%" in tex
    assert not re.search(r"(?<!\\)[%&]", re.sub(r"&(?= )|^%.*|%$", "", tex, flags=re.MULTILINE))
    assert "| Wang et al. 2017 |" in markdown
    assert all("ot comparable with the tables above" in form for form in (markdown, page))
    assert "{" not in page.split("</style>")[1].split("<script>")[0]


def test_a_method_that_differs_is_bold(found):
    table = tables.differences(found)
    p_columns = [column for column, name in enumerate(table.frame.columns) if name.endswith("p corrected")]
    assert len(p_columns) == len(headline_metrics())
    assert {row for row, _ in table.bold} == {1}
    assert {column for _, column in table.bold} == {*p_columns, *(column - 2 for column in p_columns)}
    assert cells(table, 1)["minus BCE"] == "Better"
    assert float(cells(table, 1)["macro AUC\np corrected"].strip("<")) < 0.05


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"fingerprint": "g"}, "split_fingerprint .* f .* g "),
        ({"turn": True}, "validation sets differ in images"),
        ({"images": 100}, "splits is"),
    ],
)
def test_runs_on_other_images_are_refused(planted, tmp_path, other, message):
    folders = {"BCE": planted["BCE"], "Other": {0: run_folder(tmp_path / "other", **other)}}
    with pytest.raises(ValueError, match=message):
        compare_runs("x", folders, baseline="BCE", resamples=10)


def test_a_method_without_runs_is_left_out_and_named(planted):
    folders = {"BCE": planted["BCE"], "Gone": {}}
    gone = compare_runs("x", folders, baseline="BCE", missing={"Gone, seed 0": "why"}, resamples=100)
    assert list(gone.runs) == ["BCE"]
    assert any("failed" in caution and "Gone, seed 0" in caution for caution in sentences.cautions(gone))
    with pytest.raises(ValueError, match="baseline Gone"):
        compare_runs("x", folders, baseline="Gone", resamples=10)


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
    assert without == ["two_way", "w_cel", "zlpr"]
    loss = build_loss("pos_weighted", positives_C=[10, 400, 100], known_C=[1000] * 3)
    np.testing.assert_allclose(loss_curves(loss, 2, prob_K)[0], -9 * np.log(prob_K), rtol=1e-6)
    # Of an image with this finding alone, and of one without any.
    loss = build_loss("distribution_balanced", positives_C=[10, 400, 100], known_C=[1000] * 3, gamma=0, bias_scale=0)
    positive_K, negative_K = loss_curves(loss, 1, prob_K)
    np.testing.assert_allclose(positive_K, -(0.1 + 1 / (1 + np.exp(-8))) * np.log(prob_K), rtol=1e-6)
    np.testing.assert_allclose(negative_K[1], 1.1 * np.log(2) / 2, rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_built_again_from_what_a_run_wrote_of_it(name):
    training = {"positives_C": [10, 400, 100], "known_C": [1000] * 3}
    described = json.loads(json.dumps(build_loss(name, **training).describe()))
    again = build_loss(name, **training, class_weights=described["class_weights_kind"], **described["options"])
    assert json.loads(json.dumps(again.describe())) == described


def test_the_losses_are_drawn_as_the_runs_built_them(planted, tmp_path):
    losses = {"LDAM": "ldam", "ZLPR": "zlpr", "Drawn": "logit_adjusted"}
    folders = {name: {0: run_folder(tmp_path / name, method=loss)} for name, loss in losses.items()}
    metrics = json.loads((tmp_path / "Drawn" / "metrics.json").read_text())
    metrics["protocol"]["loss"]["prevalence"] = [0.5] * 14  # a sampler's, not the data's
    write_json(tmp_path / "Drawn" / "metrics.json", metrics)
    mixed = compare_runs("mixed", {"BCE": planted["BCE"], **folders}, baseline="BCE", resamples=100)
    drawn = figures.draw(mixed)
    lines = {line.get_label(): line for line in drawn["loss_by_method"].axes[0].get_lines()}
    assert set(lines) == {"BCE", "LDAM", "Drawn"}
    np.testing.assert_allclose(lines["Drawn"].get_ydata(), lines["BCE"].get_ydata(), rtol=1e-6)
    assert (lines["LDAM"].get_ydata() > lines["BCE"].get_ydata()).all()
    labels = [line.get_label() for line in drawn["loss_by_prevalence"].axes[0].get_lines()]
    assert all(label.endswith("(50.0%)") for label in labels)
    alone = compare_runs("alone", {"ZLPR": folders["ZLPR"]}, baseline="ZLPR", resamples=100)
    assert not {"loss_by_method", "loss_by_prevalence"} & set(figures.draw(alone))


def test_what_a_method_changes_besides_its_loss_is_listed(found, planted, tmp_path):
    head = list(tables.settings(found).frame.columns)
    titles = [f"validation {metric.macro_title}" for metric in headline_metrics().values()]
    assert head[3:] == ["learning_rate", "weight_decay", *titles]
    assert dict(tables.protocol(found).pairs)["settings"] == "of every run"
    longer = run_folder(tmp_path / "longer")
    args = parse_arguments(["--loss", "bce", "--sampler", "class_aware", "--num_train_epochs", "60", "--seed", "5"])
    write_text(longer / "config.yaml", yaml.safe_dump(args.to_dict()))
    other = compare_runs("x", {"BCE": planted["BCE"], "Longer": {5: longer}}, baseline="BCE", resamples=100)
    own = tables.settings(other).frame["different from BCE"].tolist()
    assert own == ["–", "num_train_epochs 60.0, sampler class_aware, sampler_kwargs.class_aware_no_finding True"]
    assert "see Settings" in dict(tables.protocol(other).pairs)["settings"]


def test_one_network_for_all_methods_is_no_comparison_of_systems(found):
    assert not found.systems_differ
    assert systems.caution(found) == []
    assert "Systems" not in comparison_document(found).to_markdown()
    assert dict(tables.protocol(found).pairs)["network"] == "1,000 parameters"


@pytest.fixture
def of_systems(planted, tmp_path):
    """The base's Swin beside a SwinCheX that started from a backbone and took fewer epochs."""
    other = run_folder(tmp_path / "swinchex", gain=0.6)
    flags = ["--architecture", "swinchex", "--model_kwargs.embed_dim", "32", "--resize_size", "146"]
    flags += ["--label_smoothing_factor", "0.1", "--num_train_epochs", "12", "--image_size", "128"]
    args = parse_arguments(["--loss", "bce", "--seed", "0", *flags])
    write_text(other / "config.yaml", yaml.safe_dump(args.to_dict()))
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["protocol"]["initial_weights"] = "backbone from a/b"
    metrics["protocol"]["network"] = {"name": "SwinCheX", "architecture": "swinchex", "batch_norm": None}
    metrics["training"] = {"parameters": 1_234_567, "steps": 300, "images_per_second": 52.2}
    write_json(other / "metrics.json", metrics)
    folders = {"BCE": {0: planted["BCE"][0]}, "SwinCheX": {0: other}}
    return compare_runs("systems", folders, baseline="BCE", resamples=100)


def test_systems_are_named_with_their_networks(of_systems):
    assert of_systems.systems_differ
    row = cells(systems.table(of_systems), 1)
    assert [row["network"], row["parameters"], row["image size"]] == ["SwinCheX", "1,234,567", "128"]
    assert [row["options"], row["initial weights"]] == ["embed_dim 32", "backbone from a/b"]
    assert row["training"] == "300 steps, 52 images/s"
    facts = dict(tables.protocol(of_systems).pairs)
    assert facts["network of SwinCheX"] == "SwinCheX, 1.23 M parameters"
    assert facts["initial weights"] == "BCE: random; SwinCheX: backbone from a/b"
    assert "; SwinCheX: 12; best validation auc" in facts["epochs"]
    values = of_systems.to_dict()["methods"]["SwinCheX"]
    assert [values["architecture"], values["parameters"]] == ["swinchex", 1_234_567]
    assert of_systems.records()["architecture"].tolist() == ["swin", "swinchex"]


def test_their_recipes_are_beside_them_and_a_difference_is_of_the_whole(of_systems):
    own = of_systems.own_settings("SwinCheX")
    assert "num_train_epochs 12" in own
    assert "label_smoothing_factor 0.1" in own
    assert not any(key in own for key in ("model_kwargs", "architecture", "image_size"))
    text = " ".join(sentences.cautions(of_systems))
    assert re.search(
        r"Whole systems are compared: .*BCE 0\.001 M, SwinCheX 1\.2 M.* not due to one of these alone", text
    )
    page = comparison_document(of_systems).to_markdown()
    assert page.index("## Systems") < page.index("## Settings")


def test_the_caution_names_only_what_differs(found):
    runs = {method: dict(by_seed) for method, by_seed in found.runs.items()}
    better = runs["Better"][0]

    def caution(**protocol):
        metrics = better.metrics | {"protocol": better.metrics["protocol"] | protocol}
        changed = {"Better": {0: dataclasses.replace(better, metrics=metrics)}}
        return systems.caution(dataclasses.replace(found, runs=runs | changed))

    assert caution() == []
    (weights,) = caution(initial_weights="a folder")
    assert "one network" in weights
    assert "initial weights" in weights
    assert "architecture" not in weights
    assert "Parameters" not in weights


def test_nested_options_are_settings_by_their_dotted_keys(found, planted):
    runs = {method: dict(by_seed) for method, by_seed in found.runs.items()}
    nested = {"loss_kwargs": {"margin": 0.1}, "sampler_kwargs": {"beta": 0.5}}
    better = dataclasses.replace(runs["Better"][0], config=runs["Better"][0].config | nested)
    changed = dataclasses.replace(found, runs=runs | {"Better": {0: better}})
    assert changed.own_settings("Better") == "sampler_kwargs.beta 0.5"
    assert better.settings["loss_kwargs.margin"] == 0.1


def test_the_highest_of_several_is_not_called_the_best(found, planted):
    text = " ".join(sentences.cautions(found))
    assert "BCE only" in text
    assert "luck" in text
    assert "1 of 4" in text
    two = compare_runs("two", {name: planted[name] for name in ("BCE", "Better")}, baseline="BCE", resamples=100)
    assert "tested against BCE only" not in " ".join(sentences.cautions(two))


def test_chance_and_undefined_values_are_different(planted, found, tmp_path):
    guess = {0: run_folder(tmp_path / "guess")}
    path = tmp_path / "guess" / "predictions" / "test.parquet"
    saved = Predictions.load(path)
    dataclasses.replace(saved, logits=np.random.default_rng(5).normal(size=saved.logits.shape)).save(path)
    guessing = compare_runs("x", {"BCE": planted["BCE"], "Guess": guess}, baseline="BCE", resamples=200)
    conclusions = sentences.conclusions(guessing)
    assert re.search(r"macro AUC .*Guess .*0\.5", conclusions[0]), "before the sentences on which method is better"
    assert re.search(r"differ from BCE .*1 comparison\).*Guess .*higher in 0 of 1 seed\)", conclusions[1])
    auc = found.test.figures["auc"]
    bce = dataclasses.replace(auc["BCE"].overall, low=math.nan, high=math.nan)
    auc = auc | {"BCE": dataclasses.replace(auc["BCE"], overall=bce)}
    test = dataclasses.replace(found.test, figures=found.test.figures | {"auc": auc})
    unknown = sentences.conclusions(dataclasses.replace(found, test=test))
    assert not any("better than chance" in sentence for sentence in unknown)


def test_tiers_are_shown_with_their_intervals(found):
    tail = found.test.figures["auc"]["BCE"].groups["tail"]
    table = tables.by_tier(found)
    (row,) = [n for n, (method, tier, *_) in enumerate(table.rows) if (method, tier) == ("BCE", "tail")]
    assert cells(table, row)["macro AUC ± sd"] == f"{tail.mean:.3f} ± {tail.sd:.3f}"
    assert cells(table, row)["macro AUC\n95 % interval"] == f"{tail.low:.3f}–{tail.high:.3f}"
    assert tail.low < tail.mean < tail.high


def test_unequal_steps_are_a_caution_and_equal_ones_none(found):
    assert not any("optimizer steps" in caution for caution in sentences.cautions(found))
    runs = {method: dict(by_seed) for method, by_seed in found.runs.items()}
    for count, (method, by_seed) in enumerate(runs.items()):
        training = {"parameters": 1000, "steps": 500 + 100 * count}
        runs[method] = {
            s: dataclasses.replace(run, metrics=run.metrics | {"training": training}) for s, run in by_seed.items()
        }
    text = " ".join(sentences.cautions(dataclasses.replace(found, runs=runs)))
    assert "(BCE 500, Same_&_50% 600, Better 700)" in text


def test_synthetic_images_few_patients_and_failed_runs_are_cautions(found, tmp_path):
    few = compare_runs("x", {"BCE": {0: run_folder(tmp_path / "a", images=60)}}, baseline="BCE", resamples=100)
    first = few.first("BCE")
    protocol = first.metrics["protocol"] | {"synthetic": True, "missing_images": {"test": 3}}
    metrics = first.metrics | {"protocol": protocol}
    runs = {"BCE": {0: dataclasses.replace(first, metrics=metrics)}}
    text = " ".join(sentences.cautions(dataclasses.replace(few, runs=runs)))
    for words in ("synthetic phantoms", "3 in test", "Fewer than 20 test patients", "Not a medical device"):
        assert words in text, words
        assert words not in " ".join(sentences.cautions(found)) or words == "Not a medical device"


def test_every_tested_tier_has_its_sentence_for_every_metric(found):
    conclusions = sentences.tier_conclusions(found)
    assert found.tested_tiers()
    for tier in found.tested_tiers():
        assert sum(sentence.startswith(f"On {tier} findings by") for sentence in conclusions) == len(
            headline_metrics()
        )


def test_a_tier_of_a_handful_of_patients_is_not_tested(planted, monkeypatch):
    monkeypatch.setattr(results, "LEAST_IN_TIER", 10**6)
    few = compare_runs("few", planted, baseline="BCE", resamples=100)
    assert few.tested_tiers() == []
    assert "Not tested" in " ".join(sentences.conclusions(few))
    assert few.to_dict()["methods"]["Better"]["auc"]["tier_differences"] == {}
    assert "head, medium and tail" not in comparison_document(few).to_markdown()


def test_differences_within_tiers_have_their_own_correction(found, planted):
    table = tables.differences_by_tier(found)
    assert len(table.rows) == (len(found.runs) - 1) * len(found.tiers)
    last = cells(table, -1)
    within = found.test.figures["auc"][last["minus BCE"]].group_differences[last["tier"]]
    assert last["macro AUC\ndifference (interval)"].startswith(f"{within.value:+.3f}")
    more = compare_runs("more", planted, baseline="BCE", resamples=600)
    text = " ".join(sentences.tier_conclusions(more))
    differs = [
        (name, tier)
        for by_method in more.test.figures.values()
        for name, figures in by_method.items()
        for tier, difference in figures.group_differences.items()
        if difference.p_corrected < 0.05
    ]
    assert differs, "the planted comparison should have a difference"
    assert all(f"On {tier} findings" in text and name in text for name, tier in differs)


def test_method_names_are_shown_literally_in_markdown(planted):
    folders = {"BCE": planted["BCE"], "a|b *c*": planted["BCE"]}
    text = comparison_document(compare_runs("x_ <b>", folders, baseline="BCE", resamples=100)).to_markdown()
    assert text.startswith("# x\\_ \\<b\\>: comparison\n")
    rows = [line for line in text.splitlines() if line.startswith("| a")]
    assert rows
    assert all(row.startswith("| a\\|b \\*c\\* |") for row in rows)
    assert "*c*" not in text


# Rows that are only a file of predictions


@pytest.fixture
def theirs(planted, tmp_path):
    """Another program's CSV: the better method's first run, in another order."""
    test = Predictions.load(planted["Better"][0] / "predictions" / "test.parquet")
    frame = pd.DataFrame(test.probabilities, columns=NIH14).assign(path=[f"/x/{one}.png" for one in test.image_ids])
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "theirs.csv", index=False)
    return tmp_path / "theirs.csv"


def test_a_file_is_measured_like_the_run_it_is_of(planted, theirs):
    runs = {name: {0: by_seed[0]} for name, by_seed in planted.items()}
    files = {"Theirs": ScoreFile(theirs)}
    both = compare_runs("both", runs, baseline="BCE", resamples=200, files=files)
    for key in headline_metrics():
        own, file = both.metric(key)["Better"], both.metric(key)["Theirs"]
        np.testing.assert_allclose(file.finding_C, own.finding_C, rtol=0, atol=1e-6)
        assert file.difference.value == pytest.approx(own.difference.value, abs=1e-6)
        assert file.difference.by_seed == {}
        assert own.difference.by_seed
    document = comparison_document(both)
    page = document.to_markdown()
    assert "Theirs was not trained here: its scores were read from theirs.csv" in page
    assert "3 methods and 1 not trained here, 3 runs" in page
    assert "higher in – seeds" not in page
    row = next(row for row in tables.methods(both).rows if row[0] == "Theirs")
    assert row[1] == "file"
    assert json.loads(document.to_json())["methods"]["Theirs"]["predictions"] == str(theirs)
    assert set(figures.draw(both)) >= {"differences", "roc"}
    # It is one more comparison to correct for
    alone = compare_runs("alone", runs, baseline="BCE", resamples=200)
    assert both.compared("auc")["Better"].p_corrected > alone.compared("auc")["Better"].p_corrected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame[5:], "Theirs: .*theirs.csv has no score of 5 of the 240 test images"),
        (lambda frame: frame.drop(columns="Hernia"), "Theirs: .*theirs.csv has no score of Hernia"),
        (lambda frame: frame.assign(Mass=2.0), "column 'Mass' is 2 .*outside"),
    ],
)
def test_files_that_cannot_stand_beside_the_runs_are_refused(planted, theirs, change, message):
    change(pd.read_csv(theirs)).to_csv(theirs, index=False)
    with pytest.raises(ValueError, match=message):
        compare_runs("both", planted, baseline="BCE", resamples=200, files={"Theirs": ScoreFile(theirs)})


def test_a_run_with_other_labels_is_refused_as_a_row(planted, tmp_path):
    other = run_folder(tmp_path / "other", gain=0.6)
    path = other / "predictions" / "test.parquet"
    test = Predictions.load(path)
    dataclasses.replace(test, labels=1 - test.labels).save(path)
    with pytest.raises(ValueError, match="3,360 labels of the same images differ"):
        compare_runs("both", planted, baseline="BCE", resamples=200, files={"Other": ScoreFile(other)})
