"""The section on localisation: do the maps find what radiologists drew boxes around, and could anything else?

Published figures stand in a table of their own, with their protocol: they are of another model, other pixels, and of
a split that is not said to be the official one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure as Drawing

from hf_cxr.evaluation.localization import ALL, CONTROLS, GRID_LIMIT, IOBB, IOU, MEAN, STATISTICS
from hf_cxr.evaluation.metric import as_number
from hf_cxr.files import plain
from hf_cxr.labels import NIH14
from hf_cxr.reporting.document import Block, Figure, Heading, Note, Table, Text
from hf_cxr.reporting.numbers import in_percent, join, number, p_value, signed_interval, with_interval
from hf_cxr.reporting.plots import COLORS, DASHES, frame
from hf_cxr.reporting.protocol import FEW_PATIENTS, SYNTHETIC
from hf_cxr.reporting.sections.section import Section
from hf_cxr.words import NOT_A_DEVICE, in_figure, in_legend

PICTURE = "figures/localization.png"
HEADLINE = ("pointing", "energy", "iou_0.1", "iou_0.3", "iobb_0.1", "iobb_0.5")
JUDGED = ("pointing", "energy", "iou_0.3")
"""By these a map is said to beat a control: IoBB alone rewards boxes that are too small."""
PER_FINDING = ("iobb_0.1", "iobb_0.25", "iobb_0.5", "iou_0.1", "iou_0.3", "pointing", "energy")

# Wang et al., "ChestX-ray8", CVPR 2017, arXiv 1705.02315v5, table 19 (ChestX-ray14): accuracy by T(IoBB).
WANG_FINDINGS = NIH14[:8]
WANG_IOBB = {
    0.1: (0.6222, 1.0, 0.7974, 0.9106, 0.5882, 0.1519, 0.8583, 0.5204),
    0.25: (0.3944, 0.9863, 0.6339, 0.7967, 0.4588, 0.0506, 0.7083, 0.3367),
    0.5: (0.1944, 0.9452, 0.4183, 0.6504, 0.3058, 0.0, 0.4833, 0.2653),
    0.75: (0.0889, 0.8151, 0.2287, 0.4390, 0.1647, 0.0, 0.2917, 0.1735),
    0.9: (0.0722, 0.6507, 0.1373, 0.3577, 0.0941, 0.0, 0.2333, 0.1224),
}
WANG_PROTOCOL = (
    "Published: Wang et al. 2017 (arXiv 1705.02315v5, table 19): ResNet-50 from ImageNet at 1024 pixels, class "
    "activation maps of 32 x 32, all 984 boxes; disjoint patients; the paper does not say which test images were "
    "used for the maps. "
    "No control and no interval was published, so how far above chance these figures are is not known. Do not rank "
    "them against the table above: the model and the pixels are different, and where this page has fewer boxes, so "
    "are the images."
)


def localization_section(values: Mapping[str, Any]) -> Section:
    """From the plain values of localization.json: `Localization.to_dict()` and what `run.explain` adds."""
    values = plain(values)
    blocks: list[Block] = [Heading("Where the model looks"), Text(_measured_on(values))]
    if cautions := _cautions(values):
        blocks.append(Note(tuple(cautions)))
    blocks += [
        Note(tuple(_conclusions(values)), warning=False),
        _maps_table(values),
        _gains_table(values),
        Figure(
            PICTURE,
            "Share of boxes found by the map and by each control, over the threshold on IoBB and on IoU",
            "Share of all boxes that are found, over the overlap that is asked for, with "
            f"{in_percent(values['confidence'])} intervals. A curve of the model's map that runs with those of the "
            "controls says nothing about the model.",
        ),
        _findings_table(values),
        Text(_convention(values)),
    ]
    if not values.get("synthetic") and any(name in values["findings"] for name in WANG_FINDINGS):
        blocks.append(_published_table())
    return Section(tuple(blocks), {PICTURE: lambda: found_curves(values)})


def title_of(key: str, values: Mapping[str, Any]) -> str:
    """The name of a map for readers."""
    return values.get("titles", {}).get(key) or {**CONTROLS, GRID_LIMIT: "limit of the grid"}.get(key, key)


def _measured_on(values: Mapping[str, Any]) -> str:
    counts = values["counts"]
    per = ", ".join(f"{name} {count:,}" for name, count in counts["boxes"].items())
    text = (
        f"{title_of(values['explained'], values)} on {sum(counts['boxes'].values()):,} boxes in {values['images']:,} "
        f"images of {values['patients']:,} patients ({per}). The boxes cover {values['covered']:.1%} of an image on "
        "average."
    )
    if values.get("grid"):
        rows, columns = values["grid"]
        text += f" The map has {rows} x {columns} places"
        text += f" over {values['seen'][2]:.0%} of each side of the image." if values.get("seen") else "."
    if left_out := values.get("boxes_of_other_findings"):
        text += f" Boxes of findings that the model does not have are left out: {_counted(left_out)}."
    return text


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _cautions(values: Mapping[str, Any]) -> list[str]:
    cautions = [SYNTHETIC] if values.get("synthetic") else []
    few = [f"{name} ({count})" for name, count in values["counts"]["patients"].items() if count < FEW_PATIENTS]
    if few:
        cautions.append(
            f"Fewer than {FEW_PATIENTS} patients have boxes of these findings: their figures and intervals are too "
            f"uncertain to rely on: {', '.join(few)}."
        )
    flat = values["flat"][values["explained"]]
    pairs = sum(values["counts"]["pairs"].values())
    if flat:
        cautions.append(
            f"{flat:,} of {pairs:,} maps are equal everywhere (nothing in them speaks for the finding); they find no "
            "box and count as misses."
        )
    return [*cautions, NOT_A_DEVICE]


def _conclusions(values: Mapping[str, Any]) -> list[str]:
    """Whether the map beats each control, by the lower limit of the difference; and how alike random weights look."""
    sentences = []
    name = title_of(values["explained"], values)
    for control in (key for key in values["maps"] if key in CONTROLS):
        parts: dict[str, list[str]] = {"above": [], "below": [], "not clearly above or below": []}
        for statistic in JUDGED:
            low, high = map(as_number, values["differences"][control][statistic][ALL][1:3])
            part = "above" if low > 0 else "below" if high < 0 else "not clearly above or below"
            parts[part].append(STATISTICS[statistic].title)
        said = [f"{part} it by {join(titles)}" for part, titles in parts.items() if titles]
        sentences.append(f"{name} and the {title_of(control, values)}: {'; '.join(said)}.")
    value, low, high = map(as_number, values["similarity"][ALL])
    if not math.isnan(value):
        sentences.append(
            f"Rank correlation with the maps of random weights: {_two(value)} ({_two(low)} to {_two(high)}). Near 0, "
            "the map depends on what was learnt; near 1, it survives randomisation and explains nothing."
        )
    return sentences


def _maps_table(values: Mapping[str, Any]) -> Table:
    head = ["map", *(STATISTICS[key].title for key in HEADLINE)]
    rows = []
    for key in values["maps"]:
        cells = [with_interval(*map(as_number, values["values"][key][statistic][ALL])) for statistic in HEADLINE]
        rows.append([title_of(key, values), *cells])
    caption = (
        f"All boxes together, {in_percent(values['confidence'])} intervals over {values['resamples']:,} draws "
        "of patients. The random map, the middle and the usual place do not use the image; random weights are not "
        "trained."
    )
    return Table.of(head, rows, caption, frozenset((0, column) for column in range(len(head))))


def _gains_table(values: Mapping[str, Any]) -> Table:
    rows = []
    for control, by_statistic in values["differences"].items():
        if control == GRID_LIMIT:
            continue
        cells = []
        for statistic in JUDGED:
            value, low, high, p = map(as_number, by_statistic[statistic][ALL])
            cells += [signed_interval(value, low, high), p_value(p)]
        rows.append([title_of(control, values), *cells])
    head = ["over"]
    for statistic in JUDGED:
        head += [STATISTICS[statistic].title, f"p of\n{STATISTICS[statistic].title}"]
    caption = (
        f"{title_of(values['explained'], values)} minus each other map, in the same draws of patients, all boxes "
        "together. p values are not corrected for the number of rows."
    )
    return Table.of(head, rows, caption)


def _findings_table(values: Mapping[str, Any]) -> Table:
    explained = values["explained"]
    strongest = [key for key in values["maps"] if key in CONTROLS]
    head = ["finding", "boxes", *(STATISTICS[key].title for key in PER_FINDING), "highest control,\npointing game"]
    rows = []
    for group in (*values["findings"], ALL, MEAN):
        boxes = values["counts"]["boxes"].get(group)
        cells = [
            with_interval(*map(as_number, values["values"][explained][statistic][group])) for statistic in PER_FINDING
        ]
        best = max(
            ((as_number(values["values"][key]["pointing"][group][0]), title_of(key, values)) for key in strongest),
            key=lambda pair: -1.0 if math.isnan(pair[0]) else pair[0],
            default=(math.nan, ""),
        )
        rows.append(
            [group, "" if boxes is None else f"{boxes:,}", *cells, f"{number(best[0])}, {best[1]}" if best[1] else ""]
        )
    caption = f"{title_of(explained, values)} by finding, with {in_percent(values['confidence'])} intervals."
    return Table.of(head, rows, caption)


def _convention(values: Mapping[str, Any]) -> str:
    return (
        "How it is measured (Wang et al. 2017): the map is scaled to 0 to 255 in each image and cut at 60 and "
        "at 180; a box is put around every isolated region of both. A drawn box is found if one of them has "
        "more than the stated overlap with it. IoBB is the intersection over the area of the detected box, so "
        "a box that is too small counts too; IoU divides by the union. Pointing game (Zhang et al. 2016): the "
        "map's highest value lies inside a box, without tolerance. Energy: the share of the map's sum that "
        "lies inside the boxes; for a map that is equal everywhere it is the share that they cover, "
        f"{values['covered']:.3f} on average. The limit of the grid is the map that has, at each place, the "
        "share of it that the drawn boxes cover: what so coarse a map can reach."
    )


def _published_table() -> Table:
    rows = [[name, *(number(WANG_IOBB[t][column]) for t in IOBB)] for column, name in enumerate(WANG_FINDINGS)]
    return Table.of(["published", *(f"IoBB > {t:g}" for t in IOBB)], rows, WANG_PROTOCOL)


def found_curves(values: Mapping[str, Any]) -> Drawing:
    """Share of all boxes that are found, over the threshold: IoBB on the left, IoU on the right, a curve a map."""
    figure = Drawing(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, name, thresholds in ((axes[0], "iobb", IOBB), (axes[1], "iou", IOU)):
        for place, key in enumerate(values["maps"]):
            points = [values["values"][key][f"{name}_{t:g}"][ALL] for t in thresholds]
            value, low, high = ([as_number(point[part]) for point in points] for part in range(3))
            style = {"color": COLORS[place % len(COLORS)], "linestyle": DASHES[place % len(DASHES)]}
            wide = 2.4 if key == values["explained"] else 1.3
            axis.plot(thresholds, value, label=in_legend(title_of(key, values)), linewidth=wide, **style)
            if key == values["explained"]:
                axis.fill_between(thresholds, low, high, color=style["color"], alpha=0.15, linewidth=0)
            else:
                _whiskers(axis, thresholds, value, low, high, style["color"], place)
        axis.set_xlabel(in_figure(f"{'IoBB' if name == 'iobb' else 'IoU'} required, T"))
        axis.set_xticks(thresholds)
        axis.set_ylim(0, 1)
        frame(axis)
    axes[0].set_ylabel("boxes found (share)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _whiskers(
    axis,
    at: Sequence[float],
    value: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    color: str,
    place: int,
) -> None:
    """Intervals of a control, a little to the side of its points so that two do not cover each other."""
    for x, middle, bottom, top in zip(at, value, low, high, strict=True):
        if not math.isnan(middle):
            moved = x + 0.004 * (place - 2)
            axis.plot([moved, moved], [bottom, top], color=color, linewidth=0.9)


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
