"""A page that is about studies and not images says so in every sentence, table and figure.

Builders write "image"; `in_unit` puts the unit of the page in its place. Facts that are about images keep the word:
they are added afterwards.
"""

import dataclasses
import re
from collections.abc import Sequence

import matplotlib.figure
import matplotlib.text

from hf_cxr.reporting.document import Block, Details, Figure, Heading, Note, Table, Text

IMAGE = re.compile(r"\b(an |a )?(image)(s?)\b", re.IGNORECASE)
PLURALS = {"image": "images", "study": "studies"}


def words_in_unit(text: str, unit: str) -> str:
    """A text with the unit in place of the image.

    >>> words_in_unit("An image's score; 12 images", "study")
    "A study's score; 12 studies"
    """
    if unit == "image":
        return text

    def replaced(match: re.Match) -> str:
        article, noun, several = match[1] or "", match[2], match[3]
        word = PLURALS[unit] if several else unit
        word = word.capitalize() if noun[0].isupper() else word
        if not article:
            return word
        return ("A " if article[0] == "A" else "a ") + word

    return IMAGE.sub(replaced, text)


def in_unit(blocks: Sequence[Block], unit: str) -> tuple[Block, ...]:
    """The blocks of a page about a unit: "image" or "study"."""
    return tuple(blocks) if unit == "image" else tuple(_block(block, unit) for block in blocks)


def draw_in_unit(figure: matplotlib.figure.Figure, unit: str) -> matplotlib.figure.Figure:
    """The figure, with its texts in the unit."""
    if unit != "image":
        for text in figure.findobj(matplotlib.text.Text):
            text.set_text(words_in_unit(text.get_text(), unit))
    return figure


def _block(block: Block, unit: str) -> Block:
    match block:
        case Heading() | Text():
            return dataclasses.replace(block, text=words_in_unit(block.text, unit))
        case Note():
            return dataclasses.replace(block, sentences=tuple(words_in_unit(one, unit) for one in block.sentences))
        case Table():
            frame = block.frame.rename(columns=lambda name: words_in_unit(str(name), unit))
            return dataclasses.replace(block, frame=frame, caption=words_in_unit(block.caption, unit))
        case Figure():
            return dataclasses.replace(
                block, alt=words_in_unit(block.alt, unit), caption=words_in_unit(block.caption, unit)
            )
        case Details():
            return Details(words_in_unit(block.summary, unit), in_unit(block.blocks, unit))
        case _:
            return block
