"""The shape that docs/architecture.md prints: its tree, its import order; no private imports and no long files."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hf_cxr"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 500

# Bars from left to right. Within a bar the parts never import one another.
BARS = (
    (
        "labels",
        "files",
        "extras",
        "exported_files",
        "requirement",
        "yaml_files",
        "words",
        "locks",
        "options",
        "uniforms",
        "processes",
        "cores",
        "late_modules",
        "late_names",
        "compiling",
    ),
    ("saved_models", "augmentation", "phantom", "losses", "sampling", "systems", "evaluation", "weights_origin"),
    ("data",),
    ("arguments",),  # built from what each dataset says of its options
    ("config",),
    ("processing", "models", "predictions"),
    ("training", "inference", "explain", "prediction_tables", "conversion"),
    ("reporting", "pretraining"),
    ("hub",),
    ("export", "serving", "demo"),
    ("run",),
    ("commands",),
    ("__main__",),
)
BAR_OF = {part: number for number, bar in enumerate(BARS) for part in bar}


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def printed(kind: str) -> list[str]:
    """The lines of a block of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return text.split(f"```{kind}\n")[1].split("```")[0].splitlines()


def tree() -> set[str]:
    """The files and folders of the printed tree, as paths below its root; every file has a description."""
    paths, folders = set(), []
    for line in printed("tree")[1:]:
        entry, _, what = line.strip().partition(" ")
        folders = folders[: (len(line) - len(line.lstrip())) // 2 - 1]
        paths.add("/".join([*folders, entry.removesuffix("/")]))
        if entry.endswith("/"):
            folders.append(entry.removesuffix("/"))
        else:
            assert what.strip(), f"{entry} has no description"
    return paths


def test_the_printed_tree_is_the_tree():
    folders = {path for path in PACKAGE.rglob("*") if path.is_dir() and "__pycache__" not in path.parts}
    folders = {folder for folder in folders if any(path.is_file() for path in folder.iterdir())}
    assert tree() == {path.relative_to(PACKAGE).as_posix() for path in {*FILES, *folders}}


def test_the_printed_bars_are_the_bars():
    assert [set(line.split()) for line in printed("bars")] == [set(bar) for bar in BARS]


@cache
def nodes_of(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def imports_of(path: Path) -> set[str]:
    """Parts of the package that a file imports, at its top or inside functions."""
    found = set()
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    for node in nodes_of(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: relative import; write it in full"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "hf_cxr" else {node.module}
            )
    parts = {module.split(".")[1] for module in found if module.startswith("hf_cxr.")}
    return parts - {inside[0]} - {"__version__"}


def test_imports_point_left():
    seen = 0
    for path in FILES:
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if part == "__init__":
            continue
        assert part in BAR_OF, f"{part} is in no bar of the design; add it there first"
        for other in imports_of(path):
            assert other in BAR_OF, f"{name(path)} imports {other}, which is in no bar"
            assert BAR_OF[other] < BAR_OF[part], f"{name(path)} may not import {other}: it does not stand to its left"
            seen += 1
    assert seen > 200


def test_the_check_sees_an_import_to_the_right(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "losses").mkdir()
    offender = tmp_path / "losses" / "bad.py"
    offender.write_text("def f():\n    from hf_cxr.training.trainer import CXRTrainer\n")
    assert imports_of(offender) == {"training"}


def private(entry: str) -> bool:
    return entry.startswith("_") and not entry.endswith("__")


def private_uses(source: str) -> list[str]:
    """What a file takes of another module of the package though its name begins with an underscore.

    >>> private_uses("from hf_cxr.files import _sync")
    ['hf_cxr.files._sync']
    >>> private_uses("from hf_cxr import files\\nfiles._sync()\\nself._own()")
    ['files._sync']
    """
    nodes = nodes_of(source)
    found, modules = [], set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hf_cxr":
            found += [f"{node.module}.{alias.name}" for alias in node.names if private(alias.name)]
            modules |= {alias.asname or alias.name for alias in node.names if alias.name.islower()}
        elif isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.asname and alias.name.startswith("hf_cxr")}
    return found + [
        f"{node.value.id}.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute)
        and private(node.attr)
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
    ]


def test_private_names_stay_in_their_module():
    assert private_uses("from hf_cxr import files as f\nf._sync()") == ["f._sync"]
    assert private_uses("from hf_cxr.data import _rows, rows\nself._own") == ["hf_cxr.data._rows"]
    assert {name(path): uses for path in FILES if (uses := private_uses(path.read_text(encoding="utf-8")))} == {}


def test_no_file_is_long():
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert len(lines) > 50
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}


# A process imports for seconds, a Trainer writes checkpoints, a compiler traces: such tests have tiers of their own
SLOW = ("subprocess", "Popen", "CXRTrainer", "torch.compile(", ".train()", "multiprocessing.Process", "os.fork")


def found(folder: str, words: tuple[str, ...]) -> dict[str, list[str]]:
    """The files below tests/ that contain one of the words, and which."""
    files = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests" / folder).rglob("test_*.py"))}
    assert files
    hits = {path.stem: [word for word in words if word in text] for path, text in files.items()}
    return {stem: words for stem, words in hits.items() if words and stem != Path(__file__).stem}


def test_unit_tests_start_no_process_and_train_nothing():
    assert found("unit", SLOW) == {}, "move the test to tests/process or tests/train"


def test_no_test_measures_time():
    assert found("", ("perf_counter", "time.time()")) == {}
    assert found("process", ("subprocess",))


def test_public_names_resolve():
    import hf_cxr

    assert hf_cxr.__all__ == sorted(hf_cxr.__all__)
    assert all(getattr(hf_cxr, entry) is not None for entry in hf_cxr.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        hf_cxr.Nothing  # noqa: B018
