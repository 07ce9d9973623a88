"""The page's examples: phantoms, drawn when it starts and kept in memory. No patient's image is ever an example."""

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from hf_cxr.demo.bars import shown_name
from hf_cxr.demo.pictures import SIDE_OF_EXAMPLE, address_of
from hf_cxr.demo.uploads import GreyImage
from hf_cxr.phantom.cases import Case
from hf_cxr.phantom.drawing import render_case
from hf_cxr.reporting.pictures import shrunk

SEED = 2017
SIZE = 512
CASES = (
    Case(patient=1, image=0, findings=(), view="PA", age=41.0, sex="F"),
    Case(patient=2, image=0, findings=("Effusion",), view="PA", age=67.0, sex="M"),
    Case(patient=3, image=0, findings=("Edema", "Effusion"), view="AP", age=74.0, sex="F"),
    Case(patient=4, image=0, findings=("Mass",), view="PA", age=58.0, sex="M"),
)
REMARK = "An example: a synthetic phantom, not a patient."


@dataclass(frozen=True)
class Example:
    """A phantom.

    Attributes:
        words: what was drawn.
        grey_HW: (SIZE, SIZE) uint8.
    """

    words: str
    grey_HW: NDArray[np.uint8]

    @property
    def image(self) -> GreyImage:
        """As if a reader had given it."""
        return GreyImage(f"phantom drawn with: {self.words}", self.grey_HW, (REMARK,))


def draw_examples(size: int = SIZE) -> tuple[Example, ...]:
    """The examples, in order."""
    return tuple(
        Example(
            words=", ".join(map(shown_name, case.findings)) or "no finding",
            grey_HW=render_case(case, seed=SEED, size=size)[0],
        )
        for case in CASES
    )


def examples_html(examples: tuple[Example, ...]) -> str:
    """A button with a small picture for each."""
    buttons = "".join(
        f'<button type="button" data-example="{position}"><img alt="" src="'
        f'{address_of(shrunk(example.grey_HW, SIDE_OF_EXAMPLE))}"><span>{escape(example.words)}</span></button>'
        for position, example in enumerate(examples)
    )
    return (
        '<div class="cxr-examples"><p>Or try a synthetic phantom, drawn with:</p>'
        f'<div class="cxr-row">{buttons}</div></div>'
    )
