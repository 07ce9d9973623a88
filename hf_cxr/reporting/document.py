"""`Document`: headings, sentences, tables and figures, each written once for every form that a reader may want.

    document = Document("Run a", (Heading("Test set"), Table(frame, "95 % intervals.")))
    document.to_terminal(), document.to_markdown(), document.to_html(folder), document.to_latex()

A builder (run.py, evaluation.py, comparison/, description.py) says what a reader should know, in plain text. A
renderer knows no content: it makes every name harmless (Markdown, HTML, LaTeX and terminals each have their own
special characters) and lays it out; the HTML page is in page.py. `to_csv` and `to_json` are for programs: plain
numbers, empty or null where undefined.
"""

import functools
import html
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hf_cxr.files import plain
from hf_cxr.reporting import page
from hf_cxr.words import markdown, one_line, printable, spreadsheet_cell

TERMINAL_COLUMNS = 120
_NUMBER = re.compile(r"[<+−-]?\d|undefined|infinite|not tested|–?$")


@dataclass(frozen=True)
class Heading:
    """The title of what follows it.

    Args:
        text: the title.
        level: 2 for a part of the document, which its table of contents lists; 3 for a part of a part.
    """

    text: str
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Text:
    """One paragraph; ``strong`` is for the one line that a reader in a hurry should read."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Note:
    """Sentences that are set off from the rest, one an item: a ``warning``, or a conclusion."""

    sentences: tuple[str, ...]
    warning: bool = True


@dataclass(frozen=True, eq=False)
class Table:
    """A table of one row an item, with a caption.

    Args:
        frame: cells as text; column names are unique, and a line break in one is kept where there is room. The first
            column names the rows. The index is not shown.
        caption: what the cells are, in sentences.
        bold: (row, column) numbers of the cells that stand out.
        totals: how many of the last rows sum up the rest: they stay last when a reader sorts the table.
    """

    frame: pd.DataFrame
    caption: str = ""
    bold: frozenset[tuple[int, int]] = frozenset()
    totals: int = 0

    @classmethod
    def of(
        cls, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", bold=frozenset(), totals: int = 0
    ) -> "Table":
        """From a head and rows of text."""
        frame = pd.DataFrame([list(row) for row in rows], columns=list(head), dtype=object)
        return cls(frame, caption, bold, totals)

    @functools.cached_property
    def rows(self) -> list[list[str]]:
        return [[str(cell) for cell in row] for row in self.frame.to_numpy().tolist()]

    @functools.cached_property
    def is_numeric(self) -> list[bool]:
        """For each column, whether all its cells are numbers or stand for one."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.frame.columns)
        return [number > 0 and all(map(_NUMBER.match, cells)) for number, cells in enumerate(columns)]


@dataclass(frozen=True)
class Facts:
    """Names and their values, one pair a line."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figure:
    """A picture in a file.

    Args:
        path: relative to the folder of the document, with forward slashes.
        alt: what it shows, for those who do not see it.
        caption: how to read it, in sentences.
    """

    path: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Details:
    """What only some readers want: folded on a page until it is opened, printed in full, left out of a terminal.

    Args:
        summary: what it holds, in a few words.
        blocks: the content; its headings are of level 3.
    """

    summary: str
    blocks: tuple["Block", ...]


Block = Heading | Text | Note | Table | Facts | Figure | Details


@dataclass(frozen=True, eq=False)
class Document:
    """What a reader sees, in order.

    Args:
        title: of the whole.
        blocks: what a reader sees.
        values: the same as plain values, for `to_json`.
        records: the same as a table of plain numbers, for `to_csv`; None if there is none.
    """

    title: str
    blocks: tuple[Block, ...]
    values: Mapping[str, Any] = field(default_factory=dict)
    records: pd.DataFrame | None = None

    def to_terminal(self) -> str:
        """Aligned text, tables at most 120 columns wide; figures and details are left out."""
        shown = _with_content([block for block in self.blocks if not isinstance(block, Figure | Details)])
        lines, gap = [], ""
        for block, following in itertools.zip_longest(shown, shown[1:]):
            lines.append(gap + _terminal(block))
            together = isinstance(block, Heading) or (isinstance(block, Text) and isinstance(following, Text))
            gap = "" if together else "\n"
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """CommonMark with GitHub's tables; figures are linked, not embedded."""
        parts = [f"# {markdown(self.title)}", *map(block_markdown, self.blocks)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_html(self, folder: str | Path) -> str:
        """One page that needs no network: the figures, from files below ``folder``, are embedded.

        A figure whose file is not there is named in its place.
        """
        return page.render(self.title, self.blocks, Path(folder))

    def to_latex(self) -> str:
        """The tables, for ``\\input``; needs the packages booktabs and graphicx.

        A table's caption begins with the heading above it.
        """
        parts = ["% Tables by hf_cxr. Needs \\usepackage{booktabs,graphicx}."]
        parts += [_latex_table(table, heading) for heading, table in _tables(self.blocks)]
        return "\n\n".join(parts) + "\n"

    def to_csv(self) -> str:
        """``records`` with all their digits, empty where undefined; no cell is a spreadsheet's formula."""
        frame = pd.DataFrame() if self.records is None else self.records
        return frame.rename(columns=spreadsheet_cell).map(spreadsheet_cell).to_csv(index=False, lineterminator="\n")

    def to_json(self) -> str:
        """``values``; what is undefined or infinite is null."""
        return json.dumps(plain(self.values), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _tables(blocks: Sequence[Block], heading: str = "") -> Iterator[tuple[str, Table]]:
    """Every table, with the heading or summary above it."""
    for block in blocks:
        match block:
            case Heading(text):
                heading = text
            case Table():
                yield heading, block
            case Details(summary, inside):
                yield from _tables(inside, summary)


# Terminal


def _with_content(blocks: Sequence[Block]) -> list[Block]:
    """Without headings that nothing follows, such as those of figures."""
    kept: list[Block] = []
    for block in reversed(blocks):
        below = kept[-1] if kept else Heading("the end")
        if not (isinstance(block, Heading) and isinstance(below, Heading) and below.level <= block.level):
            kept.append(block)
    return kept[::-1]


def _terminal(block: Block) -> str:
    match block:
        case Heading(text) | Text(text):
            return printable(text)
        case Note(sentences, warning):
            return "\n".join(_wrapped(sentence, "  ! " if warning else "- ") for sentence in sentences)
        case Facts(pairs):
            width = max((len(printable(name)) for name, _ in pairs), default=0)
            return "\n".join(f"{printable(name):<{width}}  {printable(value)}" for name, value in pairs)
        case Table(caption=caption):
            return text_table(block) + (f"\n{_wrapped(caption)}" if caption else "")


def _wrapped(text: str, start: str = "") -> str:
    return textwrap.fill(
        printable(text),
        TERMINAL_COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def text_table(table: Table, width: int = TERMINAL_COLUMNS) -> str:
    """Aligned columns; columns that do not fit the terminal continue below, with the first column repeated.

    pandas' ``to_string`` breaks no column name into lines and ends what it breaks with a backslash.

    >>> print(text_table(Table.of(["finding", "train\\nimages"], [["Hernia", "227"]])))
              train
    finding  images
    Hernia      227
    """
    names = [[printable(line) for line in str(name).split("\n")] for name in table.frame.columns]
    height = max(map(len, names))
    tops = list(zip(*([""] * (height - len(lines)) + lines for lines in names), strict=True))
    rows = [*tops, *([printable(cell) for cell in row] for row in table.rows)]
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks, room = [[]], width - sizes[0]
    for number in range(1, len(sizes)):
        if blocks[-1] and sizes[number] + 2 > room:
            blocks.append([])
            room = width - sizes[0]
        blocks[-1].append(number)
        room -= sizes[number] + 2
    side = [">" if numeric else "<" for numeric in table.is_numeric]
    lines = []
    for block in blocks:
        lines += ["  ".join(f"{row[n]:{side[n]}{sizes[n]}}" for n in (0, *block)).rstrip() for row in rows]
        lines.append("")
    return "\n".join(lines[:-1])


# Markdown


def block_markdown(block: Block) -> str:
    """One block as Markdown, for a page that has other parts too, such as a model card."""
    match block:
        case Heading(text, level):
            return f"{'#' * level} {markdown(text)}"
        case Text(text, strong):
            return f"**{markdown(text)}**" if strong else markdown(text)
        case Note(sentences, warning):
            return "\n".join(f"- **{markdown(one)}**" if warning else f"- {markdown(one)}" for one in sentences)
        case Facts(pairs):
            return "\n".join(f"- {markdown(name)}: {markdown(value)}" for name, value in pairs)
        case Figure(path, alt, caption):
            return f"![{markdown(alt)}]({path})" + (f"\n\n{markdown(caption)}" if caption else "")
        case Table(caption=caption):
            return _markdown_table(block) + (f"\n\n{markdown(caption)}" if caption else "")
        case Details(summary, blocks):
            inside = "\n\n".join(map(block_markdown, blocks))
            return f"<details>\n<summary>{html.escape(one_line(summary))}</summary>\n\n{inside}\n\n</details>"


def _markdown_table(table: Table) -> str:
    cells = [[markdown(cell) for cell in row] for row in (table.frame.columns, *table.rows)]
    for row, column in table.bold:
        if cells[row + 1][column]:
            cells[row + 1][column] = f"**{cells[row + 1][column]}**"
    cells.insert(1, ["---:" if numeric else "---" for numeric in table.is_numeric])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


# LaTeX

_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": "$\\pm$",
    "−": "$-$",
    "–": "--",
    "α": "$\\alpha$",
    "γ": "$\\gamma$",
    "\n": " ",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


def latex(text: object) -> str:
    r"""Text with LaTeX's own characters made harmless and signs as commands.

    >>> print(latex("5 % of A_B: −0.1 ± 0.2"))
    5 \% of A\_B: $-$0.1 $\pm$ 0.2
    """
    return "".join(_LATEX.get(character, character) for character in str(text))


def _latex_table(table: Table, heading: str) -> str:
    style = table.frame.style.hide(axis="index").format(latex).format_index(latex, axis="columns")
    bold = pd.DataFrame("", index=table.frame.index, columns=table.frame.columns)
    for row, column in table.bold:
        bold.iloc[row, column] = "font-weight: bold;" if table.rows[row][column] else ""
    columns = "".join("r" if numeric else "l" for numeric in table.is_numeric)
    body = style.apply(lambda _: bold, axis=None).to_latex(hrules=True, column_format=columns, convert_css=True)
    caption = ". ".join(part.rstrip(".") for part in (heading, table.caption) if part)
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}",
            f"\\caption{{{latex(caption)}.}}",
            # Shrinks what is too wide, and nothing else.
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%",
            f"{body.rstrip()}}}",
            "\\end{table}",
        ]
    )


def last_row(rows: Sequence[Any], columns: int) -> frozenset[tuple[int, int]]:
    """The cells of the last row, for `Table.bold`."""
    return frozenset(itertools.product([len(rows) - 1], range(columns)))
