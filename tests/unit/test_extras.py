"""What the package imports is declared in pyproject.toml, and each extra is asked for by the same line."""

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from hf_cxr.commands.errors import describe_error
from hf_cxr.extras import EXTRAS, MissingExtraError, install_line, need

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "hf_cxr"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Extra -> the files and folders that may import it. They are imported only where the extra is asked for.
PLACES = {
    "demo": ("demo",),
    "dicom": ("data/images/dicom.py", "inference/sources.py", "inference/structured_report.py"),
    "explain": ("explain/occlusion.py",),
    "fast": ("data/images/png.py",),
    "onnx": ("export", "hub/onnx_text.py"),
    "serve": ("serving", "commands/serve.py"),
    "timm": ("models/timm_models.py", "models/batch_norm.py"),
    "tune": ("run/tuning",),
}
WITH_TORCH = {"triton"}  # torch for CUDA requires it; without it `window_attention` takes another way


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported() -> Iterator[tuple[Path, str]]:
    """Each file of the package, and a module of another project that it imports, at its top or in a function."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names}:
                if top not in sys.stdlib_module_names and top != "hf_cxr":
                    yield path.relative_to(PACKAGE), top


def allowed(path: Path) -> set[str]:
    """The distributions that a file may import: the package's own, and those of the extras that have it."""
    found = declared(PROJECT["dependencies"])
    for extra, places in PLACES.items():
        if any(path.is_relative_to(place) for place in places):
            found |= declared(PROJECT["optional-dependencies"][extra])
    return found


def test_every_import_is_declared():
    homes = packages_distributions()
    seen, wrong = set(), set()
    for path, module in imported():
        seen.add(module)
        names = {normal(name) for name in homes.get(module, [module])}  # one that is not installed has its own name
        if module not in WITH_TORCH and not names & allowed(path):
            wrong.add((str(path), module))
    assert {"torch", "packaging", "safetensors", "fsspec", "starlette", "optuna"} <= seen
    assert not wrong, "declare it in pyproject.toml, or in the extra of its folder"


def test_every_lower_bound_is_met_by_the_pins():
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and line[0] != "#"
    )
    pins = {normal(name): version for name, version in pins.items()}
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    needed = [Requirement(line) for lines in lists for line in lines if not line.startswith("hf-cxr[")]
    assert len(needed) > 30
    assert [str(one) for one in needed if not one.specifier.contains(pins[normal(one.name)])] == []


def test_the_extras_are_those_of_the_project():
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_a_missing_extra_is_one_line_with_what_installs_it(extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("absent") else object())
    need("hf-cxr x", extra, "there")
    with pytest.raises(MissingExtraError) as caught:
        need("hf-cxr x", extra, "absent_one", "there", "absent_two")
    line = describe_error(caught.value)
    assert line.startswith("hf-cxr x needs absent_one and absent_two")
    assert f"pip install 'hf-cxr[{extra}]'" in line
    assert install_line(extra) in line


def test_an_unknown_extra_is_a_mistake_of_ours():
    with pytest.raises(KeyError, match="onxx"):
        need("hf-cxr x", "onxx", "sys")


def test_the_line_is_written_in_one_place():
    files = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    # The help text of a command is its docstring.
    assert {name for name, text in files.items() if "hf-cxr[" in text and "install 'hf-cxr[" in text} == {
        "extras.py",
        "commands/demo.py",
    }
    asked = [match for text in files.values() for match in re.findall(r"\bneed\(\s*f?\"[^\"]*\", \"(\w+)\"", text)]
    assert set(asked) == set(PLACES) - {"fast"}  # without isal, zlib unpacks
