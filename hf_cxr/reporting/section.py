"""`Section`: one part of a report, with the pictures that it shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from hf_cxr.reporting.document import Block


@dataclass(frozen=True)
class Section:
    """One section of a report: its blocks, beginning with a Heading, and the pictures they show.

    Args:
        blocks: what a reader sees, in order.
        drawings: path relative to the run folder, "figures/NAME.png" -> draws the picture.
    """

    blocks: tuple[Block, ...]
    drawings: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
