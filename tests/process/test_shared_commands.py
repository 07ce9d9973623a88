"""Commands under a launch of two processes: the output of one, one message, nothing half-written."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from launches import launch
from PIL import Image
from test_evaluate_command import save_run

from hf_cxr import processes
from hf_cxr.commands import COMMANDS, run_command
from hf_cxr.inference import answers, shared_files
from hf_cxr.inference import classifier as inference

FINDINGS = ("Effusion", "=Edema", "-Mass")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("model"), names=FINDINGS, spread=2.0)


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(11):
        grey = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{number:02d}.png")
    return folder


def together(words, folder, **kwargs):
    """A command in two processes; how each ended."""
    return launch(lambda: run_command(words[0], [str(word) for word in words[1:]]), folder, **kwargs)


def alone(words, capfd):
    """A command in this process: status, standard output, standard error."""
    capfd.readouterr()
    status = run_command(words[0], [str(word) for word in words[1:]])
    return status, *capfd.readouterr()


@pytest.mark.parametrize("where", ["file", "standard output", "table"])
def test_two_processes_write_what_one_writes(model, images, tmp_path, capfd, where):
    (images / "03.png").write_text("broken")
    (images / os.fsdecode(b"\xff\n.png")).write_bytes((images / "02.png").read_bytes())
    out = tmp_path / "out.csv"
    words = ["predict", "images", "absent.png", "--model", model, "--batch_size", "2"]
    words += {"file": ["--csv", out], "standard output": ["--csv", "-"], "table": []}[where]
    status, printed, said = alone(words, capfd)
    results = [out, tmp_path / "out.csv.unreadable.csv"] if where == "file" else []
    expected = [path.read_bytes() for path in results]
    for path in results:
        path.unlink()
    main, other = together(words, tmp_path / "said")
    assert (main.status, main.out, main.err) == (status, printed, said) == (2, printed, said)
    assert (other.status, other.out, other.err) == (0, "", "")
    assert said.count("03.png") == 1
    assert [path.read_bytes() for path in results] == expected
    assert {path.name for path in tmp_path.iterdir()} == {"images", "said", *(path.name for path in results)}


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_process_ends_both_with_one_line(model, images, tmp_path, monkeypatch, failing):
    real = inference.Classifier.predict_versions

    def fail(self, paths, **kwargs):
        for answer in real(self, paths, **kwargs):
            if answer[0].name in ("04.png", "05.png") and processes.index() == failing:
                raise RuntimeError("the device is gone")
            yield answer

    monkeypatch.setattr(inference.Classifier, "predict_versions", fail)
    words = ["predict", images, "--model", model, "--batch_size", "1", "--csv", tmp_path / "out.csv"]
    ended = together(words, tmp_path / "said")
    assert [one.status for one in ended] == [2, 2]
    lines = [line for one in ended for line in one.err.splitlines() if line.startswith("hf-cxr")]
    assert len(lines) == 1
    assert "the device is gone" in lines[0]
    assert "run the same command again to resume" in lines[0]
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(("killed", "again"), [(0, 1), (1, 2)])
def test_what_was_done_before_a_kill_is_not_done_again(model, images, tmp_path, monkeypatch, capfd, killed, again):
    out = tmp_path / "out.csv"
    words = ["predict", images, "--model", model, "--batch_size", "1", "--csv", out]
    assert alone(words, capfd)[0] == 0
    expected = out.read_bytes()
    out.unlink()
    real = inference.Classifier.predict_versions

    def wait(self, paths, **kwargs):
        for answer in real(self, paths, **kwargs):
            if processes.index() == killed and int(answer[0].stem) >= 4:  # the third file of a share
                (tmp_path / "waiting").touch()
                time.sleep(60)
            yield answer

    with monkeypatch.context() as patched:
        patched.setattr(inference.Classifier, "predict_versions", wait)
        patched.setattr(processes, "BEAT", 0.05)
        patched.setattr(processes, "PATIENCE", 0.5)
        ended = together(words, tmp_path / "said", kill=lambda: killed if (tmp_path / "waiting").exists() else None)
    assert ended[killed].status == -9
    assert ended[1 - killed].status == 2
    assert ("process 1 of 2" in ended[0].err) == (killed == 1)  # without the main process nobody is left to print
    assert not out.exists()
    parts = [path.read_text().splitlines() for path in sorted(tmp_path.glob("out.csv.part-*"))]
    assert len(parts[killed]) == 3  # the header and two files
    done = {int(Path(json.loads(line)[0]).stem) for part in parts for line in part[1:]}

    def note(self, paths, **kwargs):
        with (tmp_path / "asked").open("a") as file:
            file.writelines(f"{path.stem}\n" for path in paths)
        return real(self, paths, **kwargs)

    monkeypatch.setattr(inference.Classifier, "predict_versions", note)
    if again == 1:
        assert alone(words, capfd)[0] == 0
    else:
        assert [one.status for one in together(words, tmp_path / "said")] == [0, 0]
    assert sorted(map(int, (tmp_path / "asked").read_text().split())) == sorted(set(range(11)) - done)
    assert out.read_bytes() == expected
    assert not list(tmp_path.glob("out.csv.*"))


def test_a_folder_that_one_machine_does_not_see_is_refused_before_the_work(model, images, tmp_path, monkeypatch):
    real, out = os.path.exists, tmp_path / "out.csv"
    monkeypatch.setattr(os.path, "exists", lambda path: processes.index() == 0 and real(path))
    ended = together(["predict", images, "--model", model, "--csv", out], tmp_path / "said")
    assert [one.status for one in ended] == [2, 2]
    assert ended[0].err.count("hf-cxr predict") == 0
    assert "process 1 on" in ended[1].err
    assert "does not see" in ended[1].err
    assert not list(tmp_path.glob("out.csv*"))


def test_parts_of_another_model_are_refused(model, images, tmp_path, capfd):
    out, part = tmp_path / "out.csv", tmp_path / "out.csv.part-1"
    part.write_text(json.dumps({shared_files.KEY: answers.FORMAT, "model": "other", "findings": ["a"]}) + "\n")
    status, _, said = alone(["predict", images, "--model", model, "--csv", out], capfd)
    assert status == 2
    assert f"{part} contains rows of another model" in said
    part.write_text("mine\n")
    assert (
        "is not a file of kept rows of hf-cxr predict"
        in alone(["predict", images, "--model", model, "--csv", out], capfd)[2]
    )
    assert part.read_text() == "mine\n"


def test_pictures_and_reports_are_refused_and_parts_are_not_continued_with_them(model, images, tmp_path, capfd):
    words = ["predict", images, "--model", model, "--csv", tmp_path / "out.csv"]
    for flag in ("--heatmaps", "--structured_reports"):
        ended = together([*words, flag, tmp_path / "extra"], tmp_path / flag[2:])
        assert [one.status for one in ended] == [2, 2]
        lines = [line for one in ended for line in one.err.splitlines() if line.startswith("hf-cxr")]
        assert lines == [
            f"hf-cxr predict: {flag} is for one process; leave out accelerate launch, or leave out the flag"
        ]
    assert not (tmp_path / "extra").exists()
    lines = shared_files.lines_of(inference.Classifier(model))
    (tmp_path / "out.csv.part-0").write_text(json.dumps(lines.header(shared_files.KEY)) + "\n")
    status, _, said = alone([*words, "--structured_reports", tmp_path / "extra"], capfd)
    assert status == 2
    assert "out.csv.part-0 was begun without pictures and reports" in said


def test_maps_of_files_are_those_of_one_process(model, images, tmp_path, capfd):
    (images / "04.png").write_text("broken")
    words = ["explain", "images", "--model", model, "--top", "1", "--out"]
    status, printed, said = alone([*words, tmp_path / "one"], capfd)
    main, other = together([*words, tmp_path / "two"], tmp_path / "said")
    assert (main.status, main.err) == (status, said) == (2, said)
    assert main.out == printed.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert (other.status, other.out, other.err) == (0, "", "")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "two")) == 2 * 10 + 1


def contents(folder: Path, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.name not in without}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "one", 0, per_device_eval_batch_size=3)


def test_an_evaluation_is_that_of_one_process(run, tmp_path, capfd):
    flags = ["--stress", "noise", "--localize", "grad_cam", "--mistakes", "1", "--controls"]
    words = ["evaluate", "--model", run, *flags, "--out"]
    status, printed, _ = alone([*words, tmp_path / "one"], capfd)
    main, other = together([*words, tmp_path / "two"], tmp_path / "said")
    assert (main.status, other.status, status) == (0, 0, 0), main.err + other.err
    assert main.out == printed.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    assert other.out == ""
    one, two = (contents(tmp_path / name) for name in ("one", "two"))
    assert one == two
    analysis = json.loads(two["analysis.json"])
    assert {"stress", "localization", "controls"} <= set(analysis)
    assert any("mistakes" in name for name in two)


def test_the_score_of_maps_is_that_of_one_process(run, tmp_path, capfd):
    words = ["explain", "--model", run, "--pictures", "1", "--out"]
    status, _, _ = alone([*words, tmp_path / "one"], capfd)
    main, other = together([*words, tmp_path / "two"], tmp_path / "said")
    assert (main.status, other.status, status) == (0, 0, 0), main.err + other.err
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_error_before_the_work_ends_an_evaluation_with_one_line(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("{}")
    ended = together(["evaluate", "--model", run, "--out", tmp_path / "out"], tmp_path / "said")
    assert [one.status for one in ended] == [2, 2]
    lines = [line for one in ended for line in one.err.splitlines() if line.startswith("hf-cxr")]
    assert len(lines) == 1
    assert "metrics.json" in lines[0]


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.alone])
def test_a_command_of_one_process_refuses_two(command, tmp_path):
    ended = together([command, "x"], tmp_path / "said")
    assert [one.status for one in ended] == [2, 2]
    lines = [line for one in ended for line in one.err.splitlines()]
    assert lines == [
        f"hf-cxr {command}: hf-cxr {command} runs in one process, and 2 were started: leave out accelerate launch"
    ]
