"""Ensembles: the mean of probabilities, calibrated and measured as one model; members of other splits are refused."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import logit

from hf_cxr.commands import main
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.metrics import roc_auc
from hf_cxr.predictions import Predictions
from hf_cxr.run.ensemble import average, build_ensemble

NAMES = ("Mass", "Nodule", "Hernia")
FIGURES = {"intervals": Intervals(resamples=50)}


def labels_of(n_images=300, seed=0):
    rng = np.random.default_rng(seed)
    label_NC = (rng.random((n_images, 3)) < [0.4, 0.3, 0.2]).astype(np.float32)
    label_NC[rng.random((n_images, 3)) < 0.1] = np.nan
    return label_NC


def member(seed, split="test", *, fingerprint="abc", **changes):
    """Predictions with noise of their own around the labels."""
    label_NC = labels_of(seed={"test": 0, "validation": 1}[split])
    noise_NC = np.random.default_rng([seed, len(split)]).normal(size=label_NC.shape)
    values = {
        "logits": 1.5 * np.nan_to_num(label_NC, nan=0.5) - 2 + 1.5 * noise_NC,
        "labels": label_NC,
        "image_ids": [f"{split}{i}" for i in range(len(label_NC))],
        "patient_ids": [f"p{i // 2}" for i in range(len(label_NC))],
        "label_names": NAMES,
        "split": split,
        "metadata": {"split": fingerprint, "calibrated": True},
    }
    return Predictions(**(values | changes))


def pair(seed, **changes):
    return member(seed, "validation", **changes), member(seed, "test", **changes)


def test_average_is_the_mean_of_probabilities():
    members = [member(seed) for seed in range(3)]
    expected = np.mean([one.probabilities for one in members], axis=0)
    np.testing.assert_allclose(average(members, "abc").probabilities, expected, rtol=1e-5)
    alone = average(members[:1] * 2, "ab")
    np.testing.assert_allclose(alone.logits, members[0].logits, rtol=1e-5, atol=1e-6)


def test_average_of_extremes_is_finite():
    one, two = (member(0, logits=np.full((300, 3), value)) for value in (500.0, 400.0))
    assert (average([one, two], "ab").logits > 399).all()
    mixed = average([one, member(0, logits=np.full((300, 3), -500.0))], "ab")
    np.testing.assert_allclose(mixed.logits, logit(0.5), atol=1e-9)


def test_members_with_errors_of_their_own_are_better_together():
    ensemble = build_ensemble({str(seed): pair(seed) for seed in range(4)}, **FIGURES)
    alone = [np.nanmean(roc_auc(member(seed).logits, member(seed).labels)) for seed in range(4)]
    assert ensemble.test_report.measured["all"]["auc"].macro > max(alone) + 0.02
    for seed in range(4):
        difference = ensemble.differences[str(seed)]
        assert difference.measured["auc"].macro == pytest.approx(
            ensemble.test_report.measured["all"]["auc"].macro - alone[seed]
        )
        value, low, high = difference.measured["auc"].macro_interval
        assert 0 < low < value < high


def test_average_is_calibrated_again_on_validation_alone():
    members = {str(seed): pair(seed) for seed in range(4)}
    ensemble = build_ensemble(members, **FIGURES)
    gap_C = ensemble.validation.probabilities.mean(axis=0, where=~np.isnan(ensemble.validation.labels))
    np.testing.assert_allclose(gap_C, np.nanmean(ensemble.validation.labels, axis=0), atol=0.01)
    assert (ensemble.calibration.slope_C > 1.05).all()  # the mean of probabilities is too near the middle
    other = {name: (one, dataclasses.replace(two, labels=1 - two.labels)) for name, (one, two) in members.items()}
    turned = build_ensemble(other, **FIGURES)
    np.testing.assert_array_equal(turned.calibration.slope_C, ensemble.calibration.slope_C)
    plain = build_ensemble(members, calibrate=False, **FIGURES)
    expected = np.mean([member(seed).probabilities for seed in range(4)], axis=0)
    np.testing.assert_allclose(plain.test.probabilities, expected, rtol=1e-5)
    assert (plain.calibration, plain.test.metadata["calibrated"]) == (None, False)
    assert "its validation figures are optimistic" in ensemble.to_dict()["calibrated_on"]
    assert plain.to_dict()["calibrated_on"] is None


def test_member_without_calibration_gets_one_first():
    raw = tuple(dataclasses.replace(one, logits=0.1 * one.logits + 3, metadata={"split": "abc"}) for one in pair(0))
    sharp = {"a": pair(0), "b": pair(1)}
    ensemble = build_ensemble({"a": raw, "b": pair(1)}, **FIGURES)
    same = build_ensemble(sharp, **FIGURES).test_report.measured["all"]["auc"].macro
    assert ensemble.test_report.measured["all"]["auc"].macro == pytest.approx(same, abs=0.01)
    unheeded = (
        build_ensemble({"a": raw, "b": pair(1)}, calibrate=False, **FIGURES).test_report.measured["all"]["auc"].macro
    )
    assert unheeded < same - 0.02


def test_members_that_are_the_same_differ_in_nothing():
    ensemble = build_ensemble({"a": pair(0), "b": pair(0)}, calibrate=False, **FIGURES)
    assert ensemble.differences["a"].measured["auc"].macro == 0
    assert ensemble.differences["a"].macro_p["auc"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "xyz"}, "b and a differ in the split fingerprint of validation: an ensemble needs members"),
        ({"image_ids": [f"y{i}" for i in range(300)]}, "b and a differ in the images or their order of validation"),
        ({"label_names": ("Mass", "Nodule", "Edema")}, "differ in the findings of validation"),
        ({"labels": np.zeros((300, 3))}, "differ in the labels of validation"),
    ],
)
def test_members_of_other_splits_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build_ensemble({"a": pair(0), "b": pair(1, **changes)}, **FIGURES)


def test_too_few_or_nameless_members_are_refused():
    with pytest.raises(ValueError, match="at least two members; got 1"):
        build_ensemble({"a": pair(0)}, **FIGURES)
    with pytest.raises(ValueError, match="a does not say which split it was trained on"):
        build_ensemble({"a": pair(0, fingerprint=None), "b": pair(1, fingerprint=None)}, **FIGURES)


@pytest.fixture
def runs(tmp_path):
    for seed in range(2):
        folder = tmp_path / f"seed{seed}"
        for one in pair(seed):
            one.save(folder / "predictions" / f"{one.split}.parquet")
        (folder / "config.yaml").write_text("bootstrap_resamples: 50\n")
        (folder / "metrics.json").write_text("{}")
    return [str(tmp_path / f"seed{seed}") for seed in range(2)]


def test_the_command_writes_predictions_and_figures(runs, tmp_path, capsys):
    out = tmp_path / "together"
    assert main(["ensemble", *runs, "--out", str(out)]) == 0
    assert "no model for a pipeline to load" in capsys.readouterr().out
    written = json.loads((out / "metrics.json").read_text())
    assert written["ensemble_of"] == runs
    assert written["test"]["resamples"] == 50
    assert written["test_difference_to_members"][runs[0]]["auc"]["difference"] > 0
    saved = Predictions.load(out / "predictions" / "test.parquet")
    assert saved.metadata == {"split": "abc", "calibrated": True, "ensemble_of": runs}
    assert roc_auc(saved.logits, saved.labels).mean() == pytest.approx(written["test"]["all"]["auc"]["macro"])
    with pytest.raises(SystemExit):
        main(["ensemble", *runs, "--out", str(out)])
    assert "is not empty; give another --out" in capsys.readouterr().err


def test_the_kind_of_intervals_that_was_asked_for_is_the_one_measured(runs, tmp_path):
    written = {}
    for kind in ("percentile", "bca"):
        assert main(["ensemble", *runs, "--interval", kind, "--out", str(tmp_path / kind)]) == 0
        written[kind] = json.loads((tmp_path / kind / "metrics.json").read_text())["test"]
        assert {"percentile": "percentile", "bca": "BCa"}[kind] in written[kind]["method"]
    same, other = (one["all"]["auc"] for one in written.values())
    assert same["macro"] == other["macro"]
    assert same["macro_low"] != other["macro_low"]


def test_the_command_takes_flags_before_and_between_members(runs, tmp_path):
    words = ["--bootstrap_resamples", "20", runs[0], "--calibrate", "false", "--out", str(tmp_path / "out"), runs[1]]
    assert main(["ensemble", *words]) == 0
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["ensemble_of"] == runs
    assert written["test"]["resamples"] == 20
    assert written["calibration"] is None
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_a_member_by_two_names_is_one(runs, tmp_path, capsys):
    (tmp_path / "link").symlink_to(runs[0])
    for again in (runs[0] + "/", str(tmp_path / "link")):
        with pytest.raises(SystemExit):
            main(["ensemble", runs[0], again, "--out", str(tmp_path / "out")])
        assert "named twice" in capsys.readouterr().err


def test_the_command_refuses_in_one_line(runs, tmp_path, capsys):
    out = ["--out", str(tmp_path / "new")]
    member(3, fingerprint="xyz").save(tmp_path / "seed1" / "predictions" / "test.parquet")
    assert main(["ensemble", *runs, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-cxr ensemble: ")
    assert "seed0 differ in the split fingerprint of test" in error
    for words, message in (
        ([runs[0], runs[0]], "a member is named twice"),
        ([runs[0], str(tmp_path / "none" / "x")], "is neither a run folder with a config.yaml nor a checkpoint"),
    ):
        with pytest.raises(SystemExit):
            main(["ensemble", *words, *out])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_cannot_be_a_member(runs, tmp_path, capsys):
    (tmp_path / "seed1" / "metrics.json").unlink()
    assert main(["ensemble", *runs, "--out", str(tmp_path / "new")]) == 2
    assert "seed1 is not a finished run" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
