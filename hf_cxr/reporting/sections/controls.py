"""The section on controls: what view, age and sex reach without a pixel, and the model on shuffled labels.

From the plain values of `evaluation.controls.Controls.to_dict`; None is undefined.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from matplotlib.figure import Figure as Drawing

from hf_cxr.evaluation.kernels import METRICS
from hf_cxr.evaluation.metric import as_number
from hf_cxr.reporting.document import Figure, Heading, Note, Table, Text, last_row
from hf_cxr.reporting.numbers import (
    by_reason,
    finding_triple,
    in_percent,
    macro_triple,
    number,
    p_value,
    signed_interval,
    with_interval,
)
from hf_cxr.reporting.plots import BLUE, GREY, ORANGE, frame_rows, name_rows
from hf_cxr.reporting.sections.section import Section
from hf_cxr.words import in_legend

PICTURE = "figures/controls.png"
METRIC = METRICS["auc"]
SHORTCUT = (
    "The view is a known shortcut: patients who are too ill to stand are imaged in bed (AP), and they have more "
    "findings, in ChestX-ray14 as elsewhere. A model that tells the views apart scores above chance without looking "
    "at the lungs. A difference to the control that is clearly above zero shows that the model uses more than view, "
    "age and sex. It does not show that it ignores them."
)


def controls_section(values: Mapping[str, Any]) -> Section:
    """Blocks and a figure, from the values of `Controls.to_dict`."""
    heading = Heading("Controls: what is reached without a pixel")
    if not values["without_pixels"]:
        text = f"No control without pixels was measured: {values['not_measured']}."
        return Section((heading, Text(text), Text(_shuffled(values))))
    name, full = next(iter(values["without_pixels"].items()))
    control, model = (macro_triple(full[part]) for part in ("control", "model"))
    cautions = [SHORTCUT, *(f"Without a control: {words}" for words in by_reason(values["left_out"]))]
    headline = (
        f"From {name} alone, a logistic regression reaches {METRIC.macro_title} {with_interval(*control)} on the same "
        f"images; the model reaches {with_interval(*model)}. The difference is "
        f"{signed_interval(*macro_triple(full['difference']))}."
    )
    figure = Figure(
        PICTURE,
        f"{METRIC.title} of each finding, of the model and of a score from {name}",
        f"Filled: the model. Open: {name} without a pixel. Bars are {in_percent(values['confidence'])} intervals.",
    )
    drawn = any(value is not None for value in full["model"]["value"].values())
    blocks = (
        heading,
        Text(headline, strong=True),
        Text(_shuffled(values)),
        Note(tuple(cautions)),
        _table(values),
        *([figure] * drawn),
        _findings_table(name, full),
    )
    return Section(blocks, {PICTURE: partial(findings_figure, name, full)} if drawn else {})


def _shuffled(values: Mapping[str, Any]) -> str:
    one = {key: as_number(value) for key, value in values["shuffled"].items()}
    return (
        f"With labels shuffled between patients ({values['shuffled']['shuffles']:,} times), the model's "
        f"{METRIC.macro_title} is {number(one['mean'])} on average, and between {number(one['low'])} and "
        f"{number(one['high'])} in {in_percent(values['confidence'])} of the shuffles. With the true labels it is "
        f"{number(one['value'])} (p {p_value(one['p'])}). All findings with both label values count here."
    )


def findings_figure(name: str, full: Mapping[str, Any]) -> Drawing:
    """The model and the control, finding by finding."""
    names = [finding for finding, value in full["model"]["value"].items() if value is not None]
    names.sort(key=lambda finding: -as_number(full["control"]["value"][finding]))
    figure = Drawing(figsize=(9, 1.6 + 0.36 * len(names)), layout="constrained")
    axis = figure.subplots()
    for part, label, shift, style in (
        ("model", "the model", -0.13, {"color": BLUE}),
        ("control", f"{name}, no pixel", 0.17, {"color": ORANGE, "markerfacecolor": "white"}),
    ):
        for row, finding in enumerate(names):
            value, low, high = finding_triple(full[part], finding)
            axis.plot([low, high], [row + shift] * 2, color=style["color"], linewidth=1.7)
            axis.plot(value, row + shift, "o", markersize=6, label=in_legend(label) if row == 0 else None, **style)
    axis.axvline(0.5, color=GREY, linewidth=1, linestyle="--")
    name_rows(axis, names)
    axis.set_xlabel(METRIC.title)
    frame_rows(axis)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def _table(values: Mapping[str, Any]) -> Table:
    rows = [
        [
            name,
            with_interval(*macro_triple(one["control"])),
            with_interval(*macro_triple(one["model"])),
            signed_interval(*macro_triple(one["difference"])),
            p_value(as_number(one["macro_p"])),
        ]
        for name, one in values["without_pixels"].items()
    ]
    how = "fitted on validation" if values["fitted_on"] == "validation" else "cross-fitted by patient on these images"
    below = (
        ""
        if values["fitted_on"] == "validation"
        else (" Cross-fitting puts a control without information below 0.5, clearly so where there are few images.")
    )
    title = METRIC.macro_title
    caption = (
        f"A logistic regression for each finding, {how}; view and sex are categories, age is a spline. Model and "
        f"control are measured in the same {values['resamples']:,} draws of patients, over the same findings. p is "
        f"two-sided and not corrected.{below}"
    )
    return Table.of(
        ["known to the control", f"{title}\nof the control", f"{title}\nof the model", "difference", "p"],
        rows,
        caption,
    )


def _findings_table(name: str, full: Mapping[str, Any]) -> Table:
    rows = []
    for finding in full["model"]["value"]:
        cells = [finding_triple(full[part], finding) for part in PARTS]
        texts = [*(with_interval(*one) for one in cells[:2]), signed_interval(*cells[2])]
        rows.append([finding, *texts, p_value(as_number(full["p"][finding]))])
    macros = [macro_triple(full[part]) for part in PARTS]
    total = ["macro mean", *(with_interval(*one) for one in macros[:2]), signed_interval(*macros[2])]
    rows.append([*total, p_value(as_number(full["macro_p"]))])
    head = ["finding", f"{name},\nno pixel", "the model", "difference", "p"]
    return Table.of(head, rows, f"{METRIC.title} of each finding. p is not corrected.", last_row(rows, len(head)))


PARTS = ("control", "model", "difference")
