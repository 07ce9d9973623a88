"""`Section`: what one analysis adds to a report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import matplotlib.figure

from hf_cxr.reporting.document import Block


@dataclass(frozen=True)
class Section:
    """One section of a report: its blocks, beginning with a Heading, and the pictures they show.

    Attributes:
        blocks: in order.
        drawings: path relative to the folder of the document, such as "figures/NAME.png" -> what draws it.
    """

    blocks: tuple[Block, ...]
    drawings: Mapping[str, Callable[[], matplotlib.figure.Figure]] = field(default_factory=dict)
