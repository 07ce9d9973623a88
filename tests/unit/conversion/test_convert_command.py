"""`hf-cxr convert`: what it asks for, what it prints, and that it writes a whole folder or none."""

import pytest
import torch
from official_swin import SIZES, random_weights, tables

from hf_cxr.commands import main
from hf_cxr.saved_models import CONFIG

ORIGIN = ("--source", "a lab", "--licence", "MIT", "--saw_test_images", "no")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    content = {name: torch.from_numpy(array).float() for name, array in random_weights().items()}
    content |= {name: torch.from_numpy(array) for name, array in tables(SIZES).items()}
    path = tmp_path_factory.mktemp("given") / "swin.pth"
    torch.save({"model": content | {"head.weight": torch.ones(3, 8), "head.bias": torch.ones(3)}}, path)
    return path


def test_a_folder_is_written_once(file, tmp_path, capsys):
    out = tmp_path / "weights"
    assert main(["convert", str(file), "--out", str(out), *ORIGIN]) == 0
    printed = capsys.readouterr().out
    assert "the classifier: head.weight, head.bias" in printed
    assert f"--model_name_or_path {out} --image_size 16" in printed
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert files.keys() == {CONFIG, "model.safetensors", "preprocessor_config.json", "README.md"}
    assert main(["convert", str(file), "--out", str(out), *ORIGIN]) == 2
    assert "not empty" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_a_refused_file_leaves_no_folder(file, tmp_path, capsys):
    content = torch.load(file, weights_only=True)["model"]
    path = tmp_path / "broken.pth"
    torch.save({name: tensor for name, tensor in content.items() if name != "norm.bias"}, path)
    assert main(["convert", str(path), "--out", str(tmp_path / "weights"), *ORIGIN]) == 2
    error = capsys.readouterr().err
    assert "norm.bias" in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_weights_is_refused_before_anything_is_asked_for(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "a lab")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    for name, why in (("absent.pth", "no such file"), ("page.pth", "web page"), (".", "is a folder")):
        assert main(["convert", str(tmp_path / name), "--out", str(tmp_path / "weights")]) == 2
        assert why in capsys.readouterr().err
    assert asked == []


def test_the_origin_is_asked_for_in_a_terminal_and_refused_without_one(file, tmp_path, capsys, monkeypatch):
    words = ["convert", str(file), "--out", str(tmp_path / "weights"), "--licence", "MIT"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "give --source, --saw_test_images" in capsys.readouterr().err
    answers = iter(["a lab", "perhaps"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    with pytest.raises(SystemExit):
        main(words)
    assert "answer yes, no, unknown" in capsys.readouterr().err
    answers = iter(["a lab", "yes"])
    assert main(words) == 0
    assert '"saw_test_images": "yes"' in (tmp_path / "weights" / CONFIG).read_text()
