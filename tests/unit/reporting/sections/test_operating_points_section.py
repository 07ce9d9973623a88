"""The section of operating points: it says what was measured, names what is not, and survives JSON."""

import json

import numpy as np
import pytest
from scipy.special import expit

from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.evaluation.operating_points import choose_operating_points, measure_operating_points, threshold_intervals
from hf_cxr.reporting.document import Document, Heading, Note, Table, Text
from hf_cxr.reporting.sections.operating_points import operating_points_section

NAMES = ("Mass", "Hernia_&_co", "Edema")


def measured(seed=0, n=400, undefined=True):
    rng = np.random.default_rng(seed)
    logit_NC = rng.normal((-1.0, -3.0, -0.5), 1.3, size=(2 * n, 3))
    label_NC = (rng.random(logit_NC.shape) < expit(logit_NC)).astype(np.float64)
    if undefined:
        label_NC[:, 2] = 0
    prob_NC = expit(logit_NC)
    points = choose_operating_points(prob_NC[:n], label_NC[:n], label_names=NAMES)
    draws = PatientDraws.of([str(row // 3) for row in range(n)], resamples=30)
    other = {"youden": choose_operating_points(prob_NC[:n], label_NC[:n], rule="youden", label_names=NAMES)}
    intervals = threshold_intervals(prob_NC[:n], label_NC[:n], draws, points, label_names=NAMES)
    return measure_operating_points(
        prob_NC[n:], label_NC[n:], draws, points, label_names=NAMES, compared=other, threshold_interval=intervals
    )


def tables(section):
    return {tuple(block.frame.columns)[1]: block for block in section.blocks if isinstance(block, Table)}


def test_tables_have_what_was_measured():
    one = measured()
    section = operating_points_section(json.loads(json.dumps(one.to_dict())))
    assert isinstance(section.blocks[0], Heading)
    sets, rates, calls = tables(section).values()
    assert [row[0] for row in sets.rows] == ["chosen", "youden", "0.5"]
    assert [row[0] for row in rates.rows] == [*NAMES, "macro mean"]
    value, low, high = one.measured["chosen"]["sensitivity"].interval(0)
    low_threshold, high_threshold = one.threshold_interval["Mass"]
    threshold = one.points.by_finding["Mass"].threshold
    assert rates.rows[0][1] == f"{threshold:.3f} ({low_threshold:.3f}–{high_threshold:.3f})"
    assert rates.rows[0][2] == f"{value:.3f} ({low:.3f}–{high:.3f})"
    assert calls.rows[0][1:5] == [f"{one.count_C['chosen'][key][0]:.0f}" for key in one.count_C["chosen"]]
    total = sum(one.count_C["chosen"]["true_positives"][:2])
    assert calls.rows[-1][:2] == ["all together", f"{total:.0f}"]
    half = one.measured["0.5"]["calls_per_positive"].averages["micro"].value
    assert sets.rows[-1][-1].startswith(f"{half:.2f} (")
    strong = next(block.text for block in section.blocks if isinstance(block, Text) and block.strong)
    assert f"{half:.2f} (" in strong


def test_findings_without_a_point_or_with_few_positives_are_named():
    one = measured(3, n=150)
    section = operating_points_section(one.to_dict())
    notes = [sentence for block in section.blocks if isinstance(block, Note) for sentence in block.sentences]
    assert any("Edema" in sentence for sentence in notes)
    positives = one.points.by_finding["Hernia_&_co"].positives
    assert positives < 20
    assert any(f"Hernia_&_co ({positives})" in sentence for sentence in notes)
    _, rates, calls = tables(section).values()
    assert rates.rows[2][1:3] == ["none", "undefined"]
    assert calls.rows[2][1] == "–"
    whole = operating_points_section(measured(undefined=False).to_dict())
    assert not any(
        "Edema" in sentence for block in whole.blocks if isinstance(block, Note) for sentence in block.sentences
    )


@pytest.mark.parametrize("form", ["to_terminal", "to_markdown", "to_latex"])
def test_every_form_can_be_written(form):
    section = operating_points_section(measured().to_dict())
    assert "Edema" in getattr(Document("x", section.blocks), form)()


def test_no_point_at_all_is_said_and_nothing_else():
    draws = PatientDraws.of(["a", "b"], resamples=2)
    prob_NC, label_NC = np.full((2, 3), 0.5), np.zeros((2, 3))
    points = choose_operating_points(prob_NC, label_NC, label_names=NAMES)
    section = operating_points_section(
        measure_operating_points(prob_NC, label_NC, draws, points, label_names=NAMES).to_dict()
    )
    _, note = section.blocks
    assert all(name in note.sentences[0] for name in NAMES)
