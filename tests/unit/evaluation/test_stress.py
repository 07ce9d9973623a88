"""Stress figures: paired with the clean images, and right where the answer is known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_cxr.evaluation import PatientDraws
from hf_cxr.evaluation.stress import measure_stress
from hf_cxr.reporting.sections.stress import stress_section

NAMES = ("Mass", "Edema")


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    label_NC = (rng.random((240, 2)) < [0.2, 0.4]).astype(float)
    logit_NC = rng.normal(size=(240, 2)) + 2 * label_NC - 1
    clean_NC, noisy_NC = (1 / (1 + np.exp(-one)) for one in (logit_NC, logit_NC + 3 * rng.normal(size=(240, 2))))
    draws = PatientDraws.of([f"p{row // 2}" for row in range(240)], resamples=200, seed=1)
    worse = {("noise", 4.0): clean_NC, ("noise", 32.0): noisy_NC, ("contrast", 0.5): 0.1 * clean_NC}
    return clean_NC, noisy_NC, label_NC, draws, measure_stress(clean_NC, label_NC, draws, worse, label_names=NAMES)


def test_a_level_is_its_own_metric_and_its_difference_is_paired(measured):
    clean_NC, noisy_NC, label_NC, _, stress = measured
    worse = stress.figures["noise"][32.0]["auc"]
    assert stress.clean["auc"].value == pytest.approx(roc_auc_score(label_NC, clean_NC))
    assert worse.macro.value == pytest.approx(roc_auc_score(label_NC, noisy_NC))
    assert worse.difference.value == pytest.approx(worse.macro.value - stress.clean["auc"].value)
    assert worse.difference.high < 0
    assert worse.p < 0.02
    assert worse.value_C == pytest.approx(roc_auc_score(label_NC, noisy_NC, average=None))


def test_images_that_stay_the_same_differ_by_exactly_nothing(measured):
    same = measured[-1].figures["noise"][4.0]
    for one in same.values():
        assert (one.difference.value, one.difference.low, one.difference.high, one.p) == (0, 0, 0, 1)


def test_a_calibration_that_is_lost_shows_in_log_loss_and_not_in_auc(measured):
    pale = measured[-1].figures["contrast"][0.5]
    assert pale["auc"].difference.value == 0
    assert pale["log_loss"].difference.low > 0


def test_the_section_shows_every_level_and_its_picture(measured):
    values = measured[-1].to_dict()
    section = stress_section(values)
    table = next(block for block in section.blocks if hasattr(block, "rows"))
    assert [row[0] for row in table.rows] == [
        "clean",
        "Noise, sd 4 grey levels",
        "Noise, sd 32 grey levels",
        "Contrast at 50 %",
    ]
    (path,) = section.drawings
    axes = section.drawings[path]().axes
    assert [axis.get_title(loc="left") for axis in axes] == ["Noise", "Lower contrast"]
    assert axes[0].lines[1].get_ydata()[-1] == values["kinds"]["noise"][-1]["auc"]["macro"]["value"]


def test_no_level_and_other_shapes_are_refused(measured):
    clean_NC, _, label_NC, draws, _ = measured
    with pytest.raises(ValueError, match="no level"):
        measure_stress(clean_NC, label_NC, draws, {}, label_names=NAMES)
    with pytest.raises(ValueError, match="shape"):
        measure_stress(clean_NC, label_NC, draws, {("noise", 4.0): clean_NC[:, :1]}, label_names=NAMES)
