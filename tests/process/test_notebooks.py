"""The notebooks run as they are shipped, on fewer images: a kernel of their own, cell after cell."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def run(name: str, folder: Path, settings: str) -> nbformat.NotebookNode:
    """The executed notebook, its parameters followed by other ones; a cell that fails is an error."""
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    tags = [cell.metadata.get("tags", []) for cell in book.cells]
    book.cells.insert(tags.index(["parameters"]) + 1, nbformat.v4.new_code_cell(settings))
    return NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()


def shown(book: nbformat.NotebookNode, kind: str) -> list[str]:
    """Everything of a kind, such as text/html, that the cells show, in order."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def printed(book: nbformat.NotebookNode) -> str:
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.output_type == "stream")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def trained(folder) -> nbformat.NotebookNode:
    return run("train_on_phantoms", folder, "IMAGES, EPOCHS = 240, 1")


def test_training_ends_with_figures_a_table_and_a_heat_map(trained, folder):
    assert (folder / "runs" / "notebook" / "report.html").is_file()
    tables = shown(trained, "text/html")
    assert len(tables) == 2
    assert all("Hernia" in table for table in tables)
    assert len(shown(trained, "image/png")) == 3
    assert "macro AUC 0." in printed(trained)


def test_prediction_gives_a_table_and_a_heat_map_for_the_trained_model(trained, folder):
    book = run("predict", folder, "")
    text = printed(book)
    assert "14 findings: Atelectasis" in text
    assert "calibrated: True" in text
    assert len((folder / "predicted" / "probabilities.csv").read_text().splitlines()) == 4
    assert len(shown(book, "image/png")) == 1


def test_a_file_that_is_not_an_image_is_left_out_and_named(trained, folder):
    (folder / "broken.png").write_text("no image")
    image = next((folder / "runs" / "notebook").glob("phantom_0.png"))
    book = run("predict", folder, f"IMAGES, OUT = ['broken.png', 'absent.png', {str(image)!r}], 'two'")
    text = printed(book)
    assert "left out: no such image or folder: absent.png" in text
    assert "broken.png" in text
    assert len((folder / "two" / "probabilities.csv").read_text().splitlines()) == 2
