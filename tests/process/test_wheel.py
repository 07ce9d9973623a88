"""The wheel: it has every file of the package and no other, and works from a folder that has no checkout.

The notebooks run on it, as a user's would: in kernels of their own, in an empty folder, on fewer images.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


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


@pytest.fixture(scope="module")
def environment(installed) -> dict[str, str]:
    """Variables with which a process imports the installed package before any other."""
    return os.environ | {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the notebooks run; empty at first."""
    return tmp_path_factory.mktemp("notebooks")


def run(environment, folder: Path, *words: str) -> str:
    """What Python prints for these words."""
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_notebook(name: str, folder: Path, environment: dict[str, str], settings: str) -> nbformat.NotebookNode:
    """The executed notebook, its parameters followed by other ones; a cell that fails is an error."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    tags = [cell.metadata.get("tags", []) for cell in book.cells]
    where = "import hf_cxr\nprint(hf_cxr.__file__)\n"
    book.cells.insert(tags.index(["parameters"]) + 1, nbformat.v4.new_code_cell(where + settings))
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=environment)


def outputs(book: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in book.cells for output in cell.get("outputs", [])]


def shown(book: nbformat.NotebookNode, kind: str) -> list[str]:
    """Everything of a kind, such as text/html, that the cells show, in order."""
    return [output["data"][kind] for output in outputs(book) if kind in output.get("data", {})]


def printed(book: nbformat.NotebookNode) -> str:
    return "".join(output["text"] for output in outputs(book) if output.output_type == "stream")


def files_in_git(*paths: str) -> set[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split("\0") if name}


def test_it_has_the_files_of_the_package_the_configs_and_the_card(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = files_in_git("hf_cxr") | {f"hf_cxr/{name}" for name in files_in_git("configs", "model_card.md")}
    assert len(expected) > 300
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_its_command_lists_all_commands(installed, environment, tmp_path):
    listed = run(environment, tmp_path, str(installed / "bin" / "hf-cxr"), "--help")
    assert "  train " in listed
    assert "  predict " in listed


def test_accelerate_launches_it_without_a_folder_of_scripts(environment, tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "-m", "hf_cxr", "train"]
    flags = {"phantom_train": 40, "phantom_validation": 20, "phantom_test": 20, "max_steps": 2, "warmup_steps": 0}
    flags |= {"bootstrap_resamples": 10, "output_dir": "tiny"}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    run(environment, tmp_path, *launch, "configs/quickstart.yaml", *words)
    assert json.loads((tmp_path / "tiny" / "metrics.json").read_text())["test"]
    assert (tmp_path / "tiny" / "model.safetensors").is_file()


def test_ready_descriptions_and_the_checklist_are_inside(environment, tmp_path):
    code = (
        "from hf_cxr.data import load_description, ready_names\n"
        "for name in ready_names(): print(load_description(name).name)\n"
        "from hf_cxr.reporting.card.checklist import ITEMS; print(ITEMS.is_file())"
    )
    lines = run(environment, tmp_path, "-c", code).splitlines()
    assert lines[-1] == "True"
    assert len(lines) > 10


@pytest.fixture(scope="module")
def trained(folder, environment) -> nbformat.NotebookNode:
    return run_notebook("train_on_phantoms", folder, environment, "IMAGES, EPOCHS = 240, 1")


def test_a_notebook_trains_by_a_config_of_the_package_in_an_empty_folder(trained, folder, installed):
    text = printed(trained)
    assert f"{installed / 'hf_cxr' / '__init__.py'}\n" in text
    assert f"reading {installed / 'hf_cxr' / 'configs' / 'quickstart.yaml'}" in text
    place = folder / "runs" / "notebook"
    assert json.loads((place / "metrics.json").read_text())["test"]
    assert "<style>" in (place / "report.html").read_text()  # the templates
    card = (place / "README.md").read_text()
    assert not any(mark in card for mark in ("{{ ", "{% "))  # of the template; BibTeX has braces of its own
    tables = [table for table in shown(trained, "text/html") if "Hernia" in table]  # the Trainer shows one of losses
    assert len(tables) == 2
    assert len(shown(trained, "image/png")) == 3
    assert "macro AUC 0." in text


def test_a_notebook_predicts_with_that_model_and_draws_a_heat_map(trained, folder, environment):
    book = run_notebook("predict", folder, environment, "")
    text = printed(book)
    assert "14 findings: Atelectasis" in text
    assert "calibrated: True" in text
    assert len((folder / "predicted" / "probabilities.csv").read_text().splitlines()) == 4
    assert len(shown(book, "image/png")) == 1


def test_a_file_that_is_not_an_image_is_left_out_and_named(trained, folder, environment):
    (folder / "broken.png").write_text("no image")
    image = str(folder / "runs" / "notebook" / "phantom_0.png")
    book = run_notebook(
        "predict", folder, environment, f"IMAGES, OUT = ['broken.png', 'absent.png', {image!r}], 'two'"
    )
    text = printed(book)
    assert "left out: no such image or folder: absent.png" in text
    assert re.search("left out: .*broken.png", text)
    assert len((folder / "two" / "probabilities.csv").read_text().splitlines()) == 2
