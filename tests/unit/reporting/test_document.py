"""Every form of a document has the same cells and sentences, and a name is only ever text in it."""

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from hf_cxr.reporting.document import (
    TERMINAL_COLUMNS,
    Details,
    Document,
    Facts,
    Figure,
    Heading,
    Note,
    Table,
    Text,
    latex,
    text_table,
)

HOSTILE = ("<script>x</script>", "a|b", "*c* _d_", r"\textbf{e} 5 % & $x$", "=1+1", "\x1b[2Jf", "肺", "tab\there")


@pytest.fixture
def document():
    rows = [[name, f"{number}.5", "undefined"] for number, name in enumerate(HOSTILE)]
    table = Table.of(["finding", "train\nimages", "p"], rows, "What the cells are.", frozenset([(0, 1)]))
    return Document(
        "Title & <more>",
        (
            Text("In one line", strong=True),
            Note(("be careful",)),
            Heading("First"),
            table,
            Facts((("key", "a <value>"),)),
            Figure("figures/a.png", "a picture"),
        ),
        values={"auc": float("nan"), "names": HOSTILE},
        records=pd.DataFrame({"finding": HOSTILE, "auc": [0.1 + 0.2, np.nan, *[1.0] * 6]}),
    )


class Cells(HTMLParser):
    """Cells of tables and tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.tags, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = tag in ("td", "th")
        if self.inside:
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


def test_html_shows_every_cell_and_runs_nothing(document, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.png").write_bytes(b"picture")
    page = document.to_html(tmp_path)
    read = Cells(page)
    assert read.cells[:3] == ["finding", "train\nimages", "p"]
    assert read.cells[3::3] == list(HOSTILE)
    assert read.tags.count("script") == 1  # the page's own
    assert "data:image/png;base64,cGljdHVyZQ==" in page
    assert 'alt="a picture"' in page
    assert not re.search(r"(src|href)=\"(http|//)|url\(|@import", page)  # nothing from a network
    assert "figures/a.png" in document.to_html(tmp_path / "elsewhere")  # named, where it is missing


def test_a_page_has_contents_links_and_keys_to_sort_by(tmp_path):
    rows = [
        ["A", "1,234 (56)", "−0.1 (−0.2 to 0.1)"],
        ["B", "7", "undefined"],
        ["C", "–", "<0.001"],
        ["mean", "", "1"],
    ]
    blocks = [
        Heading("Same"),
        Text("See https://doi.org/10.1/x, and <b>."),
        Heading("Under it", 3),
        Heading("Same"),
        Heading("肺"),
        Heading("Last"),
        Table.of(("finding", "n", "x"), rows, totals=1),
        Details("More", (Heading("Inside", 3), Table.of(("a", "b"), [["x", "y"]]))),
    ]
    page = Document("Title", tuple(blocks)).to_html(tmp_path)
    targets = re.findall(r'<li><a href="#([^"]+)"', page)
    assert targets == ["same", "same--2", "part", "last"]  # of level 2; not of level 3
    assert all(page.count(f' id="{target}"') == 1 for target in targets)
    assert '<h3 id="under-it">Under it</h3>' in page
    assert '<a href="https://doi.org/10.1/x">https://doi.org/10.1/x</a>, and &lt;b&gt;.' in page
    assert re.findall(r'data-sort="([^"]*)"', page) == ["1234.0", "-0.1", "7.0", "", "", "0.001", "", "1.0"]
    body, foot = page.split("<tbody>")[1].split("<tfoot>")
    assert "mean" in foot.split("</tfoot>")[0]
    assert "mean" not in body
    assert page.count('<table class="sortable figures">') == 1
    assert page.count("<table>") == 1  # one row is in order already
    assert "<summary>More</summary>" in page
    assert "<h3>Inside</h3>" in page
    short = Document("Title", (Heading("One"), Heading("Two"))).to_html(tmp_path)
    assert "<nav" not in short


def test_details_are_in_every_form_but_the_terminals():
    table = Table.of(("a", "b"), [["x", "y<"]], "caption")
    document = Document("", (Heading("Folded"), Details("More & <more>", (Text("words"), table)), Text("end")))
    assert "<summary>More &amp; &lt;more&gt;</summary>\n\nwords\n\n| a | b |" in document.to_markdown()
    assert "<summary>More &amp; &lt;more&gt;</summary>" in document.to_html("nowhere")
    assert r"\caption{More \& $<$more$>$. caption.}" in document.to_latex()
    assert document.to_terminal() == "Folded\nend"
    nothing = Document("", (Heading("A"), Heading("Below", 3), Details("More", ()), Heading("B"), Text("words")))
    assert nothing.to_terminal() == "B\nwords"
    assert Document("", (Heading("A"), Heading("Below", 3), Text("x"))).to_terminal() == "A\nBelow\nx"
    assert "### Below" in nothing.to_markdown()


def test_a_picture_has_its_size_on_the_page(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x03\xe8\0\0\1\0")
    page = Document("", (Figure("a.png", "alt <text>"),)).to_html(tmp_path)
    assert 'width="1000" height="256"' in page
    assert 'alt="alt &lt;text&gt;"' in page


def test_markdown_shows_every_cell(document):
    text = document.to_markdown()
    read = Cells(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    assert read.cells[3::3] == [" ".join(name.split()).replace("\x1b", "\ufffd") for name in HOSTILE]
    assert read.cells[1::3][0] == "train images"
    assert "script" not in read.tags
    assert "| **0.5** |" in text
    assert "![a picture](figures/a.png)" in text


def test_the_terminal_is_not_moved_and_not_overrun(document):
    text = document.to_terminal()
    assert "\x1b" not in text
    assert all(words in text for words in ("In one line", "  ! be careful", "First", "What the cells are.", "7.5"))
    long = Document("", (Note(("word " * 60,)), Table.of(["a", *map(str, range(60))], [["x"] * 61])))
    assert max(map(len, long.to_terminal().splitlines())) <= TERMINAL_COLUMNS


def test_a_wide_table_goes_on_below():
    text = text_table(Table.of(["x", "aaaa", "bb\nbbbb"], [["row", "1", "2"]]), width=10)
    assert text == "\nx    aaaa\nrow     1\n\n       bb\nx    bbbb\nrow     2"


def test_a_heading_of_figures_alone_is_not_for_the_terminal():
    blocks = (
        Heading("One"),
        Figure("a.png", "a"),
        Heading("Two"),
        Text("words"),
        Heading("Three"),
        Figure("b.png", "b"),
    )
    text = Document("", blocks).to_terminal()
    assert ("One" in text, "Two" in text, "Three" in text) == (False, True, False)


def test_latex_has_no_open_character(document):
    text = document.to_latex()
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 1
    assert r"\bfseries 0.5" in text
    assert "First. What the cells are." in text
    for name in HOSTILE:
        assert latex(name) in text
    assert not re.search(r"(?<!\\)[%#]", re.sub(r"^%.*|%$", "", text, flags=re.MULTILINE))


def test_csv_has_all_digits_and_no_formula(document):
    rows = list(csv.DictReader(io.StringIO(document.to_csv())))
    assert float(rows[0]["auc"]) == 0.1 + 0.2
    assert rows[1]["auc"] == ""
    assert rows[HOSTILE.index("=1+1")]["finding"] == "'=1+1"
    assert rows[0]["finding"] == HOSTILE[0]
    assert Document("", ()).to_csv().strip() == ""


def test_json_has_null_where_undefined(document):
    assert json.loads(document.to_json()) == {"auc": None, "names": list(HOSTILE)}


def test_numbers_are_aligned_to_the_right_and_words_to_the_left():
    table = Table.of(
        ["a", "b", "c", "d"], [["1", "−0.1 (−0.2 to +0.1)", "word", "<0.001"], ["2", "undefined", "3", "–"]]
    )
    assert table.is_numeric == [False, True, False, True]
    assert Table.of(["a", "b"], []).is_numeric == [False, True]
