"""What a reader sees of test-time augmentation: the averaged views as a separate system, against one view."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.kernels import METRICS, headline_metrics
from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.document import Heading, Table, Text
from hf_cxr.reporting.intervals import is_outside, outside_words
from hf_cxr.reporting.numbers import in_percent, with_interval
from hf_cxr.reporting.sections.paired import paired_section
from hf_cxr.reporting.sections.section import Section

PICTURE = "figures/averaged_views.png"


def averaged_views_section(values: Mapping[str, Any]) -> Section:
    """From the values of `run.evaluating.averaged_views.measure_averaged`."""
    paired = paired_section(values["paired"], PICTURE)
    blocks = (
        Heading("Test-time augmentation"),
        Text(
            f"The logits of {values['words']} were averaged, so each image takes {values['views']} passes of the "
            "model. Averaged views are a separate system, with their own calibration and operating points from "
            f"{values['validation_images']:,} validation images (calibration: {values['calibration'] or 'none'}; "
            f"operating points: {values['operating_points'] or 'none'}). All figures outside this section are of one "
            "view, which is what the stock pipeline gives."
        ),
        _table(values),
        *paired.blocks,
    )
    return Section(blocks, paired.drawings)


def averaged_headline(values: Mapping[str, Any]) -> str:
    """The headline metrics of the averaged views, in one line."""
    macros = ", ".join(
        f"{metric.macro_title} {with_interval(*map(as_number, values['macro']['averaged'][key]))}"
        for key, metric in headline_metrics().items()
        if key in values["macro"]["averaged"]
    )
    return f"{values['views']} views averaged: {macros}"


def _table(values: Mapping[str, Any]) -> Table:
    """The macro means of every metric, of the average and of one view."""
    columns = (values["macro"]["averaged"], values["macro"]["one"])
    rows, outside = [], []
    for key, metric in METRICS.items():
        intervals = [tuple(map(as_number, column[key])) if key in column else None for column in columns]
        if any(intervals):
            cells = ["not measured" if one is None else with_interval(*one) for one in intervals]
            rows.append([metric.macro_title, *cells])
        if any(one and is_outside(*one) for one in intervals):
            outside.append(metric.title)
    caption = (
        f"Macro means on {values['split']}, with {in_percent(values['confidence'])} intervals over patients. Figures "
        f"of calls at a threshold are at the operating points of each.{outside_words(outside)}"
    )
    return Table.of(("metric", f"{values['views']} views averaged", "one view"), rows, caption)
