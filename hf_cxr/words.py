"""Text from outside (names of findings, runs, methods, files; errors) made harmless for where it is shown.

Here are Markdown, figures, terminals and spreadsheets. HTML is escaped by Jinja, LaTeX by `reporting.document.latex`.
"""

import re
import textwrap
import unicodedata
from typing import Any

NOTICE = "Not a medical device. For research."
"""On every page, server and file that is made of a model."""

NOT_A_DEVICE = "Not a medical device. Not for diagnosis or treatment. For research only."
"""In reports and cards."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

# Any of these can start or end markup, HTML, a table cell, a heading, an entity or a formula. A backslash before ASCII
# punctuation makes it literal, inside a table and outside.
_SPECIAL = re.compile(r"[\\`*{}\[\]<>#|~$&]")
# Inside a word an underscore is literal, and Pleural_Thickening stays readable in the source.
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def markdown(text: str) -> str:
    """Text that a Markdown renderer (CommonMark, GitHub's tables) shows literally, on one line.

    It is meant for the inside of a line: after ``# ``, ``- `` or ``| ``, or in the middle of a sentence.

    >>> markdown("<b>A|B</b> *x* Pleural_Thickening _y_")
    '\\\\<b\\\\>A\\\\|B\\\\</b\\\\> \\\\*x\\\\* Pleural_Thickening \\\\_y\\\\_'
    """
    return _UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\g<0>", one_line(text)))


def one_line(text: str) -> str:
    """The text on one line: white space runs become one space, and control characters a replacement character.

    >>> one_line("Mass\\n  (left)\\x00")
    'Mass (left)�'
    """
    hidden = {c for c in str(text) if unicodedata.category(c) in ("Cc", "Cs") and not c.isspace()}
    return " ".join(str(text).translate(dict.fromkeys(map(ord, hidden), "\ufffd")).split())


def error_words(error: BaseException, most: int = 300) -> str:
    """An error's message on one line, with its type where the message alone is not clear.

    >>> error_words(KeyError("image")), error_words(ValueError("no such\\ncolumn"))
    ("KeyError 'image'", 'no such column')
    """
    text = one_line(str(error))
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__} {text}".strip()


def plural(count: float, noun: str, many: str | None = None) -> str:
    """A count with its noun, and with its verb if the nouns contain one.

    Args:
        count: how many, a whole number or not.
        noun: the words after 1.
        many: the words after any other count; by default ``noun`` with an s.

    >>> plural(1, "comparison"), plural(2000, "draw"), plural(1.5, "epoch"), plural(1, "image is", "images are")
    ('1 comparison', '2,000 draws', '1.5 epochs', '1 image is')
    """
    number = f"{int(count):,}" if count == int(count) else f"{count:g}"
    return f"{number} {noun if count == 1 else many or f'{noun}s'}"


def in_figure(text: str, most: int = 60) -> str:
    r"""Text that matplotlib draws as it is: a dollar sign begins no formula, and a long name leaves room for the rest.

    >>> print(in_figure(r"$\frac{$"), in_figure("a long name", most=6))
    \$\frac{\$ a lon…
    """
    text = one_line(text)
    return _without_formula(text if len(text) <= most else f"{text[: most - 1]}…")


def in_legend(text: str, most: int = 40) -> str:
    """As `in_figure`; matplotlib leaves out legend entries that begin with an underscore."""
    text = in_figure(text, most)
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def in_title(text: str, width: int = 100) -> str:
    """As `in_figure`, in up to three lines of ``width`` characters."""
    return _without_formula(textwrap.fill(one_line(text), width, max_lines=3, placeholder="…"))


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


def _without_formula(text: str) -> str:
    return text.replace("$", r"\$")


def _escape(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        return _surrogate(character)
    return character.encode("unicode_escape").decode("ascii")


def _surrogate(character: str) -> str:
    # Python holds a byte of a name that is not UTF-8 as U+DC80 to U+DCFF; Windows has names with the rest.
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"
