"""What a reader sees of test-time augmentation: the averaged views as a system of its own, against one view."""

from collections.abc import Mapping
from typing import Any

from hf_cxr.evaluation.kernels import METRICS
from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.document import Heading, Table, Text
from hf_cxr.reporting.numbers import in_percent, with_interval
from hf_cxr.reporting.paired import paired_section
from hf_cxr.reporting.section import Section

PICTURE = "figures/averaged_views.png"


def averaged_views_section(values: Mapping[str, Any]) -> Section:
    """From the values of `run.averaged_views.measure_averaged`."""
    paired = paired_section(values["paired"], PICTURE)
    blocks = (
        Heading("Test-time augmentation"),
        Text(
            f"The logits of {values['words']} were averaged: each image costs {values['views']} passes of the model. "
            "This is another system than the model. Its calibration and its operating points are its own, from "
            f"{values['validation_images']:,} validation images (calibration: {values['calibration'] or 'none'}; "
            f"operating points: {values['operating_points'] or 'none'}). Every other figure of this page is of one "
            "view, as the stock pipeline gives it."
        ),
        _table(values),
        *paired.blocks,
    )
    return Section(blocks, paired.drawings)


def _table(values: Mapping[str, Any]) -> Table:
    """The macro means of every metric, of one view and of the average."""
    one, averaged = values["macro"]["one"], values["macro"]["averaged"]
    rows = []
    for key, metric in METRICS.items():
        cells = [
            with_interval(*map(as_number, column[key])) if key in column else "not measured"
            for column in (one, averaged)
        ]
        if key in one or key in averaged:
            rows.append([metric.macro_title, *cells])
    caption = (
        f"Macro means on {values['split']}, with {in_percent(values['confidence'])} intervals over patients. Figures "
        "of calls at a threshold are at the operating points of each."
    )
    return Table.of(("metric", "one view", f"{values['views']} views averaged"), rows, caption)
