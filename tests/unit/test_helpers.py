"""Modules of tests that import one another lie where pytest looks for them, whichever of them it collects."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = ("tests/process/golden.py",)  # Python itself puts a script's folder on the path


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
    read = [file for file in TESTS if file.relative_to(ROOT).as_posix() not in SCRIPTS]
    assert len(read) == len(TESTS) - len(SCRIPTS)
    wanted = {name for file in read for name in imported(file) & own}
    assert len(wanted) > 20
    assert wanted - reached == set()
    for folder in settings["pythonpath"]:
        assert wanted & {file.stem for file in (ROOT / folder).glob("*.py")}, f"nothing is imported from {folder}"
