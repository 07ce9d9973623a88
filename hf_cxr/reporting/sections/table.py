"""`SECTIONS`: which analyses a page shows, and in which order.

    blocks += section_blocks(analysis)

An analysis is one module in evaluation/, which measures and gives plain values (analysis.json), and one here, whose
function makes a `Section` of them. Adding one is those two modules, and a line in this table at its place.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hf_cxr.reporting.document import Block, Heading, Note, Text
from hf_cxr.reporting.numbers import by_reason
from hf_cxr.reporting.plots import save
from hf_cxr.reporting.protocol import FEW_PATIENTS
from hf_cxr.reporting.sections.averaged_views import averaged_views_section
from hf_cxr.reporting.sections.calibration_maps import calibration_maps_section
from hf_cxr.reporting.sections.conformal import conformal_section
from hf_cxr.reporting.sections.controls import controls_section
from hf_cxr.reporting.sections.curves import curves_section
from hf_cxr.reporting.sections.decision_curves import decision_curves_section
from hf_cxr.reporting.sections.input_check import HEADING, input_check_section
from hf_cxr.reporting.sections.localization import localization_section
from hf_cxr.reporting.sections.operating_points import operating_points_section
from hf_cxr.reporting.sections.paired import paired_section
from hf_cxr.reporting.sections.prevalence_shift import prevalence_shift_section
from hf_cxr.reporting.sections.reliability import reliability_section
from hf_cxr.reporting.sections.section import Section
from hf_cxr.reporting.sections.stress import stress_section
from hf_cxr.reporting.sections.subgroups import subgroups_section
from hf_cxr.reporting.units import draw_in_unit
from hf_cxr.words import plural

SECTIONS: dict[str, Callable[[Mapping[str, Any]], Section]] = {
    "paired": paired_section,
    "averaged_views": averaged_views_section,
    "curves": curves_section,
    "reliability": reliability_section,
    "calibration_maps": calibration_maps_section,
    "prevalence_shift": prevalence_shift_section,
    "operating_points": operating_points_section,
    "decision_curves": decision_curves_section,
    "subgroups": subgroups_section,
    "controls": controls_section,
    "localization": localization_section,
    "stress": stress_section,
    "conformal": conformal_section,
    "input_check": input_check_section,
}
"""Key in analysis.json -> the function that makes its section; in the order of the page."""


def sections_of(analysis: Mapping[str, Any]) -> dict[str, Section]:
    """The sections of the analyses that were done, by key, in the order of the page.

    Args:
        analysis: values by key; a key that is not in the table is not for the page.
    """
    return {key: SECTIONS[key](analysis[key]) for key in SECTIONS if key in analysis}


TITLES = {
    "curves": "ROC and precision-recall curves",
    "reliability": "Reliability of the probabilities",
    "calibration_maps": "Which calibration map",
    "prevalence_shift": "Other prevalences",
    "operating_points": "Operating points",
    "decision_curves": "Decision curves",
    "subgroups": "For whom it fails",
    "controls": "Controls: what is reached without a pixel",
    "conformal": "Label sets with a stated coverage",
    "input_check": HEADING,
}
"""Key of an analysis that may be left out -> the heading that its section would have."""


def section_blocks(analysis: Mapping[str, Any], patients: int | None = None) -> tuple[Block, ...]:
    """The blocks of all sections, in the order of the page; last, what was not done, and why.

    Args:
        analysis: values by key.
        patients: how many were measured; of very few the sections draw no conclusion. None: enough.
    """
    blocks = tuple(block for section in sections_of(analysis).values() for block in section.blocks)
    if is_too_small(patients):
        nothing = Text(f"No conclusion is drawn from {plural(patients, 'patient')}.")
        blocks = tuple(nothing if isinstance(block, Text) and block.strong else block for block in blocks)
    not_done = {TITLES.get(key, key): reason for key, reason in (analysis.get("not_done") or {}).items()}
    return (*blocks, Heading("Not done"), Note(by_reason(not_done), warning=False)) if not_done else blocks


def is_too_small(patients: int | None) -> bool:
    """Whether there are too few patients for any conclusion; None stands for enough."""
    return patients is not None and patients < FEW_PATIENTS


def conclusions(analysis: Mapping[str, Any], patients: int | None = None) -> tuple[tuple[str, str], ...]:
    """The heading of each section that has a conclusion, and the conclusion; arguments as for `section_blocks`."""
    if is_too_small(patients):
        return ()
    found = []
    for section in sections_of(analysis).values():
        strong = [block.text for block in section.blocks if isinstance(block, Text) and block.strong]
        if strong:
            found.append((section.blocks[0].text, " ".join(strong)))
    return tuple(found)


def draw_sections(analysis: Mapping[str, Any], folder: Path, *, unit: str = "image") -> list[str]:
    """Draw every picture of the sections to its place below a folder, and give the paths.

    Args:
        analysis: values by key.
        folder: of the page.
        unit: "image" or "study", what the figures are of.
    """
    drawings = {path: draw for section in sections_of(analysis).values() for path, draw in section.drawings.items()}
    for path, draw in drawings.items():
        save(draw_in_unit(draw(), unit), folder / path)
    return list(drawings)
