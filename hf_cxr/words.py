"""Text from outside (names of findings, runs, methods) made harmless for where it is shown.

HTML has `html.escape`, LaTeX `comparison_report.latex`. Here are Markdown and figures.
"""

import re
import textwrap

_ENTITY = re.compile(r"&(?=#?\w+;)")
_SIGNS = re.compile(r"[\\`*\[\]<>|$~]")
_LOOSE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown(text: str) -> str:
    r"""Text that Markdown (of GitHub and the Hub, with tables and formulas) shows as it is, on one line.

    An underscore inside a word is harmless, and stays.

    >>> print(markdown("Pleural_Thickening"), markdown("a|b <i>$x$</i>\n_c_"))
    Pleural_Thickening a\|b &lt;i\>\$x\$&lt;/i\> \_c\_
    """
    text = _ENTITY.sub("&amp;", one_line(text))
    text = _SIGNS.sub(lambda sign: "&lt;" if sign[0] == "<" else f"\\{sign[0]}", text)
    return _LOOSE_UNDERSCORE.sub(r"\\_", text)


def one_line(text: str) -> str:
    """Text without line breaks and other control characters, which become single spaces."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(text)).split())


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
    """As `in_figure`, in up to three lines of so many characters."""
    return _without_formula(textwrap.fill(one_line(text), width, max_lines=3, placeholder="…"))


def _without_formula(text: str) -> str:
    return text.replace("$", r"\$")
