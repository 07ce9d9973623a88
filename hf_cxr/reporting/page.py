"""A document as one HTML page that needs no network: styles, script and pictures are in it.

The page has a table of contents, is light or dark as the reader's system is, fits a telephone and a wide screen, and
prints. Its script sorts tables by a click on a heading or a key, opens what is folded before printing, and marks the
part that is being read; without a script everything can still be read. The page's policy lets the browser run that
script alone and fetch nothing.

The layout is templates/document.html, .css and .js.
"""

import base64
import functools
import hashlib
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jinja2
from markupsafe import Markup, escape

from hf_cxr.files import PNG_SIGNATURE
from hf_cxr.reporting.numbers import leading_number

if TYPE_CHECKING:
    from hf_cxr.reporting.document import Block, Figure

TEMPLATES = Path(__file__).with_name("templates")
LISTED_FROM = 4
"""So many headings, and a page has a table of contents."""

_LINK = re.compile(r"https://[^\s<>\"]*[^\s<>\".,;:)]")


class Picture(NamedTuple):
    """A PNG for an ``img``: its bytes in base64, and its size in pixels, or None if they are not a PNG's."""

    data: str
    width: int | None
    height: int | None


def render(title: str, blocks: Sequence["Block"], folder: Path) -> str:
    """The page; figures are read from files below ``folder``, and one that is not there is named in its place."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    environment.filters |= {"linked": linked, "sort_key": sort_key}
    headings = [block for block in blocks if type(block).__name__ == "Heading"]
    ids = dict(zip(map(id, headings), _anchors([heading.text for heading in headings]), strict=True))
    script = (TEMPLATES / "document.js").read_text(encoding="utf-8")
    parts = [heading for heading in headings if heading.level == 2]
    return environment.get_template("document.html").render(
        title=title,
        blocks=blocks,
        contents=parts if len(parts) >= LISTED_FROM else (),
        anchor=lambda heading: ids.get(id(heading)),
        picture=functools.partial(_picture, folder),
        style=Markup((TEMPLATES / "document.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def linked(text: object) -> Markup:
    """Text with its https addresses as links; everything else in it stays text.

    >>> print(linked("<b> https://doi.org/10.1/x."))
    &lt;b&gt; <a href="https://doi.org/10.1/x">https://doi.org/10.1/x</a>.
    """
    text, parts, end = str(text), [], 0
    for match in _LINK.finditer(text):
        parts += [escape(text[end : match.start()]), Markup('<a href="{0}">{0}</a>').format(match[0])]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def sort_key(cell: str) -> str:
    """The number that a cell is sorted by, as a script reads it; empty where there is none, which sorts last."""
    value = leading_number(cell)
    return "" if value is None else "Infinity" if value == math.inf else repr(value)


def _anchors(texts: Sequence[str]) -> list[str]:
    """An id of each heading: its words, made unique."""
    anchors: list[str] = []
    for text in texts:
        words = "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "part"
        same = sum(anchor == words or anchor.rpartition("--")[0] == words for anchor in anchors)
        anchors.append(f"{words}--{same + 1}" if same else words)
    return anchors


def _picture(folder: Path, figure: "Figure") -> Picture | None:
    path = folder / figure.path
    if not path.is_file():
        return None
    content = path.read_bytes()
    is_png = content.startswith(PNG_SIGNATURE) and len(content) >= 24
    size = struct.unpack(">II", content[16:24]) if is_png else (None, None)
    return Picture(base64.b64encode(content).decode(), *size)
