"""A contact sheet of the most confident mistakes: one page with the radiographs in it, for the machine it is made on.

It is not part of a report and is never pushed: the page shows patients' images with their ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from hf_cxr.reporting.pictures import in_base64, shrunk
from hf_cxr.words import one_line

TEMPLATES = Path(__file__).with_name("templates")
SHEET = Path("local") / "mistakes.html"
"""Its place below a folder of results: a separate folder, which no list of files to push contains."""

CAUTIONS = (
    "This page contains patients' images and their ids. Keep it on this machine: do not share, publish or push it.",
    "A mistake here is a disagreement with the label. Labels mined from reports are often the error, above all among "
    "the most confident ones: look before you blame the model, and do not correct labels of a test set by its scores.",
    "At most one image of a patient is in each list. These are the extremes, not a fair sample of the errors.",
)


@dataclass(frozen=True)
class Tile:
    """One image of the sheet.

    Attributes:
        image_id: its name.
        score: the model's probability of the finding, as text.
        facts: view, age and sex, as text.
        labels: the findings that it is labelled with, as text.
        png: the picture, base64.
    """

    image_id: str
    score: str
    facts: str
    labels: str
    png: str


def thumbnail(grey_HW: NDArray[np.uint8], side: int) -> str:
    """A grey image as a PNG in base64, its longer side ``side`` pixels; a smaller one stays as it is."""
    return in_base64(shrunk(grey_HW, side), optimize=True)


def contact_sheet(title: str, findings: Mapping[str, tuple[Sequence[Tile], Sequence[Tile]]]) -> str:
    """The page.

    Args:
        title: which model on which data.
        findings: finding -> tiles of the highest-scored negatives and of the lowest-scored positives.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    shown = [
        {
            "name": one_line(name),
            "lists": (
                ("Labelled absent, highest scores", negatives),
                ("Labelled present, lowest scores", positives),
            ),
        }
        for name, (negatives, positives) in findings.items()
    ]
    return environment.get_template("mistakes.html").render(title=title, cautions=CAUTIONS, findings=shown)
