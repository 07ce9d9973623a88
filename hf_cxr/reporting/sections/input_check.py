"""The section on the input check: how often it reports ordinary images, and how often those that it should report."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.reporting.document import Heading, Note, Table, Text
from hf_cxr.reporting.input_check_words import input_check_limits, input_check_words
from hf_cxr.reporting.numbers import in_percent, percent_in_tenths, percent_in_tenths_with_interval
from hf_cxr.reporting.sections.section import Section

HEADING = "Input check: is an image unlike those of training?"


def input_check_section(values: Mapping[str, Any]) -> Section:
    """From the values of `evaluation.input_check.InputCheckRates.to_dict`, with what the check was fitted on."""
    ordinary = values["false_alarms"]
    rows = [["ordinary test images", f"{ordinary['images']:,}", percent_in_tenths_with_interval(ordinary), "–"]]
    for kind in values["kinds"].values():
        named = "–" if kind["named"] is None else percent_in_tenths(kind["named"]["value"])
        rows.append([kind["title"], f"{kind['images']:,}", percent_in_tenths_with_interval(kind), named])
    blocks = (
        Heading(HEADING),
        Text(
            "A probability for an image that is not a frontal chest radiograph means nothing. The check "
            "compares an image with validation images by statistics of its pixels, by where it is bright and dark, "
            "and by what the model finds in it. It was fitted on "
            f"{values['validation_images']:,} validation images of {values['validation_patients']:,} patients. The "
            f"target is that {percent_in_tenths(values['target'])} of such images are reported in error; measured on "
            f"the {ordinary['images']:,} ordinary test images, it is {percent_in_tenths_with_interval(ordinary)}."
        ),
        Text(input_check_words(values), strong=True),
        Table.of(
            ("images", "number", "reported", "of all, with\nthe right reason"),
            rows,
            f"With {in_percent(values['confidence'])} intervals. Blank images (every other one with noise of one grey "
            "level), noise and the lateral views of a model of phantoms are drawn one by one. Photographs are parts "
            "of two of them, in grey: their interval is that of parts of these two, and not of other photographs. All "
            "other kinds are test images of this run, altered at the size that the model gets; their intervals draw "
            "patients. Low contrast: a fifth of it; "
            "far too dark: gamma 3; far too bright: gamma 1/3.",
        ),
        Note((input_check_limits(values),), warning=False),
    )
    return Section(blocks)
