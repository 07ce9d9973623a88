"""A finished run under stress: the clean images are those of its predictions, and worse ones differ."""

import numpy as np
import pytest

from hf_cxr.data import load_source
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.perturbations import PERTURBATIONS
from hf_cxr.predictions import Predictions
from hf_cxr.run.evaluating.stress import check_kinds, predict_versions, stress
from hf_cxr.run.stage_files import saved_arguments


@pytest.fixture(scope="module")
def split(finished):
    args = saved_arguments(finished[0])
    return load_source(args.data, seed=args.training.seed).splits["test"]


def test_clean_images_are_the_runs_own_and_the_work_can_be_shared_in_any_way(finished, split):
    run_dir, _ = finished
    classifier = Classifier(run_dir)
    saved = Predictions.load(run_dir / "predictions" / "test.parquet")
    logit_VNC = predict_versions(classifier, split, ("noise", "jpeg"), batch_size=7)
    assert logit_VNC.shape == (9, *saved.logits.shape)
    np.testing.assert_allclose(logit_VNC[0], saved.logits, atol=1e-4)
    assert (logit_VNC[1:] != logit_VNC[0]).any(axis=(1, 2)).all()
    again_VNC = predict_versions(classifier, split, ("noise", "jpeg"), batch_size=3, workers=1)
    np.testing.assert_allclose(again_VNC, logit_VNC, atol=1e-5)


def test_figures_of_the_clean_images_are_those_of_the_report(finished, split):
    run_dir, _ = finished
    classifier = Classifier(run_dir)
    measured = stress(classifier, split, ("contrast",), intervals=Intervals(resamples=20, confidence=0.9))
    assert list(measured.figures) == ["contrast"]
    assert list(measured.figures["contrast"]) == list(PERTURBATIONS["contrast"].levels)
    assert 0 <= measured.clean["auc"].value <= 1


def test_kinds_are_those_of_the_table():
    assert check_kinds(["all"]) == tuple(PERTURBATIONS)
    assert check_kinds(["jpeg", "noise"]) == ("noise", "jpeg")
    with pytest.raises(ValueError, match="did you mean noise"):
        check_kinds(["noisy"])
