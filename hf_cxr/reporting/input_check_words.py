"""The figures of an input check in a sentence: for the log, `hf-cxr predict`, the card and the page.

Nothing here draws, so that `hf-cxr predict` does without what drawing imports.
"""

from collections.abc import Mapping
from typing import Any

from hf_cxr.reporting.numbers import percent, percent_in_tenths_with_interval


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
