"""No page has a place that waits for its text: a word such as TODO, or a line of capitals where a figure belongs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "model_card.md", *sorted((ROOT / "docs").rglob("*.md"))]
WORD = re.compile(r"\b(TODO|TBD|FIXME|XXX+|PLACEHOLDER)\b")
CAPITALS = re.compile(r"[A-Z][A-Z_ .:]{2,}")
HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)")


def placeholders(text: str) -> list[str]:
    """Lines that wait for their text, each with its number; the end of a here-document in a shell block is none."""
    ends = set(HEREDOC.findall(text))
    return [
        f"line {number}: {line}"
        for number, line in enumerate(text.splitlines(), 1)
        if WORD.search(line) or (CAPITALS.fullmatch(line.strip()) and line.strip() not in ends)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_waits_for_its_text(page):
    assert placeholders(page.read_text(encoding="utf-8")) == []


def test_what_counts_as_a_placeholder():
    assert len(placeholders("TODO: figures\nMEASURED\n  NUMBERS HERE\nsee XXX below\n")) == 4
    assert placeholders("cat > a.yaml <<'YAML'\nname: a\nYAML\nThe NIH has AUC.\n| AUC | AP |\n") == []
