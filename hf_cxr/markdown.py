"""Names and sentences inside Markdown: what a reader sees is the text, whatever characters it has."""

import re
import unicodedata

# Any of these can start or end markup, HTML, a table cell, a heading, an entity or a formula. A backslash before ASCII
# punctuation makes it literal, inside a table and outside.
_SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~$&]")
# Inside a word an underscore is literal, and Pleural_Thickening stays readable in the source.
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def one_line(text: str) -> str:
    """The text on one line: white space runs become one space, and control characters a replacement character.

    >>> one_line("Mass\\n  (left)\\x00")
    'Mass (left)�'
    """
    hidden = {c for c in str(text) if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()}
    return " ".join(str(text).translate(dict.fromkeys(map(ord, hidden), "\ufffd")).split())


def escape(text: str) -> str:
    """Text that a Markdown renderer (CommonMark, GitHub's tables) shows literally, on one line.

    It is meant for the inside of a line: after ``# ``, ``- `` or ``| ``, or in the middle of a sentence.

    >>> escape("<b>A|B</b> *x* Pleural_Thickening _y_")
    '\\\\<b\\\\>A\\\\|B\\\\</b\\\\> \\\\*x\\\\* Pleural_Thickening \\\\_y\\\\_'
    """
    return _UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\g<0>", one_line(text)))
