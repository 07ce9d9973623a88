"""The report of a comparison of methods: results.py has its numbers, the rest says them.

sentences.py: what the numbers support, and cautions. tables.py, figures.py: how they are shown. systems.py: the
networks of the methods, where they differ.
"""

from collections.abc import Collection
from pathlib import Path

from hf_cxr.evaluation.kernels import headline_metrics
from hf_cxr.files import write_text
from hf_cxr.reporting import plots
from hf_cxr.reporting.comparison import sentences, systems, tables
from hf_cxr.reporting.comparison.figures import FIGURES, draw
from hf_cxr.reporting.comparison.results import ComparisonResults, TunedPoint, compare_runs
from hf_cxr.reporting.document import Document, Figure, Heading, Note, Text
from hf_cxr.reporting.protocol import published

__all__ = [
    "ComparisonResults",
    "TunedPoint",
    "compare_runs",
    "comparison_document",
    "comparison_summary",
    "write_comparison",
]


def comparison_document(results: ComparisonResults, drawn: Collection[str] = ()) -> Document:
    """Everything that a comparison has to say.

    Args:
        results: its numbers.
        drawn: names of the figures that lie in figures/ next to the document, as png.
    """
    conclusions, cautions = sentences.conclusions(results), sentences.cautions(results)
    blocks = [
        Text(f"{sentences.headline(results)}.", strong=True),
        Heading("What it says"),
        Note(tuple(conclusions), warning=False),
        Heading("What to keep in mind"),
        Note(tuple(cautions)),
        Heading("Methods"),
        tables.methods(results),
    ]
    if results.other_methods:
        blocks += [Heading(f"Differences to {results.baseline}"), tables.differences(results)]
    blocks += [Heading("Head, medium and tail findings"), tables.by_tier(results)]
    if results.other_methods and results.tested_tiers():
        title = f"Differences to {results.baseline}, head, medium and tail"
        blocks += [Heading(title), tables.differences_by_tier(results)]
    for key, metric in headline_metrics().items():
        blocks += [Heading(f"{metric.title} of each finding"), tables.by_finding(results, key)]
    if results.systems_differ:
        blocks += [Heading("Systems"), systems.table(results)]
    blocks += [Heading("Settings"), tables.settings(results), *published(results.protocol["dataset"])]
    for name, (heading, caption) in FIGURES.items():
        if name in drawn:
            blocks += [Heading(heading), Figure(f"figures/{name}.png", heading, caption)]
    blocks += [Heading("Protocol"), tables.protocol(results)]
    values = results.to_dict() | {"conclusions": conclusions, "cautions": cautions}
    return Document(f"{results.name}: comparison", tuple(blocks), values, results.records())


def comparison_summary(results: ComparisonResults, out: Path) -> Document:
    """What the terminal shows at the end."""
    return Document(
        results.name,
        (
            tables.methods(results),
            Heading("What it says"),
            Note(tuple(sentences.conclusions(results)), warning=False),
            Heading("What to keep in mind"),
            Note(tuple(sentences.cautions(results))),
            Text(f"Report: {out / 'comparison.html'} (also .md, .tex, .csv, .json, figures/)"),
        ),
    )


def write_comparison(results: ComparisonResults, out: str | Path) -> None:
    """comparison.{md,tex,csv,html,json} and figures/*.{png,pdf}; comparison.json last."""
    out, drawn = Path(out), draw(results)
    for name, figure in drawn.items():
        for suffix in ("png", "pdf"):
            plots.save(figure, out / "figures" / f"{name}.{suffix}", dpi=150)
    document = comparison_document(results, drawn)
    write_text(out / "comparison.md", document.to_markdown())
    write_text(out / "comparison.tex", document.to_latex())
    write_text(out / "comparison.csv", document.to_csv())
    write_text(out / "comparison.html", document.to_html(out))
    write_text(out / "comparison.json", document.to_json())
