"""`hf-cxr predict`: one bad file costs one row, nothing that is done is lost, and no file is destroyed."""

import csv
import itertools
import json
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.data.images.files import find_images, search_images
from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import OutputError
from hf_cxr.inference import reading, sources
from hf_cxr.inference.answers import AnswerLines
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.prediction_rows import PredictionRows
from hf_cxr.inference.results import ImageResult
from hf_cxr.inference.shared_files import lines_of

FINDINGS = ("Effusion", "=Edema", "-Mass")
DICOM = bytes(128) + b"DICM" + b"\x02\0\x02\0UI\x1a\x001.2.840.10008.5.1.4.1.1.1\0"
MEDIA_DIRECTORY = bytes(128) + b"DICM" + b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10"


save_model = partial(tiny.save_model, names=FINDINGS, spread=2.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="module")
def classifier(model) -> Classifier:
    return Classifier(model)


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        save_image(folder / f"{number}.png", number)
    return folder


def save_image(path: Path, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40), dtype=np.uint8)).save(path, format="PNG")
    return path


def rows_of(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {name: cells for name, *cells in csv.reader(file)}


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


# Each file stands alone.


def test_one_bad_file_costs_one_row(model, images, tmp_path, capsys):
    (images / "empty.png").touch()
    (images / "text.png").write_text("hello")
    (images / "cut.png").write_bytes((images / "0.png").read_bytes()[:-30])
    (images / "absent.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(images / "pipe.png")
    save_image(images / os.fsdecode(b"\xff\n.png"), 0)
    out = tmp_path / "out.csv"
    assert predict(images, tmp_path / "misspelt.png", "--model", model, "--csv", out) == 2
    printed = capsys.readouterr()
    rows = rows_of(out)
    assert rows.pop("image") == [*FINDINGS, "image/remarks"]
    assert list(rows) == [*(str(images / f"{i}.png") for i in range(4)), f"{images}{os.sep}\\xff\n.png"]
    assert rows[str(images / "0.png")] == rows[f"{images}{os.sep}\\xff\n.png"] != rows[str(images / "1.png")]
    errors = [line for line in printed.err.splitlines() if line.startswith("hf-cxr predict: ")]
    for name in ("empty.png", "text.png", "cut.png", "absent.png", "pipe.png", "misspelt.png"):
        assert sum(name in line for line in errors) == 1
    assert "6 of 11 files" in errors[-1]
    assert r"\xff\n.png" in printed.out
    assert "5 rows" in printed.out


def test_probabilities_are_those_of_each_image_alone(classifier, images, tmp_path):
    (images / "2.png").write_text("broken")
    together = dict(classifier.predict_files(sorted(images.iterdir()), batch_size=3))
    assert isinstance(together.pop(images / "2.png"), ImageError)
    for path, answer in together.items():
        ((_, alone),) = classifier.predict_files([path])
        np.testing.assert_allclose(answer, alone, atol=1e-5)
    assert np.ptp(list(together.values()), axis=0).max() > 0.1


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), ValueError("aspect"), KeyError("x")])
def test_an_error_while_resizing_names_the_file(classifier, images, monkeypatch, error):
    real = reading.resize_grey

    def fail(grey_HW, *rest):
        if grey_HW.shape == (1, 2):
            raise error
        return real(grey_HW, *rest)

    monkeypatch.setattr(reading, "resize_grey", fail)  # 89,000,000 x 1 pixels take seconds
    Image.new("L", (2, 1)).save(images / "wide.png")
    answers = dict(classifier.predict_files(sorted(images.iterdir())))
    wide = answers.pop(images / "wide.png")
    assert isinstance(wide, ImageError)
    assert len(str(wide).splitlines()) == 1
    assert all(isinstance(answer, np.ndarray) for answer in answers.values())


def test_a_file_that_changes_while_it_is_read_is_not_predicted(classifier, images, monkeypatch):
    real = sources.read_grey

    def change(path, **named):
        grey_HW = real(path)
        if path.name == "1.png":
            save_image(path, 77)
            os.utime(path, (1, 1))
        return grey_HW

    monkeypatch.setattr(sources, "read_grey", change)
    answers = [answer for _, answer in classifier.predict_files(sorted(images.iterdir()))]
    assert [isinstance(answer, ImageError) for answer in answers] == [False, True, False, False]


def test_a_batch_that_the_device_refuses_is_tried_image_by_image(classifier, images, monkeypatch):
    expected = dict(classifier.predict_files(sorted(images.iterdir()), batch_size=1))
    real = classifier.outputs

    def small(pixel_B1SS):
        if len(pixel_B1SS) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(pixel_B1SS)

    monkeypatch.setattr(classifier, "outputs", small)
    for path, answer in classifier.predict_files(sorted(images.iterdir())):
        np.testing.assert_array_equal(answer, expected[path])
    monkeypatch.setattr(classifier, "outputs", lambda pixel_B1SS: (_ for _ in ()).throw(RuntimeError("no device")))
    with pytest.raises(RuntimeError, match="no device"):
        list(classifier.predict_files(sorted(images.iterdir())))


def test_an_earlier_csv_is_worth_more_than_none(model, images, tmp_path, capsys):
    out = tmp_path / "out.csv"
    out.write_text("image,Effusion\na.png,0.5\n")
    (images / "bad.png").write_text("x")
    assert predict(images / "bad.png", "--model", model, "--csv", out) == 2
    assert out.read_text() == "image,Effusion\na.png,0.5\n"
    assert "bad.png" in rows_of(tmp_path / "out.csv.unreadable.csv").popitem()[0]
    assert sorted(os.listdir(tmp_path)) == ["images", "out.csv", "out.csv.unreadable.csv"]
    assert "1 of 1 files" in capsys.readouterr().err


def test_the_list_of_unreadable_files_is_that_of_this_command(model, classifier, images, tmp_path):
    out, listed = tmp_path / "out.csv", tmp_path / "out.csv.unreadable.csv"
    (images / "bad.png").write_text("x")
    assert predict(images, "--model", model, "--csv", out) == 2
    assert list(rows_of(listed)) == ["image", str(images / "bad.png")]
    with PredictionRows(out, lines_of(classifier)) as rows:  # as if stopped: bad.png failed, 0.png is done
        keep(rows, images / "0.png", 0.5)
        rows.add(images / "bad.png", (1, 1), ImageError("bad.png", "text"))
    before = out.read_bytes()
    assert predict(images / "1.png", "--model", model, "--csv", out) == 0  # neither is among its images
    assert not listed.exists()
    assert list(rows_of(out)) == ["image", str(images / "1.png")]
    assert out.read_bytes() != before


# Rows are kept, and the same command resumes.


def stopped(out: Path, classifier: Classifier, paths: list[Path], values) -> Path:
    """A partial file as a killed command leaves it."""
    with PredictionRows(out, lines_of(classifier)) as rows:
        for path, value in zip(paths, values, strict=True):
            keep(rows, path, value)
        return rows.partial


def keep(rows: PredictionRows, path: Path, value: float) -> None:
    """Keep an answer for a file: all findings with one probability."""
    status, calls = path.stat(), rows.lines.calls
    answer = ImageResult.of(str(path), np.full(len(calls.label_names), value, np.float32), calls)
    rows.add(path, (status.st_size, status.st_mtime_ns), answer)


def unfinished(out: Path) -> PredictionRows:
    return PredictionRows(out, AnswerLines(Calls(FINDINGS, None), None, "model"))


def test_the_same_command_keeps_rows_of_the_same_files(model, classifier, images, tmp_path, capsys):
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert predict(images, "--model", model, "--csv", whole) == 0
    paths = sorted(images.iterdir())
    partial = stopped(out, classifier, paths[:3], (0.25, 0.5, 0.75))
    assert partial.name == "out.csv.partial"
    assert not out.exists()
    os.utime(paths[1], (1, 1))  # changed since
    with partial.open("ab") as file:
        file.write(b'["' + os.fsencode(paths[3]) + b'", 12')  # cut off
    capsys.readouterr()
    assert predict(images, "--model", model, "--csv", out) == 0
    assert "2 of 4" in capsys.readouterr().err
    expected, found = rows_of(whole), rows_of(out)
    assert list(found) == list(expected)
    for row, path in enumerate(paths):
        kept = {0: ["0.250000"] * 3, 2: ["0.750000"] * 3}.get(row, expected[str(path)][:3])
        np.testing.assert_allclose(np.array(found[str(path)][:3], float), np.array(kept, float), atol=2e-6)
    assert not list(tmp_path.glob("out.csv.*"))


def test_rows_of_another_model_are_refused_and_stay(model, classifier, images, tmp_path, capsys):
    out = tmp_path / "out.csv"
    partial = stopped(out, classifier, [images / "0.png"], [0.5])
    before = partial.read_bytes()
    other = save_model(tmp_path / "other", seed=1)
    assert predict(images, "--model", other, "--csv", out) == 2
    assert "another model" in capsys.readouterr().err
    assert partial.read_bytes() == before
    assert not out.exists()
    copy = tmp_path / "moved"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert predict(images, "--model", copy, "--csv", out) == 0  # the same model in another place
    assert rows_of(out)[str(images / "0.png")] == ["0.500000"] * 3 + [""]


@pytest.mark.parametrize("content", [b"precious\n", b"precious", b'{"a": 1}\n', b"[1]\n"])
def test_another_file_with_the_partial_name_is_refused_and_stays(classifier, tmp_path, content):
    (tmp_path / "out.csv.partial").write_bytes(content)
    with pytest.raises(OutputError, match=r"out\.csv\.partial"):
        unfinished(tmp_path / "out.csv")
    assert (tmp_path / "out.csv.partial").read_bytes() == content
    assert os.listdir(tmp_path) == ["out.csv.partial"]


def test_a_damaged_partial_file_is_read_up_to_the_damage(images, tmp_path):
    paths = sorted(images.iterdir())

    def kept(damage):
        (tmp_path / "out.csv.partial").unlink(missing_ok=True)
        with unfinished(tmp_path / "out.csv") as rows:
            for path in paths:
                keep(rows, path, 0.5)
        lines = rows.partial.read_bytes().splitlines(keepends=True)
        rows.partial.write_bytes(b"".join(damage(lines)))
        with unfinished(tmp_path / "out.csv") as rows:
            return [rows.is_done(path) for path in paths]

    assert kept(lambda lines: lines) == [True] * 4
    assert kept(lambda lines: [*lines[:2], bytes(len(lines[2])), *lines[3:]]) == [True, False, False, False]
    assert kept(lambda lines: [*lines[:3], b'["x", 1, 2, "00"]\n', *lines[3:]]) == [True, True, False, False]
    assert kept(lambda lines: [lines[0][:9]]) == [False] * 4
    assert kept(lambda lines: []) == [False] * 4


def test_two_commands_do_not_write_one_file(tmp_path):
    first = unfinished(tmp_path / "out.csv")
    with first, pytest.raises(OutputError, match="another command"):
        unfinished(tmp_path / "out.csv")
    assert not os.listdir(tmp_path)  # no row, no lock
    with unfinished(tmp_path / "out.csv"):
        pass


def test_a_link_is_written_through_and_the_rows_are_kept_beside_its_target(model, images, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "out.csv").symlink_to("there/target.csv")
    assert predict(images, "--model", model, "--csv", tmp_path / "out.csv") == 0
    assert (tmp_path / "out.csv").is_symlink()
    assert len(rows_of(tmp_path / "there" / "target.csv")) == 5
    assert os.listdir(tmp_path / "there") == ["target.csv"]


# No file is destroyed.


def test_an_image_is_not_overwritten_by_what_the_shell_expands(model, images, capsys):
    paths = sorted(images.iterdir())
    before = [path.read_bytes() for path in paths]
    assert predict("--model", model, "--csv", *paths) == 2  # --csv *.png
    printed = capsys.readouterr()
    assert str(paths[0]) in printed.err
    assert "1.png" not in printed.out
    for name in ("image", "image.csv"):
        copy, link = images / name, images / f"link_{name}"
        copy.write_bytes(before[0])
        os.link(copy, link)
        assert predict("--model", model, "--csv", copy, *paths) == 2
        assert predict("--model", model, "--csv", link, copy) == 2
        assert copy.read_bytes() == before[0]
    assert [path.read_bytes() for path in paths] == before


def test_a_file_of_the_model_and_a_pipe_are_not_written(model, images, tmp_path, capsys):
    (model / "notes.txt").write_text("precious")
    assert predict(images, "--model", model, "--csv", model / "notes.txt") == 2
    assert (model / "notes.txt").read_text() == "precious"
    os.mkfifo(tmp_path / "pipe")
    assert predict(images, "--model", model, "--csv", tmp_path / "pipe") == 2
    assert "--csv -" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()
    for name in ("", f"{tmp_path}/new/"):
        assert predict(images, "--model", model, "--csv", name) == 2
        assert "name of a file" in capsys.readouterr().err


# What is printed and written.


def test_standard_output_gets_csv_and_nothing_else(model, images, capsys):
    assert predict(images, "--model", model, "--csv", "-") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"image,{','.join(FINDINGS)},image/remarks"
    assert len(lines) == 5
    assert all(0 <= float(cell) <= 1 for line in lines[1:] for cell in line.split(",")[1:-1])


def test_cells_that_begin_like_a_formula_are_quoted_by_flag(model, images, tmp_path, monkeypatch):
    save_image(images / "=cmd.png")
    monkeypatch.chdir(images)
    assert predict("=cmd.png", "0.png", "--model", model, "--csv", tmp_path / "plain.csv") == 0
    flags = ("--csv", tmp_path / "safe.csv", "--spreadsheet_safe")
    assert predict("=cmd.png", "0.png", "--model", model, *flags) == 0
    assert rows_of(tmp_path / "plain.csv")["image"] == [*FINDINGS, "image/remarks"]
    safe = rows_of(tmp_path / "safe.csv")
    assert safe["image"] == ["Effusion", "'=Edema", "'-Mass", "image/remarks"]
    assert list(safe) == ["image", "'=cmd.png", "0.png"]
    assert safe["0.png"] == rows_of(tmp_path / "plain.csv")["0.png"]


# Calls at the operating points.


@pytest.fixture(scope="module")
def calling(tmp_path_factory) -> Path:
    """A model that has operating points for two of its findings."""
    folder = save_model(tmp_path_factory.mktemp("calling"), seed=0)
    config = json.loads((folder / "config.json").read_text())
    reached = {"sensitivity": 0.9, "specificity": 0.6, "positives": 12, "negatives": 80}
    points = {
        name: {"threshold": threshold, "rule": "youden", "target": None, **reached}
        for name, threshold in (("Effusion", 0.5), ("-Mass", 0.0))
    }
    record = {"version": "1", "operating_points": {**points, "=Edema": None}}
    (folder / "config.json").write_text(json.dumps(config | {"hf_cxr": record}))
    return folder


def test_findings_that_reach_their_threshold_are_called(calling, images, tmp_path, capsys):
    for number in range(4, 12):
        save_image(images / f"{number}.png", number)
    out = tmp_path / "out.csv"
    assert predict(images, "--model", calling, "--csv", out, "--top", 1) == 0
    printed = capsys.readouterr()
    rows = rows_of(out)
    assert rows.pop("image") == [*FINDINGS, "called/Effusion", "called/-Mass", "image/remarks"]
    classifier = Classifier(calling)
    for path, probability_C in classifier.predict_files(sorted(images.iterdir())):
        *probabilities, effusion, mass, _ = rows[str(path)]
        np.testing.assert_allclose(np.array(probabilities, float), probability_C, atol=2e-6)
        assert (effusion, mass) == (str(int(probability_C[0] >= 0.5)), "1")
        (line,) = [line for line in printed.out.splitlines() if line.startswith(f"{path} ")]
        assert "-Mass" in line  # called, and shown for all that it is not the most probable
        assert line.count("*") == int(effusion) + int(mass)
    assert {cells[-3] for cells in rows.values()} == {"0", "1"}
    (note,) = [line for line in printed.err.splitlines() if "called/" in line]
    assert "Youden" in note
    assert note.endswith("no operating point for =Edema")
    capsys.readouterr()
    assert predict(images, "--model", calling, "--csv", "-") == 0
    assert list(csv.reader(capsys.readouterr().out.splitlines()))[1:] == [[name, *rows[name]] for name in rows]


def test_a_model_without_operating_points_says_so_and_calls_nothing(model, images, capsys):
    assert predict(images, "--model", model) == 0
    printed = capsys.readouterr()
    assert "no operating points: probabilities only" in printed.err
    assert "*" not in printed.out


def test_rows_at_other_thresholds_are_rows_of_another_model(calling, images, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(calling, other)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"threshold": 0.5', '"threshold": 0.6'))
    assert Classifier(calling).fingerprint() != Classifier(other).fingerprint()


def test_damaged_operating_points_are_one_line(calling, images, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(calling, other)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(text.replace('"threshold": 0.5', '"threshold": 5'))
    assert predict(images, "--model", other) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "operating point of Effusion: threshold is 5" in line


# Which files of a folder are images.


def test_a_folder_gives_every_format_and_dicom_of_any_name_and_counts_the_rest(tmp_path, monkeypatch):
    folder = tmp_path / "mixed"
    for name in ("sub", ".hidden", "__MACOSX"):
        (folder / name).mkdir(parents=True)
    taken = ["a.png", "b.PNG", "c.webp", "d.bmp", "e.jp2", "f.gif", "g.ppm", "h.pgm", "i.Jpeg", "j.TIF", "k.dcm"]
    for name in (*taken, "._a.png", ".DS_Store", "Thumbs.db", "n.txt", "m.TXT", "README", ".hidden/x.png"):
        (folder / name).write_bytes(b"x" * 200)
    for name in ("IM000001", "sub/1.2.840.113619.2", "x.ima"):
        (folder / name).write_bytes(DICOM)
    (folder / "DICOMDIR").write_bytes(MEDIA_DIRECTORY)
    (folder / "sub" / "index").write_bytes(MEDIA_DIRECTORY)
    os.mkfifo(folder / "pipe")
    found = search_images([folder])
    assert found.paths == sorted(folder / name for name in (*taken, "IM000001", "sub/1.2.840.113619.2", "x.ima"))
    assert +found.skipped[folder] == {
        **{"hidden": 5, ".txt": 2, "no suffix": 1, "DICOMDIR": 2, "not a regular file": 1},
    }
    monkeypatch.chdir(tmp_path)
    (note,) = search_images(["mixed"]).notes()
    assert note.startswith("11 other files in mixed were skipped (hidden 5, ")


def test_links_and_names_given_twice_give_each_image_once(tmp_path):
    (tmp_path / "z" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    images = [tmp_path / "z" / "1.png", tmp_path / "z" / "deep" / "2.png"]
    for path in (*images, tmp_path / "outside" / "3.png"):
        path.touch()
    (tmp_path / "z" / "a_loop").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "a_link").symlink_to(tmp_path / "z" / "deep")
    (tmp_path / "z" / "study").symlink_to(tmp_path / "outside")
    (tmp_path / "z" / "0.png").symlink_to("1.png")  # another name of one file is another row
    expected = [tmp_path / "z" / "0.png", *images, tmp_path / "z" / "study" / "3.png"]
    assert find_images([tmp_path / "z"]) == expected
    again = search_images([images[0], tmp_path / "z", tmp_path / "z" / ".." / "z" / "1.png", tmp_path / "z" / "deep"])
    assert again.paths == [images[0], expected[0], *expected[2:]]
    assert again.repeated == 2
    assert "2 " in again.notes()[-1]


def test_a_folder_without_images_says_what_it_has(tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"1 other file .*\.txt 1"):
        search_images([tmp_path])
    with pytest.raises(FileNotFoundError, match="empty"):
        search_images([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="no such image or folder"):
        search_images([tmp_path / "absent"])


# Signals and pipes.


@pytest.mark.parametrize("to_file", [False, True])
def test_a_closed_pipe_ends_the_table_and_not_the_csv(model, images, tmp_path, monkeypatch, capsys, to_file):
    reader, writer = os.pipe()
    os.close(reader)
    out = ("--csv", tmp_path / "out.csv") if to_file else ()
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert predict(images, "--model", model, *out) == (0 if to_file else 141)
        monkeypatch.undo()
    assert all(line.startswith("note: ") for line in capsys.readouterr().err.splitlines())
    if to_file:
        assert len(rows_of(tmp_path / "out.csv")) == 5


def test_ctrl_c_keeps_the_rows_and_says_how_to_go_on(model, images, tmp_path, monkeypatch, capsys):
    out, partial = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    real, batches = Classifier.outputs, itertools.count()

    def interrupted(self, pixel_B1SS):
        if next(batches) == 2:
            signal.raise_signal(signal.SIGINT)
        return real(self, pixel_B1SS)

    command = (images, "--model", model, "--csv", out, "--batch_size", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "outputs", interrupted)
        assert predict(*command) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 4" in line
    assert str(partial) in line
    kept = [json.loads(line) for line in partial.read_text().splitlines()[1:]]
    assert [Path(row[0]).name for row in kept] == ["0.png", "1.png"]
    assert not out.exists()
    assert sorted(os.listdir(tmp_path)) == ["images", "out.csv.partial"]
    assert predict(*command) == 0
    printed = capsys.readouterr()
    assert "1.png" not in printed.out  # it was not predicted again
    first_C = np.frombuffer(bytes.fromhex(kept[0][3]), "<f4")
    assert rows_of(out)[str(images / "0.png")] == [*(f"{value:.6f}" for value in first_C), ""]
    assert len(rows_of(out)) == 5
