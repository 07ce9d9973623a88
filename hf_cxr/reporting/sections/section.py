"""`Section`: what one analysis contributes to a page.

    section = curves_section(values)        # of curves.py; the table is `table.SECTIONS`

A section function takes the plain values that an analysis wrote (analysis.json), so that a page can be written again
without the predictions. Drawings are functions: a page that is only read for its text draws nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import matplotlib.figure

from hf_cxr.reporting.document import Block


@dataclass(frozen=True)
class Section:
    """One section of a report: its blocks, beginning with a Heading, and the pictures they show.

    Attributes:
        blocks: what a reader sees, in order.
        drawings: path of a picture, relative to the folder of the page (``figures/NAME.png``) -> draws it.
    """

    blocks: tuple[Block, ...]
    drawings: Mapping[str, Callable[[], matplotlib.figure.Figure]] = field(default_factory=dict)
