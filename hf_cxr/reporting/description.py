"""What `hf-cxr describe` shows about a data set: tables for the terminal, and figures with the same numbers."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import matplotlib.figure
import numpy as np

from hf_cxr.data.statistics import UNKNOWN, Distribution, DrawStatistics, SplitStatistics, Statistics
from hf_cxr.labels import TIER_THRESHOLDS
from hf_cxr.reporting import description_plots as plots
from hf_cxr.reporting.claims import data_origin
from hf_cxr.reporting.document import Block, Document, Figure, Heading, Note, Table, Text
from hf_cxr.words import plural

PAIRS_SHOWN = 12
ATTRIBUTES = ("view", "sex", "age")
NOT_CHECKED = (
    "Counted from the tables, in which each row is an image: an image whose file is missing or cannot be read counts "
    "too, so a run may train on fewer."
)


def description_document(
    statistics: Statistics,
    drawn: DrawStatistics | None = None,
    sampler: str = "",
    *,
    title: str = "Data set",
    from_tables: bool = False,
    notes: Sequence[str] = (),
    hub: Mapping[str, str | None] | None = None,
) -> Document:
    """Counts, shifts between splits, co-occurrence and, if given, what a sampler draws.

    Args:
        statistics: of the splits.
        drawn: what an epoch of the sampler draws from the training set; None to leave it out.
        sampler: its name.
        title: of the document.
        from_tables: the counts are of rows, and whether each has an image was not checked.
        notes: what a reader of figures of these data must know.
        hub: of the `Source`: the Hub dataset and its commit.
    """
    splits = statistics.splits
    first = "train" if "train" in splits else next(iter(splits))
    absent = [
        f"{name}: no positive image of {', '.join(_names(statistics, split.positives_C == 0))}"
        for name, split in splits.items()
        if not split.positives_C.all()
    ]
    origin = data_origin(hub, notes)
    blocks: list[Block] = [
        *([Text(f"Hub dataset: {origin['hub_dataset']}.")] if hub else []),
        *([Note(tuple(notes))] if notes else []),
        Heading("Images"),
        _images(statistics),
        *_unknown_everywhere(statistics),
        Heading("Findings"),
        _findings(statistics),
        Figure("finding_counts.png", "Images with and without each finding"),
        Figure("findings_per_image.png", "How many findings an image has"),
        Heading("Negative and unknown cells"),
        _other_cells(statistics),
    ]
    if splits[first].co_occurrence.both_CC.sum() > np.trace(splits[first].co_occurrence.both_CC):
        blocks += [Heading(f"Findings that occur together most often, in {first}"), _pairs(statistics, splits[first])]
    blocks += [Figure(f"co_occurrence_{name}.png", f"Findings that occur together: {name}") for name in splits]
    notes = [*absent, *([NOT_CHECKED] if from_tables else [])]
    if notes:
        blocks.append(Note(tuple(notes)))
    values = statistics.to_dict() | origin
    if drawn is not None:
        blocks += _draws(drawn, sampler)
        values |= {"sampler": drawn.to_dict()}
    return Document(title, tuple(blocks), values)


def draw(statistics: Statistics) -> dict[str, matplotlib.figure.Figure]:
    """The figures of the document, by file name without suffix."""
    names, splits = statistics.label_names, statistics.splits
    counts = {name: (split.positives_C, split.negatives_C) for name, split in splits.items()}
    figures = {
        "finding_counts": plots.finding_counts(counts, names),
        "findings_per_image": plots.findings_per_image(
            {name: split.findings_per_image.histogram for name, split in splits.items()}
        ),
    }
    for name, split in splits.items():
        both, title = split.co_occurrence, f"Findings that occur together: {name}, {plural(split.images, 'image')}"
        figures[f"co_occurrence_{name}"] = plots.co_occurrence(both.both_CC, both.conditional_CC, names, title)
    return figures


def _images(statistics: Statistics) -> Table:
    splits = list(statistics.splits.values())
    rows = [
        ["images", *(f"{split.images:,}" for split in splits)],
        ["patients", *(f"{split.patients:,}" for split in splits)],
        ["images per patient: mean, median, max", *(_summary(split.images_per_patient) for split in splits)],
        ["findings per image: mean, median, max", *(_summary(split.findings_per_image) for split in splits)],
        ["without findings", *(_with_share(split.without_findings, split.share_without_findings) for split in splits)],
        ["without any known cell", *(f"{split.unlabelled:,}" for split in splits)],
        ["most frequent finding to rarest", *(_number(split.imbalance_ratio, ",.1f") for split in splits)],
    ]
    for column in _known(statistics):
        # The union of the splits' values in the order of the first that has them, "unknown" last.
        values = dict.fromkeys(value for split in splits for value in getattr(split, column))
        for value in [*(value for value in values if value != UNKNOWN), UNKNOWN]:
            counts = [getattr(split, column).get(value, 0) for split in splits]
            shares = [count / split.images for count, split in zip(counts, splits, strict=True)]
            rows.append([f"{column} {value}", *map(_with_share, counts, shares)])
    return Table.of(["", *statistics.splits], rows)


def _known(statistics: Statistics) -> list[str]:
    """Of view, sex and age those that are known of at least one image."""
    splits = statistics.splits.values()
    return [
        column
        for column in ATTRIBUTES
        if any(count for split in splits for value, count in getattr(split, column).items() if value != UNKNOWN)
    ]


def _unknown_everywhere(statistics: Statistics) -> list[Block]:
    unknown = [column for column in ATTRIBUTES if column not in _known(statistics)]
    return [Text(f"Not known of any image: {', '.join(unknown)}.")] if unknown else []


def _findings(statistics: Statistics) -> Table:
    splits, shift = statistics.splits, statistics.shift
    tier = ["tier"] if statistics.tiers else []
    head = ["finding", *tier, *(f"{name}\npositives" for name in splits)]
    head += [*(f"{name}\n%" for name in splits), *(f"{name}\n/train" for name in shift)]
    rows = []
    for column, finding in enumerate(statistics.label_names):
        row = [finding, *([statistics.tiers[finding]] if tier else [])]
        row += [f"{split.positives_C[column]:,}" for split in splits.values()]
        row += [_number(100 * split.prevalence_C[column], ".2f") for split in splits.values()]
        row += [_number(ratio_C[column], ".2f") for ratio_C in shift.values()]
        rows.append(row)
    tiers = (
        f" Tier: by positive training images, head from {TIER_THRESHOLDS['head']:,} on, tail below "
        f"{TIER_THRESHOLDS['tail']:,}, medium between."
    )
    caption = "%: prevalence over known cells; /train: its ratio to that of train."
    return Table.of(head, rows, caption + tiers * bool(tier))


def _other_cells(statistics: Statistics) -> Table:
    splits = statistics.splits.values()
    head = ["finding", *(f"{name}\n{what}" for name in statistics.splits for what in ("negatives", "unknown"))]
    rows = [
        [finding, *(f"{cells_C[column]:,}" for split in splits for cells_C in (split.negatives_C, split.unknown_C))]
        for column, finding in enumerate(statistics.label_names)
    ]
    return Table.of(head, rows)


def _pairs(statistics: Statistics, split: SplitStatistics) -> Table:
    """The most frequent pairs."""
    names, both = statistics.label_names, split.co_occurrence
    pairs = [pair for pair in combinations(range(len(names)), 2) if both.both_CC[pair]]
    pairs.sort(key=lambda pair: -both.both_CC[pair])
    rows = [
        [
            f"{names[a]} (A), {names[b]} (B)",
            f"{both.both_CC[a, b]:,}",
            f"{100 * both.conditional_CC[a, b]:.1f}",
            f"{100 * both.conditional_CC[b, a]:.1f}",
            f"{both.lift_CC[a, b]:.2f}",
        ]
        for a, b in pairs[:PAIRS_SHOWN]
    ]
    return Table.of(["pair", "images", "% of A with B", "% of B with A", "lift"], rows, "Lift: 1 is chance.")


def _draws(drawn: DrawStatistics, sampler: str) -> list[Block]:
    head = ("finding", "positives", "negatives", "%", "drawn\npositives", "drawn\nnegatives", "drawn\n%", "ratio")
    before_C, after_C = drawn.prevalences()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio_C = np.where(before_C > 0, after_C / before_C, np.nan)
    rows = [
        (
            finding,
            f"{drawn.positives_C[column]:,}",
            f"{drawn.negatives_C[column]:,}",
            _number(100 * before_C[column], ".2f"),
            f"{drawn.drawn_positives_C[column]:,.0f}",
            f"{drawn.drawn_negatives_C[column]:,.0f}",
            _number(100 * after_C[column], ".2f"),
            _number(ratio_C[column], ".2f"),
        )
        for column, finding in enumerate(drawn.label_names)
    ]
    images, draws = drawn.without_findings
    return [
        Heading(f"Training images as the sampler {sampler} draws them"),
        Text(
            f"In an epoch, on average (whole batches: up to one less): {plural(round(drawn.draws), 'draw')} from "
            f"{plural(drawn.images, 'image')}, {drawn.distinct:,.0f} distinct ones "
            f"({100 * drawn.distinct / drawn.images:.1f} %), one at most "
            f"{plural(np.ceil(drawn.most_draws), 'time')}."
        ),
        Text(f"Without a known positive: {plural(round(draws), 'draw')} from {plural(round(images), 'image')}."),
        Table.of(head, rows),
    ]


def _names(statistics: Statistics, chosen_C: np.ndarray) -> list[str]:
    return [name for name, chosen in zip(statistics.label_names, chosen_C, strict=True) if chosen]


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else "infinite" if np.isinf(value) else format(value, form)


def _with_share(count: int, share: float) -> str:
    return f"{count:,} ({_number(100 * share, '.1f')} %)"


def _summary(distribution: Distribution) -> str:
    if not distribution.histogram:
        return "–"
    return f"{distribution.mean:.2f}, {distribution.median:g}, {distribution.max}"
