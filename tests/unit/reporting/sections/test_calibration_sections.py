"""The sections on probabilities: made from plain JSON values, with pictures, and saying what was measured."""

import json
import warnings

import numpy as np
import pytest
from scipy.special import expit, logit

from hf_cxr.evaluation.calibration_maps import measure_calibration_maps
from hf_cxr.evaluation.conformal import measure_conformal
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.prevalence_shift import measure_prevalence_shift
from hf_cxr.evaluation.reliability import measure_reliability
from hf_cxr.reporting.document import Document, Heading
from hf_cxr.reporting.sections.calibration_maps import calibration_maps_section, calibration_verdict
from hf_cxr.reporting.sections.conformal import conformal_section, coverage_verdict
from hf_cxr.reporting.sections.prevalence_shift import (
    effect_table,
    prevalence_shift_section,
    shift_table,
    shift_verdict,
)
from hf_cxr.reporting.sections.reliability import reliability_section

NAMES = ("Pleural_Thickening", "Rare $x$", "none", "unknown")
SECTIONS = {
    "reliability": reliability_section,
    "calibration_maps": calibration_maps_section,
    "prevalence_shift": prevalence_shift_section,
    "conformal": conformal_section,
}


def data(seed, n=900):
    rng = np.random.default_rng(seed)
    logit_NC = rng.normal(size=(n, 4)) * 1.5 + [-0.5, -3.5, -3, -3]
    label_NC = (rng.random((n, 4)) < expit(logit_NC)).astype(float)
    label_NC[:, 2], label_NC[:, 3] = 0, np.nan
    return logit_NC, label_NC, np.arange(n) // 2


@pytest.fixture(scope="module")
def values():
    """What analysis.json would have."""
    logit_NC, label_NC, patient_N = data(0)
    draws = PatientDraws.of(patient_N, resamples=50)
    validation = data(1)
    measured = {
        "reliability": measure_reliability(expit(logit_NC), label_NC, draws, label_names=NAMES),
        "calibration_maps": measure_calibration_maps(3 * logit_NC + 1, label_NC, draws, label_names=NAMES),
        "prevalence_shift": measure_prevalence_shift(
            logit_NC, label_NC, draws, [0.2, 0.05, 0.0, np.nan], label_names=NAMES
        ),
        "conformal": measure_conformal(
            expit(logit_NC), label_NC, draws, (expit(validation[0]), *validation[1:]), label_names=NAMES
        ),
    }
    return json.loads(json.dumps({key: one.to_dict() for key, one in measured.items()}, allow_nan=False))


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_is_made_from_json_and_shows_what_it_draws(values, key, tmp_path):
    section = SECTIONS[key](values[key])
    assert isinstance(section.blocks[0], Heading)
    document = Document("x", section.blocks)
    terminal = document.to_terminal()
    assert "Pleural_Thickening" in terminal
    assert "nan" not in terminal.lower().replace("finding", "")
    assert "None" not in terminal
    for path, draw in section.drawings.items():
        assert f"]({path})" in document.to_markdown()
        (tmp_path / "figures").mkdir(exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw().savefig(tmp_path / path, dpi=40)
    page = document.to_html(tmp_path)
    assert page.count("data:image/png") == len(section.drawings)
    assert document.to_latex().count("\\begin{table}") == page.count("<table")


def test_the_figures_of_the_tables_are_those_of_the_values(values):
    text = Document("x", reliability_section(values["reliability"]).blocks).to_terminal()
    slope = values["reliability"]["findings"]["Pleural_Thickening"]["slope"]
    assert f"{slope['value']:.2f} ({slope['low']:.2f}–{slope['high']:.2f})" in text
    assert "no known label" in text
    conformal = values["conformal"]["levels"][1]
    text = Document("x", conformal_section(values["conformal"]).blocks).to_terminal()
    assert f"{100 * conformal['findings']['Pleural_Thickening']['either']['value']:.1f} %" in text
    assert "0 patients with it" in text
    text = Document("x", calibration_maps_section(values["calibration_maps"]).blocks).to_terminal()
    assert f"{values['calibration_maps']['maps']['isotonic']['log_loss']:.4f}" in text
    assert "Not compared: none and unknown: 0 images" in text
    text = Document("x", prevalence_shift_section(values["prevalence_shift"]).blocks).to_terminal()
    assert "the prevalence on validation, which the probabilities assume, is 0" in " ".join(text.split())


def test_the_verdicts_follow_the_figures(values):
    maps = values["calibration_maps"]
    assert maps["best"] == "affine"
    assert calibration_verdict(maps).startswith("No other map")
    better = {**maps["maps"]["isotonic"], "difference": {"value": -0.01, "low": -0.02, "high": -0.005}}
    for p, words in (
        (0.01, "larger than the draw of patients explains (p 0.010)"),
        (0.4, "explains a difference of this size (p 0.40)"),
    ):
        changed = {**maps, "best": "isotonic", "maps": {**maps["maps"], "isotonic": {**better, "p": p}}}
        assert words in calibration_verdict(changed)
    assert "No map can be compared" in str(calibration_maps_section({**maps, "best": None}).blocks[1])

    for low, high, words in (
        (-0.2, -0.1, "would be better"),
        (0.1, 0.2, "would be worse"),
        (-0.1, 0.2, "may not help"),
    ):
        change = {"value": (low + high) / 2, "low": low, "high": high}
        assert words in shift_verdict({"macro_changes": {"estimated": {"log_loss": change}}})
    none = {"value": None, "low": None, "high": None}
    assert "can be estimated" in shift_verdict({"macro_changes": {"estimated": {"log_loss": none}}})

    level = values["conformal"]["levels"][1]
    findings = {name: {**one, "below": []} for name, one in level["findings"].items()}
    assert "no finding's coverage is below 90 %" in coverage_verdict({**level, "findings": findings})
    findings["Pleural_Thickening"]["below"] = ["negative_coverage"]
    assert "below 90 % of negatives for Pleural_Thickening" in coverage_verdict({**level, "findings": findings})


def test_the_table_of_a_shift_says_what_is_added_to_the_logit():
    table = shift_table({"Mass": 0.05, "Edema": 0.1}, {"Mass": 0.2, "Edema": 0.002}, {"Mass": (0.1, 0.3)})
    assert [row[1:3] for row in table.rows] == [["5.0 %", "20.0 % (10.0–30.0)"], ["10.0 %", "0.20 %"]]
    added = [float(row[3].replace("−", "-")) for row in table.rows]
    assert added == pytest.approx([logit(0.2) - logit(0.05), logit(0.002) - logit(0.1)], abs=1e-3)


def test_the_effect_of_a_shift_has_a_row_for_each_finding_that_is_shifted(values):
    shift = values["prevalence_shift"]
    (row,) = effect_table(shift, "observed").rows[:1]
    assert row[0] == "Pleural_Thickening"
    change = shift["changes"]["observed"]["log_loss"]["Pleural_Thickening"]["value"]
    assert row[4].startswith(f"{change:+.4f}".replace("-", "−"))
    assert len(effect_table(shift, "observed").rows) == sum(
        share is not None for share in shift["targets"]["observed"].values()
    )


def test_the_verdict_of_a_model_without_a_map_does_not_speak_as_if_it_had_one(values):
    maps = values["calibration_maps"]
    maps = maps | {"best": maps["baseline"]}
    assert calibration_verdict(maps | {"used": "affine"}) == calibration_verdict(maps)
    text = calibration_verdict(maps | {"used": "none"})
    assert "has no calibration map" in text
    for key in ("affine", "none"):
        assert f"{maps['maps'][key]['log_loss']:.4f}" in text
