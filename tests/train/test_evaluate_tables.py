"""`hf-cxr evaluate --predictions`: what it writes, which folders and labels it takes, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from hf_cxr import Predictions
from hf_cxr.commands import main
from hf_cxr.evaluation import evaluate_predictions
from hf_cxr.labels import NIH14

NAMES = ("Mass", "Nodule", "Edema")
PHANTOMS = ["--phantom_train", "20", "--phantom_validation", "16", "--phantom_test", "24", "--phantom_size", "32"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files():
    """Scores and labels of test and of validation, in one table of labels; two systems."""
    rng = np.random.default_rng(0)
    label_NC = rng.integers(0, 2, (60, 3))
    ids = [f"{row}.png" for row in range(60)]
    patients = [f"p{row // 2}" for row in range(60)]
    pd.DataFrame(dict(zip(NAMES, label_NC.T, strict=True)) | {"image": ids, "patient": patients}).to_csv(
        "labels.csv", index=False
    )
    for name, noise in (("good", 0.5), ("poor", 3.0)):
        prob_NC = 1 / (1 + np.exp(-(label_NC - 0.5 + noise * rng.normal(size=(60, 3)))))
        table = pd.DataFrame(dict(zip(NAMES, prob_NC.T, strict=True)) | {"path": [f"/x/{one}" for one in ids]})
        table[:40].to_csv(f"{name}_test.csv", index=False)
        table[40:].to_csv(f"{name}_validation.csv", index=False)
    pd.read_csv("labels.csv")[:40].to_csv("test_labels.csv", index=False)


def evaluate(*words):
    try:
        return main(["evaluate", *map(str, words), "--bootstrap_resamples", "30"])
    except SystemExit as stopped:  # of argparse
        return stopped.code


def figures(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_scores_and_labels_become_an_evaluation(files, tmp_path, capsys):
    words = ["--predictions", "good_test.csv", "--labels", "test_labels.csv", "--out", "out"]
    assert evaluate(*words) == 0
    printed = capsys.readouterr().out
    assert "out/evaluation.html" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "analysis.json",
        "evaluation.html",
        "evaluation.json",
        "predictions.parquet",
    }
    written = figures(tmp_path / "out")
    assert written["dataset"] == "test_labels.csv"
    assert written["scores"] == "probabilities: all are in [0, 1]"
    assert written["ids_matched_by"] == "file name"
    saved = Predictions.load("out/predictions.parquet")
    by_hand = evaluate_predictions(
        pd.read_csv("good_test.csv")[list(NAMES)].to_numpy(), saved.labels, saved.patient_ids, resamples=30, seed=42
    )
    assert written["all"]["auc"]["macro"] == by_hand.measured["all"]["auc"].macro
    assert written["all"]["auc"]["macro_low"] == by_hand.measured["all"]["auc"].macro_low
    # What was written can be measured again, and stands where it stood
    assert evaluate("--predictions", "out", "--seed", "42") == 0
    assert f"macro AUC {written['all']['auc']['macro']:.3f}" in capsys.readouterr().out
    assert evaluate(*words) == 0
    assert evaluate("--predictions", "poor_test.csv", *words[2:]) == 2
    assert "contains the figures of another evaluation" in capsys.readouterr().err


def test_validation_scores_come_from_the_same_table_or_their_own(files, tmp_path, capsys):
    words = ["--predictions", "good_test.csv", "--validation", "good_validation.csv"]
    assert evaluate(*words, "--labels", "labels.csv", "--out", "out") == 0
    validation = Predictions.load("out/validation_predictions.parquet")
    assert (len(validation), validation.split, validation.label_names) == (20, "validation", NAMES)
    pd.read_csv("labels.csv")[40:].to_csv("validation_labels.csv", index=False)
    both = ["--labels", "test_labels.csv", "--validation_labels", "validation_labels.csv"]
    assert evaluate(*words, *both) == 0
    capsys.readouterr()
    assert evaluate("--predictions", "good_test.csv", "--labels", "labels.csv") == 2
    assert "20 of 60 images of labels.csv have no score" in capsys.readouterr().err
    table = pd.read_csv("labels.csv")
    table.assign(patient=["p0" if row == 50 else one for row, one in enumerate(table["patient"])]).to_csv(
        "labels.csv", index=False
    )
    assert evaluate(*words, "--labels", "labels.csv") == 2
    assert "1 patients are in the validation scores and in the test scores, such as p0" in capsys.readouterr().err


def test_two_systems_are_compared_on_what_both_have(files, tmp_path, capsys):
    pd.read_csv("poor_test.csv").drop(columns="Edema")[5:].to_csv("poor_test.csv", index=False)
    words = ["--predictions", "good_test.csv", "--labels", "test_labels.csv", "--against", "poor_test.csv"]
    assert evaluate(*words, "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "good_test.csv minus poor_test.csv" in printed
    paired = json.loads((tmp_path / "out" / "analysis.json").read_text())["paired"]
    assert (paired["images"], paired["label_names"]) == (35, ["Mass", "Nodule"])
    assert paired["left_out"]["images of the first"] == 5
    assert paired["left_out"]["findings of the first"] == ["Edema"]
    assert paired["metrics"]["auc"]["macro"]["difference"] > 0
    assert "minus poor_test.csv" in (tmp_path / "out" / "evaluation.html").read_text()
    assert evaluate(*words[:4], "--out", "out") == 0  # the same without the second system: nothing of it stays
    assert [path.name for path in (tmp_path / "out").rglob("pair*")] == []
    assert "minus poor_test.csv" not in (tmp_path / "out" / "evaluation.html").read_text()


def test_a_second_system_with_other_labels_is_refused(files, capsys):
    assert evaluate("--predictions", "poor_test.csv", "--labels", "test_labels.csv", "--out", "poor") == 0
    words = ["--predictions", "good_test.csv", "--labels", "test_labels.csv", "--against", "poor"]
    assert evaluate(*words) == 0
    table = pd.read_csv("test_labels.csv")
    table.assign(Mass=[1 - table["Mass"][0], *table["Mass"][1:]]).to_csv("test_labels.csv", index=False)
    capsys.readouterr()
    assert evaluate(*words) == 2
    assert (
        "1 labels of the same images differ in poor/predictions.parquet, such as Mass of 0.png"
        in capsys.readouterr().err
    )


def run_folder(folder, image_ids):
    """A run as far as its predictions go."""
    rng = np.random.default_rng(0)
    for split, ids in image_ids.items():
        Predictions(
            logits=rng.normal(size=(len(ids), 14)),
            labels=rng.integers(0, 2, (len(ids), 14)),
            image_ids=ids,
            patient_ids=[f"{split}{row // 2}" for row in range(len(ids))],
            label_names=NIH14,
            split=split,
            metadata={"split": "f" * 64},
        ).save(folder / "predictions" / f"{split}.parquet")
    protocol = {"dataset": "phantoms", "synthetic": True, "split_fingerprint": "f" * 64}
    (folder / "metrics.json").write_text(json.dumps({"protocol": protocol}))
    (folder / "config.yaml").write_text("seed: 7\nconfidence: 0.9\n")
    return folder


def test_a_run_is_measured_from_its_predictions(tmp_path, capsys):
    run = run_folder(tmp_path / "run", {split: [f"{split}{n}" for n in range(20)] for split in ("validation", "test")})
    assert evaluate("--predictions", "run", "--out", "out") == 0
    printed = capsys.readouterr().out
    assert "synthetic phantoms" in printed
    written = figures(tmp_path / "out")
    assert (written["dataset"], written["synthetic"], written["confidence"]) == ("phantoms", True, 0.9)
    assert "seed 7" in written["method"]
    assert len(Predictions.load("out/validation_predictions.parquet")) == 20
    test = Predictions.load("run/predictions/test.parquet")
    np.testing.assert_array_equal(Predictions.load("out/predictions.parquet").logits, test.logits)
    assert evaluate("--predictions", "run", "--split", "validation") == 0
    assert "20 validation images" in capsys.readouterr().out
    assert evaluate("--predictions", "run/predictions/validation.parquet", "--split", "test") == 2
    assert "has predictions of validation, not of test" in capsys.readouterr().err
    assert evaluate("--predictions", run / "predictions" / "validation.parquet") == 0
    printed = capsys.readouterr().out
    assert "20 validation images" in printed
    assert "synthetic phantoms" in printed
    assert evaluate("--predictions", "run", "--split", "train") == 2
    assert "without predictions of train" in capsys.readouterr().err


def test_a_run_measured_from_its_predictions_keeps_the_origin_of_its_weights(tmp_path, capsys):
    run = run_folder(tmp_path / "run", {"test": [f"test{n}" for n in range(20)]})
    origin = {"kind": "converted", "source": "a lab's file", "licence": "CC BY-NC 4.0", "saw_test_images": "yes"}
    (run / "config.json").write_text(json.dumps({"hf_cxr": {"weights_origin": origin}}))
    caution = "(a lab's file) were trained with images of ChestX-ray14's official test list"
    for number, place in enumerate(("run", "run/predictions/test.parquet", "out0")):  # out0: an evaluation of it
        assert evaluate("--predictions", place, "--out", f"out{number}") == 0
        assert caution in " ".join(capsys.readouterr().out.split())
        assert figures(tmp_path / f"out{number}")["weights_origin"] == origin
    (run / "config.json").write_text(json.dumps({"hf_cxr": {"weights_origin": origin | {"saw_test_images": "x"}}}))
    assert evaluate("--predictions", "run") == 2
    assert "weights_origin.saw_test_images" in capsys.readouterr().err


def test_the_labels_may_be_those_of_a_dataset(tmp_path, capsys):
    from hf_cxr.data import load_phantom

    splits = load_phantom(train=20, validation=16, test=24, size=32)
    run = run_folder(tmp_path / "run", {"test": splits["test"]["image_id"][:]})
    assert evaluate("--predictions", run, "--dataset", "phantom", *PHANTOMS, "--out", "out") == 0
    assert "synthetic phantoms" in capsys.readouterr().out
    measured = Predictions.load("out/predictions.parquet")
    assert measured.image_ids == tuple(splits["test"]["image_id"][:])
    np.testing.assert_array_equal(measured.labels, np.array(splits["test"]["labels"][:]))
    assert evaluate("--predictions", run, *PHANTOMS[:-4], "--phantom_test", "30", "--phantom_size", "32") == 2
    assert "have no score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to measure: --model RUN_OR_HUB_ID, or --predictions FILE"),
        (["--labels", "l.csv"], "--labels goes with --predictions"),
        (["--predictons", "s.csv"], "did you mean --predictions?"),
        (["--predictions", "good_test.csv", "--lables", "l.csv"], "did you mean --labels?"),
        (["--predictions", "good_test.csv", "--model", "run"], "not both"),
        (["--model", "run", "--shared"], "--shared goes with --predictions"),
        (["--predictions", "good_test.csv"], "has scores and no labels"),
        (["--predictions", "good_test.csv", "--labels", "test_labels.csv", "--dataset", "phantom"], "given twice"),
        (["--predictions", "good_test.csv", "--labels", "l.csv", "--validation_labels", "l.csv"], "goes with --valid"),
        (["--predictions", "good_test.csv", "--labels", "l.csv", "--against_scores", "logits"], "goes with --against"),
        (["--predictions", "good_test.csv", "--labels", "l.csv", "--confidence", "2"], "between 0 and 1"),
        (["--predictions", "gone.csv", "--labels", "test_labels.csv"], "no file gone.csv"),
        (["--predictions", ".", "--labels", "test_labels.csv"], "is a folder without predictions of test"),
        (["--predictions", "one.csv", "--labels", "one_label.csv"], "1 images of 1 patient"),
        (["--predictions", "good_test.csv", "--labels", "one_patient.csv"], "40 images of 1 patient"),
    ],
)
def test_bad_words_and_files_are_one_line(files, capsys, words, message):
    pd.read_csv("good_test.csv")[:1].to_csv("one.csv", index=False)
    pd.read_csv("test_labels.csv")[:1].to_csv("one_label.csv", index=False)
    pd.read_csv("test_labels.csv").assign(patient="p").to_csv("one_patient.csv", index=False)
    assert evaluate(*words) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hf-cxr")]
    assert message in line


def test_a_finding_absent_everywhere_is_named(files, capsys):
    pd.read_csv("test_labels.csv").assign(Edema=0).to_csv("test_labels.csv", index=False)
    assert evaluate("--predictions", "good_test.csv", "--labels", "test_labels.csv") == 0
    assert "left out of the macro mean: Edema" in " ".join(capsys.readouterr().out.split())


def test_the_kind_of_interval_is_chosen_for_the_metrics(files, tmp_path):
    words = ["--predictions", "good_test.csv", "--labels", "test_labels.csv"]
    assert evaluate(*words, "--out", "plain") == 0
    assert evaluate(*words, "--interval", "bca", "--out", "bca") == 0
    plain, bca = (figures(tmp_path / name) for name in ("plain", "bca"))
    assert "BCa" in bca["method"]
    assert bca["all"]["auc"]["value"] == plain["all"]["auc"]["value"]
    assert bca["all"]["auc"]["low"] != plain["all"]["auc"]["low"]


def test_studies_are_measured_in_place_of_images(files, tmp_path, capsys):
    table = pd.read_csv("labels.csv").assign(study=[f"s{row // 2}" for row in range(60)])
    table.to_csv("labels.csv", index=False)
    table[:40].to_csv("test_labels.csv", index=False)
    words = ["--predictions", "good_test.csv", "--labels", "labels.csv", "--by", "study"]
    both = ["--validation", "good_validation.csv", "--against", "poor_test.csv", "--out", "studies"]
    assert evaluate(*words, *both) == 0
    printed = capsys.readouterr().out
    assert "20 test studies of 20 patients" in printed
    values = figures(tmp_path / "studies")
    assert (values["unit"], values["by"], values["images averaged"]) == ("study", "study, mean", 40)
    saved = Predictions.load(tmp_path / "studies" / "predictions.parquet")
    scores = pd.read_csv("good_test.csv")
    reference = scores.groupby(table["study"][:40], sort=False)[list(NAMES)].mean()
    np.testing.assert_allclose(saved.probabilities, reference.to_numpy(), rtol=1e-12)
    expected = table[:40].groupby("study", sort=False)[list(NAMES)].max()
    np.testing.assert_array_equal(saved.labels, expected.to_numpy())
    auc = [roc_auc_score(expected[name], reference[name]) for name in NAMES]
    assert values["all"]["auc"]["macro"] == pytest.approx(np.mean(auc))
    page = (tmp_path / "studies" / "evaluation.html").read_text()
    assert "20 studies of 20 patients" in page
    analysis = json.loads((tmp_path / "studies" / "analysis.json").read_text())
    assert analysis["paired"]["images"] == 20  # rows: studies
    assert "operating_points" in analysis  # chosen on validation studies
    assert evaluate("--predictions", "studies", "--out", "again") == 0  # the file itself says that it is of studies
    assert "a study's score is the mean probability of its images" in " ".join(capsys.readouterr().out.split())
    again = figures(tmp_path / "again")
    assert (again["by"], again["score of a study"]) == (values["by"], values["score of a study"])
    assert again["all"] == values["all"]
    mixed = ["--validation", "good_validation.csv", "--validation_labels", "labels.csv"]
    assert evaluate("--predictions", "studies", *mixed, "--shared") == 2
    assert "test scores are of studies and the validation scores of images" in capsys.readouterr().err
    assert evaluate(*words[:-2], "--out", "studies") == 2  # figures of images do not replace those of studies
    assert "by was study, mean and is None" in capsys.readouterr().err
    assert evaluate(*words, "--study_score", "median") == 2
    assert evaluate(*words[:-2], "--study_score", "max") == 2
    assert evaluate("--predictions", "good_test.csv", "--labels", "test_labels.csv", "--by", "study") == 0
    assert "No operating points: thresholds of images" in capsys.readouterr().out


def test_data_without_studies_are_refused_in_one_line(files, capsys):
    assert evaluate("--predictions", "good_test.csv", "--labels", "test_labels.csv", "--by", "study") == 2
    assert "--by study needs the study of each image" in capsys.readouterr().err
