"""`hf-cxr calibrate RUN --prevalence FILE --out COPY`: a copy whose stock pipeline gives the shifted probabilities."""

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import expit, logit
from transformers import AutoConfig

from hf_cxr.commands import main
from hf_cxr.evaluation import Calibration
from hf_cxr.files import file_sha256
from hf_cxr.inference.classifier import stock_pipeline
from hf_cxr.labels import NIH14
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions


def contents(folder):
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def calibrate(*words):
    return main(["calibrate", *map(str, words)])


@pytest.fixture
def prevalence(tmp_path):
    path = tmp_path / "prevalence.yaml"
    path.write_text("Pleural Effusion: 0.4\nhernia: 0.002\n", encoding="utf-8")
    return path


def test_the_copy_gives_the_shifted_probabilities_and_the_run_stays_as_it_is(finished, tmp_path, prevalence, capsys):
    run_dir, copy = finished[0], tmp_path / "copy"
    before = contents(run_dir)
    assert calibrate(run_dir, "--prevalence", prevalence, "--out", copy) == 0
    printed = capsys.readouterr().out
    assert "40.0 %" in printed
    assert "change of log loss" in printed
    assert contents(run_dir) == before
    old, new = (ModelRecord.of(AutoConfig.from_pretrained(folder)) for folder in (run_dir, copy))
    bias_C = np.zeros(14)
    for name, share in (("Effusion", 0.4), ("Hernia", 0.002)):
        bias_C[NIH14.index(name)] = logit(share) - logit(old.prevalence[name])
    assert new.prevalence == {**old.prevalence, "Effusion": 0.4, "Hernia": 0.002}
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)) for _ in range(4)]
    scores = [
        np.array([[answer[name] for name in NIH14] for answer in stock_pipeline(folder, images)])
        for folder in (run_dir, copy)
    ]
    np.testing.assert_allclose(scores[1], expit(logit(scores[0]) + bias_C), rtol=1e-5)
    assert np.abs(scores[1] - scores[0]).max() > 0.05
    intercepts = [Calibration.from_dict(record.calibration).intercept_C for record in (old, new)]
    np.testing.assert_allclose(intercepts[1] - intercepts[0], bias_C, atol=1e-12)
    weights = [load_file(folder / "model.safetensors") for folder in (run_dir, copy)]
    assert [name for name in weights[0] if not np.array_equal(weights[0][name], weights[1][name])] == [
        "classifier.bias"
    ]
    assert {path.name for path in copy.iterdir()} == {
        *("README.md", "config.json", "figures", "model.safetensors", "preprocessor_config.json")
    }
    assert "This is a copy of the model" in (copy / "README.md").read_text()
    # A copy is a model like any other: it can be shifted back.
    prevalence.write_text(f"Effusion: {old.prevalence['Effusion']}\nHernia: {old.prevalence['Hernia']}\n")
    assert calibrate(copy, "--prevalence", prevalence, "--out", tmp_path / "back") == 0
    back = load_file(tmp_path / "back" / "model.safetensors")
    np.testing.assert_allclose(back["classifier.bias"], weights[0]["classifier.bias"], atol=1e-5)


def test_estimated_prevalences_are_folded_in_and_recorded(finished, tmp_path):
    run_dir, copy = finished[0], tmp_path / "copy"
    record = ModelRecord.of(AutoConfig.from_pretrained(run_dir))
    source = record.prevalence["Effusion"]
    rng = np.random.default_rng(2)
    label_NC = rng.random((2_000, 14)) < 0.3
    assumed_C = np.array([record.prevalence[name] for name in NIH14])
    logits = 2 * (rng.normal(size=label_NC.shape) + 2 * label_NC) - 2 + logit(np.maximum(assumed_C, 0.01))
    ids = [str(row) for row in range(2_000)]
    labels = np.full(label_NC.shape, np.nan)
    Predictions(logits, labels, ids, ids, tuple(NIH14), metadata={"calibrated": True}).save(tmp_path / "new.parquet")
    assert calibrate(run_dir, "--prevalence_from", tmp_path / "new.parquet", "--out", copy) == 0
    new = ModelRecord.of(AutoConfig.from_pretrained(copy))
    assert new.prevalence["Effusion"] == pytest.approx(0.3, abs=0.05)
    done = new.prevalence_shift
    assert (done["method"], done["images"]) == ("estimated", 2_000)
    assert set(done["not_estimated"]) == {name for name, share in record.prevalence.items() if share == 0}
    assert done["findings"]["Effusion"]["low"] < 0.3 < done["findings"]["Effusion"]["high"]
    assert done["findings"]["Effusion"]["bias"] == pytest.approx(logit(new.prevalence["Effusion"]) - logit(source))


def test_what_cannot_be_done_is_refused_and_leaves_nothing(finished, tmp_path, prevalence, capsys):
    run_dir, copy, full = finished[0], tmp_path / "copy", tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    bad = tmp_path / "bad.yaml"
    bad.write_text("Hernia: 3\n")
    before = contents(run_dir)
    for words, message in (
        ((run_dir, "--prevalence", bad, "--out", copy), "for 3 % write 0.03"),
        ((run_dir, "--prevalence", tmp_path / "none.yaml", "--out", copy), "none.yaml"),
        ((run_dir, "--prevalence", prevalence), "give its folder with --out COPY"),
        ((run_dir, "--out", copy), "either --prevalence FILE or --prevalence_from FILE"),
        ((run_dir, "--prevalence", prevalence, "--prevalence_from", bad, "--out", copy), "either --prevalence FILE"),
        ((run_dir, "--prevalence", prevalence, "--out", copy, "--confidence", "0.9"), "--confidence is not about"),
        ((run_dir, "--prevalence", prevalence, "--out", full), "is not empty"),
        ((run_dir, "--prevalence", prevalence, "--out", run_dir), "is an input"),
        ((run_dir, "--prevalence", prevalence, "--out", run_dir / "copy"), "inside the input folder"),
        ((run_dir, "--prevalence_from", run_dir / "stages/test.parquet", "--out", copy), "uncalibrated predictions"),
        ((tmp_path / "nowhere", "--prevalence", prevalence, "--out", copy), "has no config.json"),
        ((tmp_path, "--prevalence", prevalence, "--out", tmp_path.parent / f"{tmp_path.name}-copy"), "has no config"),
    ):
        try:
            status = calibrate(*words)
        except SystemExit as stop:  # the parser's own errors
            status = stop.code
        printed = capsys.readouterr().err
        assert status == 2, words
        assert message in printed
        assert printed.count("\n") == 1
    assert not copy.exists()
    assert [path.name for path in full.iterdir()] == ["notes.txt"]
    assert contents(run_dir) == before
