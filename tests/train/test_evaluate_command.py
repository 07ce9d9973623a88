"""`hf-cxr evaluate`: which data it takes, and where it writes: whole or absent, and never over other figures."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny import SWIN

from hf_cxr.commands import main
from hf_cxr.config import ModelArguments, parse_arguments
from hf_cxr.data import label_matrix, load_source
from hf_cxr.labels import NIH14
from hf_cxr.models.build import build_model
from hf_cxr.predictions import Predictions
from hf_cxr.processing import build_image_processor
from hf_cxr.reporting.mistakes import SHEET
from hf_cxr.run.result_folder import held, write_whole

DATA = {
    "dataset": "phantom",
    "phantom_train": 12,
    "phantom_validation": 8,
    "phantom_test": 10,
    "phantom_size": 64,
    "phantom_prevalence_floor": 0.2,
    "bootstrap_resamples": 10,
}


def save_run(folder, weights, **config):
    torch.manual_seed(weights)
    build_model(ModelArguments(**SWIN), NIH14).save_pretrained(folder)
    build_image_processor(36, 32).save_pretrained(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(DATA | config))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "one", 0)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "two", 1)


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "evaluation"
    assert evaluate("--model", run, "--out", out) == 0
    return out


@pytest.fixture
def out(evaluated, tmp_path):
    """An evaluation of ``run`` that a test may change."""
    return Path(shutil.copytree(evaluated, tmp_path / "evaluation"))


def evaluate(*words):
    return main(["evaluate", *map(str, words)])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Which data


@pytest.mark.parametrize(
    "words",
    [
        ["CONFIG", "--model", "RUN", "--split", "validation"],
        ["--model", "RUN", "CONFIG", "--split=validation"],
        ["--phantom_seed", "0", "--split", "validation", "--model", "RUN", "--calibrate", "true", "CONFIG"],
    ],
)
def test_the_config_may_stand_anywhere(run, tmp_path, capsys, words):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(DATA | {"phantom_validation": 9}))
    places = {"CONFIG": tmp_path / "c.yaml", "RUN": run}
    assert evaluate(*(places.get(word, word) for word in words), "--out", tmp_path / "out") == 0
    assert len(Predictions.load(tmp_path / "out" / "predictions.parquet")) == 9
    assert "9 validation images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--phantom_sed", "3"], "phantom_seed"),
        (["a.yaml", "b.yaml"], "two configs are given, a.yaml and b.yaml"),
        (["a.yaml"], "no such config: a.yaml"),
        (["--mistakes", "3"], "written to --out DIR"),
        (["--mistakes", "0", "--out", "out"], "at least 1"),
    ],
)
def test_a_wrong_word_is_named(run, capsys, words, message):
    try:
        status = evaluate("--model", run, *words)
    except SystemExit as stopped:  # of argparse
        status = stopped.code
    assert status == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("hf-cxr evaluate: ")
    assert message in line


@pytest.fixture
def table(tmp_path):
    """Eight images in a table of their own."""
    rng = np.random.default_rng(0)
    rows = ["image,patient,Mass,split"]
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        split = ("train", "validation", "test", "test")[number % 4]
        rows.append(f"{number}.png,p{number},{int(number < 4)},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    (tmp_path / "t.yaml").write_text(
        "files: {all: table.csv}\nimage_path: '{image}'\npatient_column: patient\nsplit_column: split\n"
        "label_format: columns\nfindings: {Mass: Mass}\n"
    )
    return ["--dataset", "table", "--table", tmp_path / "t.yaml", "--table_root", tmp_path]


@pytest.mark.parametrize(
    "own",
    [
        {"dataset": "nih", "nih_root": "/moved/away", "missing_images": "skip"},
        {"dataset": "prepared", "prepared": "/moved/away"},
        {"dataset": "table", "table": "chexpert", "table_root": "/moved/away"},
        {"split_file": "/moved/split.csv", "fold": 3},
    ],
)
def test_another_dataset_leaves_the_runs_own_behind(tmp_path, table, own):
    folder = save_run(tmp_path / "run", 0, **own)
    assert evaluate("--model", folder, *table, "--out", tmp_path / "out") == 0
    predictions = Predictions.load(tmp_path / "out" / "predictions.parquet")
    assert len(predictions) == 4
    assert np.nansum(predictions.labels) == 2
    assert np.isnan(predictions.labels).sum() == 4 * 13


def test_a_table_of_test_images_alone_is_measured_and_trains_nothing(run, table, tmp_path, capsys):
    (tmp_path / "t.yaml").write_text(
        "files: {test: table.csv}\nimage_path: '{image}'\npatient_column: patient\n"
        "label_format: columns\nfindings: {Mass: Mass}\n"
    )
    assert evaluate(run / "config.yaml", "--model", run, *table, "--out", tmp_path / "out") == 0
    assert f"{tmp_path / 'out'}/evaluation.html" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["all"]["counts"]["images"] == 8
    assert (written["shared_findings"], written["model_findings"]) == (1, 14)
    assert evaluate("--model", run, *table, "--split", "validation") == 2
    assert "has no validation images; measure --split test" in capsys.readouterr().err
    assert main(["train", "configs/quickstart.yaml", *map(str, table), "--output_dir", str(tmp_path / "trained")]) == 2
    assert "has no image in train and validation" in capsys.readouterr().err


@pytest.mark.skipif("HF_CXR_NIH_ROOT" not in os.environ, reason="HF_CXR_NIH_ROOT names no NIH release")
def test_a_run_on_phantoms_is_measured_on_the_nih_release_and_its_scores_again_without_it(run, tmp_path, capsys):
    nih = ["--dataset", "nih", "--nih_root", os.environ["HF_CXR_NIH_ROOT"]]
    words = [*nih, "--missing_images", "skip", "--out", tmp_path / "out"]
    assert evaluate(run / "config.yaml", "--model", run, *words) == 0
    first = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (first["dataset"], first["synthetic"], "shared_findings" in first) == ("ChestX-ray14", False, False)
    again = ["--predictions", tmp_path / "out", *nih, "--out", tmp_path / "again", "--bootstrap_resamples", "10"]
    if first["missing_images"]:
        capsys.readouterr()
        assert evaluate(*again) == 2  # the official list has more images than the folder
        assert "have no score" in capsys.readouterr().err
        again.append("--shared")
    assert evaluate(*again) == 0
    second = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert second["all"]["auc"]["value"] == first["all"]["auc"]["value"]
    assert second["all"]["counts"] == first["all"]["counts"]


def test_a_model_is_compared_with_another_systems_file(run, table, tmp_path, capsys):
    (tmp_path / "theirs.csv").write_text("file,Mass\n2,0.9\n3,0.2\n6,0.4\n7,0.1\n")
    words = ["--model", run, *table, "--against", tmp_path / "theirs.csv"]
    assert evaluate(*words, "--out", tmp_path / "out") == 0
    paired = json.loads((tmp_path / "out" / "analysis.json").read_text())["paired"]
    assert (paired["images"], paired["label_names"]) == (4, ["Mass"])
    assert paired["metrics"]["auc"]["macro"]["second"] == 0.75
    for content, message in (("file,Mass\nx,0.9\n", "no image of the scores"), ("file,Mass\n2,9\n", "outside")):
        (tmp_path / "theirs.csv").write_text(content)
        capsys.readouterr()
        assert evaluate(*words) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert "Predicting" not in printed


def test_an_image_that_cannot_be_read_is_refused_first_or_counted_once(run, tmp_path, table, capsys):
    (tmp_path / "2.png").write_bytes(b"not an image")
    words = ["--model", run, *table, "--out", tmp_path / "out"]
    assert evaluate(*words) == 2
    printed = capsys.readouterr().err
    assert "2.png" in printed
    assert "Predicting" not in printed
    assert evaluate(*words, "--unreadable_images", "skip", "--missing_images", "skip") == 0
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (written["unreadable_images"], written["missing_images"]) == (1, {})
    assert written["all"]["counts"]["images"] == 3


def test_a_split_of_one_patient_is_refused_first(run, table, capsys):
    path = table[3].with_name("table.csv")
    path.write_text(path.read_text().replace("p4,", "p0,"))
    assert evaluate("--model", run, *table, "--split", "train") == 2
    assert "train has images of 1 patient" in capsys.readouterr().err


def test_the_contact_sheet_of_mistakes_is_in_a_folder_of_its_own(run, out, capsys):
    before = contents(out)
    assert evaluate("--model", run, "--out", out, "--mistakes", 2) == 0
    after = contents(out)
    assert set(after) - set(before) == {SHEET}
    assert b"data:image/png;base64" in after[SHEET]
    assert f"{out}/{SHEET} contains patients' images" in capsys.readouterr().out


def test_what_is_of_the_training_and_its_machine_does_not_matter(tmp_path):
    machine = {
        "images_per_step": 999,
        "report_to": "tensorboard",
        "use_cpu": True,
        "bf16": True,
        "deepspeed": "x.json",
    }
    folder = save_run(tmp_path / "run", 0, **machine)
    assert evaluate("--model", folder) == 0


def test_shuffled_labels_are_those_of_the_runs_seed(tmp_path):
    folder = save_run(tmp_path / "run", 0, shuffle_labels=True, seed=7)
    assert evaluate("--model", folder, "--split", "train", "--out", tmp_path / "out") == 0
    measured = Predictions.load(tmp_path / "out" / "predictions.parquet").labels
    data = parse_arguments([str(folder / "config.yaml")]).data
    trained, elsewhere = (label_matrix(load_source(data, seed=seed).splits["train"]) for seed in (7, 0))
    np.testing.assert_array_equal(measured, trained)
    assert not np.array_equal(measured, elsewhere, equal_nan=True)


# Where it writes


def test_the_same_evaluation_may_be_repeated(run, out, tmp_path):
    before = contents(out)
    copy = shutil.copytree(run, tmp_path / "moved")
    assert evaluate("--model", copy, "--out", out) == 0
    after = contents(out)
    assert set(after) == set(before)
    assert json.loads(after[Path("evaluation.json")])["model"] == str(copy)
    assert after[Path("predictions.parquet")] == before[Path("predictions.parquet")]


@pytest.mark.parametrize(
    ("words", "key"),
    [(["--split", "validation"], "split was test"), (["--phantom_seed", "9"], "split_fingerprint was")],
)
def test_figures_of_other_data_are_not_overwritten(run, out, capsys, words, key):
    before = contents(out)
    assert evaluate("--model", run, *words, "--out", out) == 2
    assert f"contains the figures of another evaluation ({key}" in capsys.readouterr().err
    assert contents(out) == before


def test_figures_of_another_model_are_not_overwritten(run, other, out, tmp_path, capsys):
    before = contents(out)
    assert evaluate("--model", other, "--out", out) == 2
    assert f"(model was {run} and is {other})" in capsys.readouterr().err
    retrained = shutil.copytree(run, tmp_path / "run")  # the same name, other weights
    values = json.loads((out / "evaluation.json").read_text()) | {"model": str(retrained)}
    shutil.copy(other / "model.safetensors", retrained)
    (out / "evaluation.json").write_text(json.dumps(values))
    assert evaluate("--model", retrained, "--out", out) == 2
    assert "has different weights or settings now" in capsys.readouterr().err
    assert contents(out)[Path("predictions.parquet")] == before[Path("predictions.parquet")]


def test_a_write_that_was_interrupted_is_finished_by_its_own_command_alone(run, other, out, capsys):
    before = contents(out)
    (out / "evaluation.json").unlink()
    assert evaluate("--model", other, "--out", out) == 2
    assert "contains the figures of another evaluation" in capsys.readouterr().err
    assert evaluate("--model", run, "--out", out) == 0
    assert contents(out) == before


MARKS = {
    "a run": "config.json",
    "a run that is not finished": "config.yaml",
    "a checkpoint": "trainer_state.json",
    "an ensemble": "metrics.json",
    "prepared images": "manifest.json",
    "a run's predictions": "validation.parquet",
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
def test_a_folder_of_something_else_is_refused_before_anything_is_read(tmp_path, run, capsys, mark):
    place = tmp_path / "place"
    place.mkdir()
    (place / mark).write_text("{}")
    words = ["--model", "no/such/model", run / "config.yaml", "--out", place]
    try:
        status = evaluate(*words)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    error = capsys.readouterr().err
    assert str(place) in error
    assert "give another --out" in error
    assert contents(place) == {Path(mark): b"{}"}


@pytest.mark.parametrize("command", ["evaluate", "ensemble"])
@pytest.mark.parametrize("kind", ["file", "link to a file", "dangling link", "pipe", "below a file"])
def test_a_place_that_cannot_be_a_folder_is_refused_first(tmp_path, run, other, capsys, command, kind):
    file, place = tmp_path / "file", tmp_path / "place"
    file.write_text("kept")
    if kind == "file":
        place = file
    elif kind == "below a file":
        place = file / "place"
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(file if kind == "link to a file" else tmp_path / "nothing")
    words = ["--model", "no/such/model", str(run / "config.yaml")] if command == "evaluate" else [str(run), str(other)]
    assert main([command, *words, "--out", str(place)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(place) in line
    assert "give another" in line
    assert file.read_text() == "kept"
    assert not (tmp_path / "nothing").exists()


def test_a_link_to_a_folder_is_written_through(run, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert evaluate("--model", run, "--out", tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink()
    names = {file.name for file in (tmp_path / "real").iterdir()}
    assert names == {"analysis.json", "evaluation.json", "evaluation.html", "predictions.parquet"}


def test_nothing_is_left_where_nothing_came_of_it(run, tmp_path, capsys):
    assert evaluate("--model", "no/such/model", run / "config.yaml", "--out", tmp_path / "out") == 2
    assert "no such run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_held_by_one_at_a_time(tmp_path):
    for place in (tmp_path / "new", tmp_path):
        with held(place), pytest.raises(OSError, match="another command is writing to"), held(place):
            pass
        with held(place):
            pass
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an earlier result"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, there):
    place = tmp_path / "place"
    if there != "nothing":
        place.mkdir()
    if there == "an earlier result":
        (place / "a.json").write_text("old")
        (place / "b.parquet").write_text("old")
    before = contents(tmp_path)

    def half(folder):
        (folder / "b.parquet").write_text("new")
        raise OSError("no space left on device")

    with held(place), pytest.raises(OSError, match="no space left"):
        write_whole(place, half, last="a.json")
    assert contents(tmp_path) == before
    assert place.is_dir() == (there != "nothing")

    def whole(folder):
        for name in ("a.json", "b.parquet"):
            (folder / name).write_text("new")

    with held(place):
        write_whole(place, whole, last="a.json")
    assert contents(place) == {Path("a.json"): b"new", Path("b.parquet"): b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_what_a_killed_command_left_is_cleared(tmp_path):
    place = tmp_path / "place"
    (tmp_path / ".place.hf-cxr-0123456789ab").mkdir()
    (tmp_path / ".place.hf-cxr-0123456789ab" / "half").write_text("half")
    (tmp_path / ".place.other").mkdir()
    with held(place):
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [".place.other"]
