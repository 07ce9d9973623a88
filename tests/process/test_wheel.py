"""The wheel: it has every file of the package and no other, and works from a folder that has no checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = "--phantom_train 48 --phantom_validation 32 --phantom_test 40 --num_train_epochs 1 --bootstrap_resamples 50"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(ROOT), *how], check=True)
    return next(folder.glob("hf_cxr-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the package as pip installs it, and its command in bin/."""
    folder = tmp_path_factory.mktemp("installed")
    how = ["--no-deps", "--no-index", "--quiet", "--no-compile", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *how, str(wheel)], check=True)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Run words in an empty folder, with the installed package before any other."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}

    def call(*words: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr
        return done

    return call


def files_in_git(*paths: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", "-z", "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name}


def test_it_has_the_files_of_the_package_the_configs_and_the_card(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = files_in_git("hf_cxr") | {f"hf_cxr/{name}" for name in files_in_git("configs", "model_card.md")}
    assert len(expected) > 300
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_the_command_comes_from_the_wheel_and_lists_all_commands(run, installed):
    place = run("-c", "import hf_cxr; print(hf_cxr.__file__)").stdout.strip()
    assert Path(place).is_relative_to(installed)
    listed = run(str(installed / "bin" / "hf-cxr"), "--help").stdout
    assert "  train " in listed
    assert "  predict " in listed


def test_it_trains_by_a_config_of_the_package_in_an_empty_folder(run, installed, tmp_path):
    words = ["train", "configs/quickstart.yaml", *TINY.split()]
    done = run(str(installed / "bin" / "hf-cxr"), *words)
    assert f"reading {installed / 'hf_cxr' / 'configs' / 'quickstart.yaml'}" in done.stderr
    folder = tmp_path / "runs" / "quickstart"
    assert json.loads((folder / "metrics.json").read_text())["test"]
    assert "<style>" in (folder / "report.html").read_text()  # the templates
    card = (folder / "README.md").read_text()
    assert "quickstart" in card
    assert "{{" not in card


def test_ready_descriptions_and_the_checklist_are_inside(run):
    code = (
        "from hf_cxr.data import load_description, ready_names\n"
        "for name in ready_names(): print(load_description(name).name)\n"
        "from hf_cxr.reporting.checklist import ITEMS; print(ITEMS.is_file())"
    )
    lines = run("-c", code).stdout.splitlines()
    assert lines[-1] == "True"
    assert len(lines) > 10
