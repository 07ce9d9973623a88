"""The prevalences of a copy: read from YAML or estimated from predictions; the record and the card that say so."""

import numpy as np
import pytest
from scipy.special import expit, logit

from hf_cxr.evaluation import Calibration
from hf_cxr.labels import LabelSpace
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.run.prevalence import ShiftedModel, assumed_prevalence, shifted_card, shifted_points, shifted_record
from hf_cxr.run.target_prevalence import Target, estimate_target, read_target

NAMES = LabelSpace(("Effusion", "Mass", "Hernia"), aliases={"Pleural Effusion": "Effusion"})
SOURCE_C = np.array([0.1, 0.05, np.nan])
RECORD = ModelRecord(
    calibration=Calibration([2.0, 1.0, 1.0], [0.5, 0.0, 0.0], ("affine",) * 3, NAMES, ("",) * 3).to_dict(),
    prevalence={"Effusion": 0.1, "Mass": 0.05},
    operating_points={"Effusion": {"threshold": 0.2, "rule": "f1"}, "Mass": {"threshold": 0.1}, "Hernia": None},
    conformal={
        "coverage": 0.9,
        "findings": {
            name: {"present_from": start, "absent_to": 6 * start, "positive_patients": 50, "negative_patients": 70}
            for name, start in (("Hernia", 0.02), ("Mass", 0.05), ("Effusion", 0.1))  # in another order than NAMES
        },
    },
)


def predictions(path, rng, n=3_000, target=0.3, **metadata):
    """Of a model calibrated for prevalences of 0.1 and 0.05, on a population where Effusion has ``target``."""
    label_NC = rng.random((n, 3)) < np.array([target, 0.05, 0.5])
    logit_NC = 2 * (rng.normal(size=(n, 3)) + 2 * label_NC) - 2 + logit(np.array([0.1, 0.05, 0.5]))
    labels = np.full((n, 3), np.nan)
    ids = [f"image {i}" for i in range(n)]
    patients = [f"patient {i // 2}" for i in range(n)]
    Predictions(logit_NC, labels, ids, patients, tuple(NAMES), metadata=metadata).save(path)
    return logit_NC


def test_prevalences_are_read_by_any_name_of_a_finding(tmp_path):
    path = tmp_path / "prevalence.yaml"
    path.write_text("pleural effusion: 0.3\nhernia: 2e-3\n")
    assert read_target(path, NAMES) == Target({"Effusion": 0.3, "Hernia": 0.002}, "given")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Efusion: 0.3", "unknown finding 'Efusion'; did you mean Effusion"),
        ("Effusion: 30", "Effusion is 30; a prevalence is a share above 0 and below 1; for 3 % write 0.03"),
        ("Effusion: 0", "above 0 and below 1"),
        ("Effusion: .nan", "above 0 and below 1"),
        ("Effusion: true", "above 0 and below 1"),
        ("Effusion: high", "Effusion is 'high'"),
        ("Effusion: 0.1\nPleural Effusion: 0.2", "Effusion is given twice"),
        ("- Effusion", "must have a line for each finding"),
        ("", "must have a line for each finding"),
        ("a: b: c", "not a YAML file"),
    ],
)
def test_other_prevalences_are_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "prevalence.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_target(path, NAMES)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_prevalences_are_estimated_from_either_file_of_predictions(tmp_path):
    logit_NC = predictions(tmp_path / "p.parquet", np.random.default_rng(0), calibrated=True)
    target = estimate_target(tmp_path / "p.parquet", NAMES, SOURCE_C, "0" * 64)
    assert (target.method, target.images) == ("estimated", 3_000)
    low, high = target.intervals["Effusion"]
    assert low < 0.3 < high
    assert target.intervals["Mass"][0] < 0.05 < target.intervals["Mass"][1]
    assert set(target.not_estimated) == {"Hernia"}
    rows = [",".join(["a.png", *(f"{p:.6f}" for p in row)]) for row in expit(logit_NC)[:, ::-1]]
    (tmp_path / "p.csv").write_text("\n".join(["image,hernia,Mass,effusion", *rows]))
    from_csv = estimate_target(tmp_path / "p.csv", NAMES, SOURCE_C, "0" * 64)
    assert from_csv.prevalence == pytest.approx(target.prevalence, rel=1e-3)


def test_predictions_that_are_not_this_models_are_refused(tmp_path):
    path, rng = tmp_path / "p.parquet", np.random.default_rng(0)
    for metadata, message in (
        ({"calibrated": True, "measured": {"model_sha256": "1" * 64}}, "predictions of another model"),
        ({"calibrated": False}, "has uncalibrated predictions"),
        ({}, "has uncalibrated predictions"),
    ):
        predictions(path, rng, 20, **metadata)
        with pytest.raises(ValueError, match=message):
            estimate_target(path, NAMES, SOURCE_C, "0" * 64)
    csv = tmp_path / "p.csv"
    for text, message in (
        ("image,Effusion,Mass\na,0.1,0.2", "has no Hernia"),
        ("image,Effusion,Mass,Hernia\na,0.1,0.2,0.1\nb,0.1,,0.2", "row 2 has no probability between 0 and 1 for Mass"),
        ("image,Effusion,Mass,Hernia\na,-3.1,0.2,0.1", "row 1 has no probability between 0 and 1 for Effusion"),
        ("image,Effusion,Mass,Hernia\n", "no finding's prevalence can be estimated; Effusion: no image"),
    ):
        csv.write_text(text)
        with pytest.raises(ValueError, match=message):
            estimate_target(csv, NAMES, SOURCE_C, "0" * 64)
    with pytest.raises(FileNotFoundError, match="no predictions file"):
        estimate_target(tmp_path / "none.csv", NAMES, SOURCE_C, "0" * 64)


def test_a_model_that_assumes_no_prevalence_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not calibrated"):
        assumed_prevalence(tmp_path, ModelRecord(), NAMES)
    with pytest.raises(ValueError, match="does not say which prevalence"):
        assumed_prevalence(tmp_path, ModelRecord(calibration=RECORD.calibration), NAMES)
    np.testing.assert_array_equal(assumed_prevalence(tmp_path, RECORD, NAMES), SOURCE_C)


def test_the_record_moves_calibration_prevalence_and_thresholds_together():
    target = Target({"Effusion": 0.4}, "given")
    shifted = shifted_record(RECORD, NAMES, SOURCE_C, np.array([0.4, np.nan, np.nan]), target, "0" * 64)
    bias = logit(0.4) - logit(0.1)
    assert shifted.calibration["intercept"] == pytest.approx([0.5 + bias, 0.0, 0.0])
    assert shifted.calibration["slope"] == [2.0, 1.0, 1.0]
    assert shifted.prevalence == {"Effusion": 0.4, "Mass": 0.05}
    assert shifted.operating_points["Effusion"] == {"threshold": pytest.approx(expit(logit(0.2) + bias)), "rule": "f1"}
    assert shifted.operating_points["Mass"] == {"threshold": 0.1}
    sets = shifted.conformal["findings"]
    assert sets["Effusion"]["present_from"] == pytest.approx(expit(logit(0.1) + bias))
    assert sets["Hernia"]["present_from"] == pytest.approx(0.02)
    assert sets["Mass"]["absent_to"] == pytest.approx(0.3)
    assert shifted.operating_points["Hernia"] is None
    assert shifted.prevalence_shift["findings"]["Effusion"] == pytest.approx(
        {"source": 0.1, "target": 0.4, "bias": bias}
    )
    assert RECORD.prevalence == {"Effusion": 0.1, "Mass": 0.05}


def test_a_copy_of_a_copy_says_what_was_done_since_the_run():
    once = shifted_record(
        RECORD,
        NAMES,
        SOURCE_C,
        np.array([0.4, 0.2, np.nan]),
        Target({"Effusion": 0.4, "Mass": 0.2}, "given"),
        "0" * 64,
    )
    source_C = np.array([0.4, 0.2, np.nan])
    twice = shifted_record(
        once, NAMES, source_C, np.array([0.1, np.nan, np.nan]), Target({"Effusion": 0.1}, "given"), "1"
    )
    assert twice.prevalence_shift["findings"]["Effusion"] == pytest.approx({"source": 0.1, "target": 0.1, "bias": 0.0})
    assert twice.prevalence_shift["findings"]["Mass"] == once.prevalence_shift["findings"]["Mass"]
    assert twice.calibration["intercept"] == pytest.approx([0.5, once.calibration["intercept"][1], 0.0])
    assert twice.operating_points["Effusion"]["threshold"] == pytest.approx(0.2)


def test_a_threshold_calls_the_same_images():
    rng = np.random.default_rng(1)
    logit_N = rng.normal(size=1_000)
    for threshold in (0.0, 1e-6, 0.3, 1.0):
        moved = shifted_points({"Mass": threshold}, {"Mass": -1.3})["Mass"]
        np.testing.assert_array_equal(expit(logit_N - 1.3) >= moved, expit(logit_N) >= threshold)
    assert shifted_points(None, {}) is None


def test_the_card_says_it_below_its_title_and_loads_the_copy(tmp_path):
    done = ShiftedModel({"Mass": 0.05}, Target({"Mass": 0.2}, "given"), ModelRecord())
    card = tmp_path / "README.md"
    links = "[report.html](report.html) ![ROC](figures/roc_test.png) [a page](https://example.org)"
    top = "---\nlibrary_name: transformers\n---\n\n# run_1\n\ntext\n\n"
    card.write_text(f'{top}pipeline(model="you/name")\n\n{links}\n')
    text = shifted_card(card, done)
    assert "`report.html` of the model before ![ROC](figures/roc_test.png) [a page](https://example.org)" in text
    assert text.startswith("---\nlibrary_name: transformers\n---\n\n# run_1\n\n- **This is a copy")
    assert 'pipeline(model=".")' in text
    assert "| Mass | 5.0 % | 20.0 % | +1.558 |" in text
    assert text.index("20.0 %") < text.index("text")
    assert "20.0 %" in shifted_card(tmp_path / "none.md", done)
