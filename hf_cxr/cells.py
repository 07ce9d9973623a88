"""Names that may hold anything (file names, finding names) as text for a terminal, a CSV cell or a spreadsheet."""

import re
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def printable(text: object) -> str:
    """One line that moves no cursor: what cannot be printed is escaped, a byte that is not UTF-8 as \\xNN.

    >>> printable("a\\nb \\x1b[2J \\udcff é")
    'a\\\\nb \\\\x1b[2J \\\\xff é'
    """
    return "".join(c if c.isprintable() else _escape(c) for c in str(text))


def utf8_text(name: object) -> str:
    """A file name as text that UTF-8 can hold: a byte of the name that is not UTF-8 is written as \\xNN.

    All other names stay as they are.

    >>> utf8_text("sch\\udcf6n.png")
    'sch\\\\xf6n.png'
    """
    return re.sub("[\ud800-\udfff]", lambda match: _surrogate(match[0]), str(name))


def spreadsheet_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it.

    Numbers, also those that are text already, stay as they are.

    >>> [spreadsheet_cell(value) for value in ("=1+1", "@x", "-0.5", -0.5, "Effusion")]
    ["'=1+1", "'@x", '-0.5', -0.5, 'Effusion']
    """
    if not isinstance(value, str) or not value.startswith(FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _escape(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return _surrogate(character)
    return character.encode("unicode_escape").decode("ascii")


def _surrogate(character: str) -> str:
    # Python holds a byte of a name that is not UTF-8 as U+DC80 to U+DCFF; Windows has names with the rest.
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
