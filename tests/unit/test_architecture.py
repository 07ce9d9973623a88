"""The import order of the design: a module imports only from bars to its left, a family from inside itself too."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hf_cxr"

# Bars from left to right. Within the bar of `data` the parts never import one another.
BARS = (
    ("labels", "files", "yaml_files", "cells", "words"),
    ("arguments", "saved_models", "phantom"),
    ("config",),
    ("data", "processing", "models", "losses", "sampling", "evaluation", "predictions"),
    ("training", "inference"),
    ("reporting", "push_files"),
    ("hub",),
    ("run",),
    ("commands",),
)
BAR_OF = {part: number for number, bar in enumerate(BARS) for part in bar}


def imports_of(path: Path) -> set[str]:
    """Parts of the package that a file imports, at its top or inside functions."""
    found = set()
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: relative import; write it in full"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "hf_cxr" else {node.module}
            )
    parts = {name.split(".")[1] for name in found if name.startswith("hf_cxr.")}
    return parts - {inside[0]} - {"__version__"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_left(path):
    part = part_of(path)
    if part == "__init__":
        return
    assert part in BAR_OF, f"{part} is in no bar of the design; add it there first"
    for other in imports_of(path):
        assert other in BAR_OF, f"{path.name} imports {other}, which is in no bar"
        assert BAR_OF[other] < BAR_OF[part], f"{part} may not import {other}: it does not stand to its left"


def test_the_check_sees_an_import_to_the_right(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "losses").mkdir()
    offender = tmp_path / "losses" / "bad.py"
    offender.write_text("def f():\n    from hf_cxr.training.trainer import CXRTrainer\n")
    assert imports_of(offender) == {"training"}


def test_public_names_resolve():
    import hf_cxr

    assert hf_cxr.__all__ == sorted(hf_cxr.__all__)
    assert all(getattr(hf_cxr, name) is not None for name in hf_cxr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        hf_cxr.Nothing  # noqa: B018
