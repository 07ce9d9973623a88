"""The findings of an image as HTML: a bar with its threshold for each, most probable first, and the same in words.

A bar says nothing that its words do not: the page can be read without colours, and aloud. All text is escaped.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.inference.results import UNUSUAL_FOR, FindingResult, ImageResult, InputCheckResult
from hf_cxr.reporting.input_check_words import false_alarm_words, input_check_limits
from hf_cxr.reporting.numbers import in_percent
from hf_cxr.words import plural

CALLED, BELOW, WITHOUT_THRESHOLD = "called", "below", "without"


def probability_words(value: float) -> str:
    """A probability or a threshold with three decimals, as `hf-cxr predict` prints them.

    >>> probability_words(0.12345), probability_words(0.0001), probability_words(0.0)
    ('0.123', '<0.001', '0.000')
    """
    return "<0.001" if 0 < value < 0.0005 else f"{value:.3f}"


def shown_name(name: str) -> str:
    """A finding's name for readers.

    >>> shown_name("Pleural_Thickening")
    'Pleural Thickening'
    """
    return name.replace("_", " ")


def by_probability(result: ImageResult) -> list[tuple[int, FindingResult]]:
    """Each finding with its number in the order of the outputs; most probable first, then as in the outputs."""
    return sorted(enumerate(result.findings), key=lambda entry: (-entry[1].probability, entry[0]))


def state_of(finding: FindingResult) -> str:
    """`CALLED`, `BELOW` its threshold, or `WITHOUT_THRESHOLD` one."""
    if finding.called is None:
        return WITHOUT_THRESHOLD
    return CALLED if finding.called else BELOW


def call_words(finding: FindingResult) -> str:
    """What the operating point says of a finding."""
    if finding.threshold is None:
        return "no threshold"
    reaches = "at or above" if finding.called else "below"
    return f"{reaches} its threshold, {probability_words(finding.threshold)}"


def findings_html(result: ImageResult, points: OperatingPoints | None = None, *, chosen: str | None = None) -> str:
    """The list of findings; each is a button that asks for its heat map.

    Args:
        result: what the model says of the image.
        points: of the model, for what its thresholds aim at.
        chosen: the finding whose heat map is shown.
    """
    rows = "".join(_row(column, finding, finding.name == chosen) for column, finding in by_probability(result))
    return (
        f'<section class="cxr-findings" aria-label="Findings of {escape(result.name)}">{_summary(result)}'
        f'<p class="cxr-soft">Choose a finding to see its heat map.</p><ol>{rows}</ol>{_key(result, points)}</section>'
    )


def _summary(result: ImageResult) -> str:
    with_point = [finding for finding in result.findings if finding.called is not None]
    if not with_point:
        words = "This model has no thresholds: it calls nothing present or absent."
    else:
        called = sum(bool(finding.called) for finding in with_point)
        reach = "reaches its threshold" if called == 1 else "reach their threshold"
        words = f"{called} of {plural(len(with_point), 'finding')} {reach}"
    if result.unusual:
        words = f"Do not read these numbers: the image is unusual. {words}"
    return f'<h2 class="cxr-summary">{words}</h2>'


def _row(column: int, finding: FindingResult, chosen: bool) -> str:
    state = state_of(finding)
    mark = ""
    if finding.threshold is not None:
        mark = f'<span class="cxr-mark" style="left:{_percent(finding.threshold)}"></span>'
    chip = ' <span class="cxr-chip">called</span>' if state == CALLED else ""
    words = call_words(finding)
    if finding.label_set is not None:
        words += f" · {escape(UNUSUAL_FOR[finding.label_set])}"
    return (
        f'<li class="cxr-{state}"><button type="button" data-finding="{escape(finding.name)}" data-column="{column}" '
        f'aria-pressed="{str(chosen).lower()}">'
        f'<span class="cxr-name">{escape(shown_name(finding.name))}{chip}</span>'
        f'<span class="cxr-number">{escape(probability_words(finding.probability))}</span>'
        f'<span class="cxr-bar" aria-hidden="true"><span class="cxr-fill" '
        f'style="width:{_percent(finding.probability)}"></span>{mark}</span>'
        f'<span class="cxr-words">{words}</span></button></li>'
    )


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def _key(result: ImageResult, points: OperatingPoints | None) -> str:
    """What bars, marks and label sets mean, for those that are there."""
    lines = ["A bar is the probability of the finding, from 0 at the left to 1 at the right."]
    if any(finding.threshold is not None for finding in result.findings):
        aim = f" for {points.words}" if points is not None and points.words else ""
        lines.append(
            f"The mark on a bar is the finding's threshold, chosen on validation images{aim}. A finding is called "
            "where its probability reaches the mark. A rare finding has a low threshold, so a short bar can be a call."
        )
    if result.coverage is not None:
        stated = in_percent(result.coverage)
        lines.append(
            "“Usual” is what the probability is compared with: of validation images with the finding, and of those "
            f"without, {stated} have a usual one (the conformal label set). It is not a diagnosis: a probability that "
            "is unusually high for an image without a rare finding is still, in most such images, a false alarm."
        )
    return f'<div class="cxr-key">{"".join(f"<p>{escape(line)}</p>" for line in lines)}</div>'


def check_html(check: InputCheckResult | None, measured: Mapping[str, Any] | None = None) -> str:
    """Whether the image looks like those that the model was trained on.

    Args:
        check: what the input check says of it; None for a model without one.
        measured: `InputCheck.measured` of the model, which says how often the check is wrong, or None.
    """
    if check is None:
        return (
            '<p class="cxr-soft" data-check="none">Input check: not checked. This model cannot tell whether an image '
            "is a frontal chest radiograph.</p>"
        )
    alarms = escape(false_alarm_words(measured))
    if not check.unusual:
        limits = escape(input_check_limits(measured))
        return f'<p class="cxr-soft" data-check="usual">Input check: nothing unusual. {limits} {alarms}</p>'
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in check.reasons)
    return (
        '<div class="cxr-note cxr-warning" role="alert" data-check="unusual"><p><b>This image looks unlike those that '
        "the model was trained on.</b> Its numbers may mean nothing. "
        f"{plural(len(check.reasons), 'reason')}:</p><ul>{reasons}</ul><p>{alarms}</p></div>"
    )
