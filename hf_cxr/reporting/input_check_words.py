"""The figures of an input check in a sentence: for the log, `hf-cxr predict`, the card and the page.

Nothing here draws, so that `hf-cxr predict` does without what drawing imports.
"""

from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.numbers import percent, percent_in_tenths_with_interval

LATERAL = "lateral"  # the key of a kind of images
MISSED = 0.5
"""A kind of which a smaller share is reported counts as missed."""


def input_check_words(values: Mapping[str, Any]) -> str:
    """The figures of a check in one sentence, for the log, a terminal and the card."""
    ordinary, alike = values["false_alarms"], {}
    for kind in sorted(values["kinds"].values(), key=lambda kind: -kind["value"]):
        alike.setdefault(percent(kind["value"]), []).append(kind["title"])
    kinds = "; ".join(f"{share} of {', '.join(titles)}" for share, titles in alike.items())
    share = percent_in_tenths_with_interval(ordinary)
    return (
        f"The input check reports {share} of {ordinary['images']:,} ordinary test images"
        + (f" and, of images that it should report: {kinds}" if kinds else "")
        + "."
    )


def input_check_note(values: Mapping[str, Any]) -> str:
    """How often a check is wrong about ordinary images, in a line for a terminal, which has no room for every kind."""
    ordinary = percent_in_tenths_with_interval(values["false_alarms"])
    return f"the input check reports {ordinary} of ordinary images in error; the model's report has what it finds"


def false_alarm_words(values: Mapping[str, Any] | None) -> str:
    """How often a check reports ordinary images, in a sentence; None for a check that was not measured."""
    if values is None:
        return "How often the input check is wrong was not measured."
    ordinary = values["false_alarms"]
    return (
        f"The input check reports {percent_in_tenths_with_interval(ordinary)} of {ordinary['images']:,} ordinary test "
        "images in error."
    )


def input_check_limits(values: Mapping[str, Any] | None) -> str:
    """What the check does not find, and what was not measured; None for a check of which nothing was."""
    kinds = values["kinds"] if values is not None else {}
    missed = [kind["title"] for kind in kinds.values() if as_number(kind["value"]) < MISSED]
    lateral = "Other" if LATERAL in kinds else "Lateral views, other"
    return (
        (f"It misses most of these: {', '.join(missed)}. " if missed else "")
        + f"{lateral} parts of the body and images of another hospital were not measured. An image that is not "
        "reported may still be unsuitable for the model."
    )
