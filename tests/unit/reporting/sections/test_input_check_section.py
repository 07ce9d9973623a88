"""The section on the input check says what was measured, and what is missed."""

import numpy as np

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.input_check import OddKindReported, measure_input_check
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.input_check_words import input_check_limits, input_check_note, input_check_words
from hf_cxr.reporting.sections.input_check import input_check_section
from hf_cxr.reporting.sections.table import sections_of


def values(mirrored):
    flag_N = np.arange(100) < 100 * mirrored
    kinds = {
        "noise": OddKindReported("noise", np.ones(50, bool), range(50)),
        "mirrored": OddKindReported("mirrored", flag_N, range(100), np.zeros(100, bool)),
    }
    rates = measure_input_check(
        np.arange(200) < 3, range(200), kinds, intervals=Intervals(resamples=50, confidence=0.9)
    ).to_dict()
    return rates | {"target": 0.01, "validation_images": 500, "validation_patients": 120}


def test_every_figure_is_on_the_page_and_in_one_sentence():
    text = Document("run", input_check_section(values(0.12)).blocks).to_markdown()
    for figure in ("1.5 %", "500 validation images of 120 patients", "12.0 %", "100 %", "90 % intervals"):
        assert figure in text
    assert "100 % of noise; 12.0 % of mirrored." in input_check_words(values(0.12))
    assert "100 % of noise, mirrored." in input_check_words(values(1))
    assert "1.5 %" in input_check_note(values(0.12))
    assert len(input_check_note(values(0.12))) < 120
    assert input_check_words(values(0.12)) in text.replace("\\", "")
    assert list(sections_of({"input_check": values(0.12)})) == ["input_check"]


def test_a_kind_is_missed_where_most_of_it_is():
    assert "misses most of these: mirrored." in input_check_limits(values(0.12))
    assert "misses" not in input_check_limits(values(0.6))


def test_lateral_views_are_unmeasured_until_they_are_measured():
    with_lateral = values(0.6)
    assert "Lateral views, other parts of the body and" in input_check_limits(with_lateral)
    with_lateral["kinds"]["lateral"] = with_lateral["kinds"]["noise"] | {"title": "lateral views", "value": 0.1}
    limits = input_check_limits(with_lateral)
    assert "misses most of these: lateral views. Other parts of the body and" in limits
    assert "Lateral views, other parts of the body and" in input_check_limits(None)
