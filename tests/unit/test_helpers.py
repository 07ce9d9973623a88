"""Modules of tests that import one another lie where pytest looks for them, whichever of them it collects."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """First parts of the names of the modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names}


def test_what_tests_import_from_one_another_is_on_the_path():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    reached = {file.stem for folder in settings["pythonpath"] for file in (ROOT / folder).glob("*.py")}
    own = {file.stem for file in TESTS}
    wanted = {name for file in TESTS for name in imported(file) & own}
    assert len(wanted) > 20
    assert wanted - reached == set()
