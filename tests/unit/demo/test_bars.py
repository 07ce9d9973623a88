"""The findings as HTML: sorted, escaped, with thresholds in words, and without those that are not there."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hf_cxr.demo.bars import (
    BELOW,
    CALLED,
    WITHOUT_THRESHOLD,
    by_probability,
    check_html,
    findings_html,
    probability_words,
    state_of,
)
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.results import ImageResult, InputCheckResult

NAMES = ("Mass", "<b>Edema</b>", "Pleural_Thickening", "Hernia")
POINT = {"rule": "f1", "target": None, "sensitivity": 0.9, "specificity": 0.9, "positives": 9, "negatives": 90}
POINTS = OperatingPoints.from_dict(
    {"Mass": {**POINT, "threshold": 0.3}, "<b>Edema</b>": {**POINT, "threshold": 0.6}}
    | {"Pleural_Thickening": {**POINT, "threshold": 0.0004}, "Hernia": None}
)
PROBABILITY_C = np.array([0.3000001, 0.5, 0.0001, 0.9], np.float32)


class Tags(HTMLParser):
    """Which tags a page has, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def result(points=POINTS, **kwargs) -> ImageResult:
    return ImageResult.of("x", PROBABILITY_C, Calls(NAMES, points), **kwargs)


def rows(page: str) -> list[str]:
    return [Tags(row).text for row in re.findall(r"<li .*?</li>", page, re.DOTALL)]


def test_findings_are_sorted_and_each_says_its_number_and_its_call():
    page = findings_html(result(), POINTS)
    first, second, third, fourth = rows(page)
    assert first == "Hernia0.900no threshold"
    assert second == "<b>Edema</b>0.500below its threshold, 0.600"
    assert third == "Mass called0.300at or above its threshold, 0.300"
    assert fourth == "Pleural Thickening<0.001below its threshold, <0.001"
    assert [state_of(finding) for _, finding in by_probability(result())] == [WITHOUT_THRESHOLD, BELOW, CALLED, BELOW]
    assert "1 of 3 findings reaches its threshold" in page
    assert "the highest F1" in page


def test_a_name_is_never_markup():
    tags = Tags(findings_html(result(), POINTS)).tags
    assert [attrs["data-finding"] for tag, attrs in tags if tag == "button"] == [
        "Hernia",
        "<b>Edema</b>",
        "Mass",
        "Pleural_Thickening",
    ]
    assert not [tag for tag, attrs in tags if tag == "b"]


def test_bars_and_marks_are_where_the_numbers_say():
    page = findings_html(result(), POINTS)
    assert re.findall(r'cxr-fill" style="width:([\d.]+)%', page) == ["90.00", "50.00", "30.00", "0.01"]
    assert re.findall(r'cxr-mark" style="left:([\d.]+)%', page) == ["60.00", "30.00", "0.04"]


def test_a_model_without_operating_points_calls_nothing():
    page = findings_html(result(None))
    assert "has no thresholds" in page
    assert "cxr-mark" not in page
    assert "called" not in "".join(rows(page))
    assert [row.count("no threshold") for row in rows(page)] == [1] * 4


@pytest.mark.parametrize(
    ("present", "absent", "words"),
    [
        (True, False, "higher than usual without it"),
        (False, True, "lower than usual with it"),
        (True, True, "usual with it and without it"),
        (False, False, "unusual with it and without it"),
    ],
)
def test_label_sets_are_in_words(present, absent, words):
    one = ImageResult(
        *("x", ("Mass",), np.array([0.5], np.float32), np.array([np.nan])),
        present_C=np.array([present]),
        absent_C=np.array([absent]),
        coverage=0.85,
    )
    page = findings_html(one)
    assert rows(page)[0].endswith(words)
    assert "85 %" in page
    assert "usual" not in findings_html(result(None))


def test_the_chosen_finding_is_pressed():
    pressed = {
        attrs["data-finding"]: attrs["aria-pressed"]
        for tag, attrs in Tags(findings_html(result(), chosen="Mass")).tags
        if tag == "button"
    }
    assert pressed["Mass"] == "true"
    assert set(pressed.values()) == {"true", "false"}
    assert list(pressed.values()).count("true") == 1


def test_the_input_check_is_said_whatever_it_found():
    assert "not checked" in check_html(None)
    warned = check_html(InputCheckResult(12.0, 9.0, ("inverted: <white> lungs",)))
    assert 'role="alert"' in warned
    assert "inverted: &lt;white&gt; lungs" in warned


def test_the_input_check_says_how_often_it_is_wrong_and_what_it_misses():
    share = {"value": 0.02, "low": 0.01, "high": 0.04, "images": 500}
    kinds = {"m": share | {"title": "<mirrored>"}, "n": share | {"title": "noise", "value": 0.9}}
    fine = check_html(InputCheckResult(1.0, 9.0), {"false_alarms": share, "kinds": kinds})
    assert "nothing unusual. It misses most of these: &lt;mirrored&gt;. Lateral views" in fine
    assert "2.0 % (1.0–4.0) of 500 ordinary test images in error" in fine
    assert "noise" not in fine
    warned = check_html(InputCheckResult(12.0, 9.0, ("dark",)), {"false_alarms": share, "kinds": kinds})
    assert "2.0 % (1.0–4.0)" in warned
    unmeasured = check_html(InputCheckResult(1.0, 9.0))
    assert "nothing unusual. Lateral views" in unmeasured
    assert "How often the input check is wrong was not measured" in unmeasured


def test_numbers_are_those_of_predict():
    assert [probability_words(value) for value in (0.0, 0.00049, 0.0005, 0.4996, 1.0)] == [
        "0.000",
        "<0.001",
        "0.001",
        "0.500",
        "1.000",
    ]
