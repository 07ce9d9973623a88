"""Figures of a data set: how many images have each finding, how many have none, which findings occur together.

C = findings. Of a matrix CC the first axis is the row.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hf_cxr.reporting.plots import BLUE, ORANGE, name_rows
from hf_cxr.words import in_figure, in_title, plural


def finding_counts(
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]], label_names: Sequence[str], title: str = ""
) -> Figure:
    """Positives and negatives of each finding on a logarithmic scale, a panel a split, frequent findings first.

    Args:
        counts: for each split, C positives and C negatives. The first split gives the order of the findings.
        label_names: C findings.
        title: above the panels; by default what they show.
    """
    order = np.argsort(-next(iter(counts.values()))[0], kind="stable")
    figure = Figure(figsize=(2.2 + 4.3 * len(counts), 1.7 + 0.42 * len(order)), layout="constrained")
    figure.suptitle(in_title(title) or "Images with and without each finding")
    row_C = np.arange(len(order))
    most = max(1, *(np.max(pair) for pair in counts.values()))
    axes = figure.subplots(1, len(counts), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, (positives_C, negatives_C)) in zip(axes, counts.items(), strict=True):
        # A logarithmic axis has no 0: bars start at 0.5 and an empty one is its number alone.
        axis.barh(row_C - 0.2, np.maximum(positives_C[order], 0.5), 0.4, color=ORANGE, label="present")
        axis.barh(
            row_C + 0.2, np.maximum(negatives_C[order], 0.5), 0.4, facecolor="#BBD4E6", edgecolor=BLUE, label="absent"
        )
        for row, count in zip(row_C, positives_C[order], strict=True):
            axis.text(max(count, 0.5) * 1.15, row - 0.2, f"{count:,}", va="center", fontsize=8.5)
        axis.set_title(in_figure(name), fontsize=11)
        axis.set_xscale("log")
        axis.set_xlim(0.5, 3 * most)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("images (logarithmic)")
    name_rows(axes[0], [label_names[column] for column in order])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def findings_per_image(histograms: Mapping[str, Mapping[int, int]], title: str = "") -> Figure:
    """Share of images without a finding, with one, two, and three or more: a bar a split, from 0 to 100 %.

    Args:
        histograms: for each split, how many labelled images have a number of findings.
        title: above the bars; by default what they show.
    """
    parts = (("none", "#D9D9D9"), ("one", "#9ECAE1"), ("two", BLUE), ("three or more", "#08306B"))
    figure = Figure(figsize=(9, 1.7 + 0.75 * len(histograms)), layout="constrained")
    figure.suptitle(in_title(title) or "How many findings an image has")
    axis = figure.subplots()
    for row, histogram in enumerate(histograms.values()):
        counts = [histogram.get(number, 0) for number in range(3)]
        counts.append(sum(histogram.values()) - sum(counts))
        left, total = 0.0, max(sum(counts), 1)
        for number, (count, (label, color)) in enumerate(zip(counts, parts, strict=True)):
            share = 100 * count / total
            axis.barh(row, share, left=left, color=color, edgecolor="white", label=label if row == 0 else None)
            if share >= 4:  # narrower parts have no room for a number
                text = f"{share:.1f} %" + (f"\n{count:,}" if share >= 7 else "")
                style = {"color": "white" if number >= 2 else "black", "rotation": 0 if share >= 7 else 90}
                axis.text(left + share / 2, row, text, ha="center", va="center", fontsize=9, **style)
            left += share
    axis.set_yticks(
        range(len(histograms)), [f"{in_figure(n)}\n{plural(sum(h.values()), 'image')}" for n, h in histograms.items()]
    )
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of labelled images (%)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def co_occurrence(both_CC: np.ndarray, conditional_CC: np.ndarray, label_names: Sequence[str], title: str) -> Figure:
    """Heat map of P(column | row) in percent, with the number of images under it; the diagonal has the positives.

    Args:
        both_CC: images with both findings; the diagonal is the positives of each.
        conditional_CC: P(column | row), 0 to 1, NaN where the row is never present. The diagonal is not drawn.
        label_names: C findings.
        title: above the map.
    """
    names = [in_figure(name, 40) for name in label_names]
    side = 3.2 + 0.72 * len(names)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axis = figure.subplots()
    axis.set_title(in_title(title, 60), fontsize=13, pad=12)
    shown_CC = np.where(np.eye(len(names), dtype=bool), np.nan, 100 * conditional_CC)
    top = max(float(np.nanmax(shown_CC, initial=0)), 1.0)
    axis.set_facecolor("#DDDDDD")
    image = axis.imshow(shown_CC, cmap="Blues", vmin=0, vmax=top)
    for row, column in np.ndindex(shown_CC.shape):
        share, count = shown_CC[row, column], f"{both_CC[row, column]:,}"
        text = f"{share:.{1 if share < 10 else 0}f} %\n{count}" if share > 0 else "–" if np.isnan(share) else "0"
        text = count if row == column else text
        style = {"weight": "bold"} if row == column else {"color": "white" if share > 0.6 * top else "black"}
        axis.text(column, row, text, ha="center", va="center", fontsize=9.5, **style)
    axis.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1)
    axis.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylabel("of the images with this finding ...")
    axis.set_xlabel("... the share that also has this one (on the diagonal: all images with it)")
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, shrink=0.6, label="P(column | row), %")
    return figure
