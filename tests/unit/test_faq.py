"""Every answer of docs/faq.md names tests that guard it, and they exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "faq.md").read_text(encoding="utf-8")
ANSWERS = dict(re.findall(r"^### (.*)\n((?:(?!^#).*\n)*)", TEXT, re.MULTILINE))


@cache
def functions(path: str) -> set[str]:
    """The test functions of a file below tests/."""
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_questions_are_read():
    assert len(ANSWERS) == TEXT.count("\n### ") > 30


@pytest.mark.parametrize("question", ANSWERS)
def test_an_answer_names_tests_that_exist(question):
    body = ANSWERS[question]
    _, mark, named = body.partition("*Test:* ")
    assert mark, "say which test guards the answer"
    tests = re.findall(r"`([\w/]+\.py)::(\w+)`", named)
    assert tests
    for path, name in tests:
        assert name in functions(path), f"{path} has no {name}"
