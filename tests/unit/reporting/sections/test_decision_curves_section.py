"""The section of decision curves: its table and its picture show what was measured."""

import io
import json

import numpy as np
from scipy.special import expit

from hf_cxr.evaluation.decision_curves import measure_decision_curves
from hf_cxr.evaluation.draws import PatientDraws
from hf_cxr.reporting.document import Figure, Heading, Note, Table
from hf_cxr.reporting.sections.decision_curves import PICTURE, decision_curves_section

NAMES = ("Mass", "$Hernia$", "Edema")


def measured(n=600):
    rng = np.random.default_rng(0)
    logit_NC = rng.normal((-1.0, -4.0, -0.5), 1.3, size=(n, 3))
    label_NC = (rng.random(logit_NC.shape) < expit(logit_NC)).astype(np.float64)
    label_NC[:, 2] = 0
    draws = PatientDraws.of([str(row // 3) for row in range(n)], resamples=30)
    return measure_decision_curves(expit(logit_NC), label_NC, draws, label_names=NAMES)


def test_the_table_has_the_useful_ranges_and_names_what_is_undefined():
    one = measured()
    section = decision_curves_section(json.loads(json.dumps(one.to_dict())))
    assert isinstance(section.blocks[0], Heading)
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    mass, _, edema = table.rows
    low, high = one.useful_range(0, sure=True)
    assert mass[3] == f"{low:g}–{high:g}"
    assert edema[1:] == ["undefined"] * 4
    (note,) = [block for block in section.blocks if isinstance(block, Note)]
    assert "Edema" in note.sentences[0]


def test_the_picture_shows_the_curves():
    one = measured()
    section = decision_curves_section(one.to_dict())
    (figure,) = [block for block in section.blocks if isinstance(block, Figure)]
    assert figure.path == PICTURE
    drawn = section.drawings[PICTURE]()
    mass, hernia, edema = drawn.axes[:3]
    lines = [line.get_ydata() for line in mass.lines]
    for expected in (one.benefit_CT.value_X[0], one.all_CT[0]):
        assert any(len(line) == len(expected) and np.array_equal(line, expected) for line in lines)
    assert hernia.get_xlim()[1] < mass.get_xlim()[1]  # a rare finding's thresholds of interest are small
    assert not edema.lines
    drawn.savefig(io.BytesIO(), dpi=30)  # a dollar sign begins no formula
