"""Results as CSV, Parquet and JSON lines: the same values in each, resumable, and a list of unreadable files."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from PIL import Image

from hf_cxr.commands import main
from hf_cxr.data.images.grey import ImageError
from hf_cxr.evaluation import choose_operating_points
from hf_cxr.evaluation.conformal import fit_conformal
from hf_cxr.files import OutputError
from hf_cxr.inference import result_files
from hf_cxr.inference.answers import AnswerLines
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.result_files import FORMATS, ResultColumns, check_format, check_result_file, format_of
from hf_cxr.inference.results import ImageResult, InputCheckResult

NAMES = ("Mass", "Hernia", "=Edema")
RNG = np.random.default_rng(0)
PROB_NC = RNG.random((80, 3))
LABEL_NC = (RNG.random((80, 3)) < PROB_NC).astype(float)
POINTS = choose_operating_points(PROB_NC, np.where([True, False, True], LABEL_NC, 0), rule="f1", label_names=NAMES)
SETS = fit_conformal(PROB_NC, LABEL_NC, range(80), label_names=NAMES, coverage=0.7)
CALLS = Calls(NAMES, POINTS)


def results(checked: bool = True) -> list[ImageResult]:
    check = InputCheckResult(0.5, 2.0), InputCheckResult(9.0, 2.0, ("nearly uniform", "rotated; a bit"))
    return [
        ImageResult.of(
            f"{n}.png",
            p_C.astype(np.float32),
            CALLS,
            SETS,
            check[n % 2] if checked else None,
            ("too flat", "cut") if n == 3 else (),
        )
        for n, p_C in enumerate(np.linspace(0.02, 0.98, 15).reshape(5, 3))
    ]


def write(path: Path, given, columns, **named) -> Path:
    with FORMATS[path.suffix](path, columns, **named) as add:
        for result in given:
            add(result)
    return path


def test_every_format_has_the_same_values(tmp_path, monkeypatch):
    monkeypatch.setattr(result_files, "ROWS_AT_ONCE", 2)  # several row groups, the last of them smaller
    columns = ResultColumns(CALLS, label_sets=True, input_check=True)
    given = results()
    table = pq.read_table(write(tmp_path / "a.parquet", given, columns))
    with write(tmp_path / "a.csv", given, columns).open(newline="") as file:
        header, *rows = csv.reader(file)
    lines = [json.loads(line) for line in write(tmp_path / "a.jsonl", given, columns).read_text().splitlines()]
    assert lines == [json.loads(json.dumps(result.to_dict())) for result in given]
    assert table.column_names == header == columns.names
    assert header[: 1 + 3 + 2] == ["image", *NAMES, "called/Mass", "called/=Edema"]  # as before label sets
    types = {name: table.schema.field(name).type for name in header}
    assert {types[name] for name in NAMES} == {pa.float32()}
    assert types["called/Mass"] == types["input_check/unusual"] == pa.bool_()
    seen = set()
    for result, cells, row in zip(given, rows, table.to_pylist(), strict=True):
        named = dict(zip(header, cells, strict=True))
        assert row["image"] == named["image"] == result.name
        for finding in result.findings:
            assert row[finding.name] == finding.probability
            assert named[finding.name] == f"{finding.probability:.6f}"
            assert row[f"set/{finding.name}"] == named[f"set/{finding.name}"] == finding.not_ruled_out
            seen.add(finding.label_set)
            if finding.called is not None:
                assert row[f"called/{finding.name}"] == finding.called == bool(int(named[f"called/{finding.name}"]))
        check = result.input_check
        assert (row["input_check/unusual"], row["input_check/score"]) == (check.unusual, check.score)
        assert row["input_check/reasons"] == list(check.reasons)
        assert named["input_check/unusual"] == str(int(check.unusual))
        assert named["input_check/reasons"] == "; ".join(check.reasons)
        assert row["image/remarks"] == list(result.remarks)
        assert named["image/remarks"] == "; ".join(result.remarks)
    assert len(seen) >= 3


def test_a_model_without_sets_and_check_has_the_columns_of_before():
    columns = ResultColumns(Calls(NAMES, None))
    assert columns.names == ["image", *NAMES, "image/remarks"]
    assert len(columns.cells(results(checked=False)[0])) == 5
    assert columns.arrow([]).num_columns == 5


def test_names_that_are_not_utf8_are_valid_in_every_format(tmp_path):
    columns = ResultColumns(Calls(("A",), None))
    result = ImageResult.of(os.fsdecode(b"\xff.png"), np.array([0.25], np.float32), columns.calls)
    for suffix in FORMATS:
        content = write(tmp_path / f"x{suffix}", [result], columns).read_bytes()
        if suffix == ".parquet":
            assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [
                {"image": "\\xff.png", "A": 0.25, "image/remarks": []}
            ]
        else:
            assert "\\xff.png" in content.decode("utf-8").replace("\\\\", "\\")


def test_two_columns_of_one_name_are_refused_for_parquet():
    columns = ResultColumns(Calls(("image", "A"), None))
    check_format(".csv", columns)
    with pytest.raises(ValueError, match="'image'"):
        check_format(".parquet", columns)


def test_the_suffix_is_the_format_and_another_kind_of_file_stays(tmp_path):
    assert format_of("x.JSONL") == ".jsonl"
    for name in ("x", "x.txt", "x.json", "x.csv.gz"):
        with pytest.raises(OutputError, match=r"\.csv, \.parquet, \.jsonl"):
            format_of(name)
    for suffix in FORMATS:
        other = tmp_path / f"other{suffix}"
        other.write_bytes(b"\x00\x01precious")
        with pytest.raises(OutputError, match="another name"):
            check_result_file(other, suffix)
        assert other.read_bytes() == b"\x00\x01precious"
        check_result_file(tmp_path / f"new{suffix}", suffix)


def test_an_answer_comes_back_from_its_line():
    lines = AnswerLines(CALLS, SETS, "model")
    for result in (*results(), *results(checked=False)):
        path, version, found = lines.answer(lines.line(Path("/x.png"), (3, 4), result).encode() + b"\n")
        assert (path, version) == (Path("/x.png"), (3, 4))
        assert found.to_dict() == result.to_dict() | {"image": "/x.png"}
        assert found.remarks == result.remarks
        why = lines.line(Path("/x.png"), (3, 4), result, ["no study"]).encode() + b"\n"
        assert lines.failures(why) == ("no study",)
    line = lines.line(Path("/x.png"), (3, 4), ImageError("x.png", "cut off")).encode() + b"\n"
    assert str(lines.answer(line)[2]) == "cannot read x.png: cut off"
    whole = lines.line(Path("/x.png"), (3, 4), results()[0]).encode() + b"\n"
    for damaged in (whole[:-1], whole[:30] + b"\n", b"\0" * 9 + b"\n", b"[1]\n", b"{}\n", b'["a", 1, 2, "00"]\n'):
        assert lines.answer(damaged) is None


# The command.


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model with operating points for two findings, and label sets."""
    folder = tiny.save_model(tmp_path_factory.mktemp("model"), names=NAMES, spread=2.0)
    config = json.loads((folder / "config.json").read_text())
    record = {"version": "1", "operating_points": POINTS.to_dict(), "conformal": SETS.to_dict()}
    (folder / "config.json").write_text(json.dumps(config | {"hf_cxr": record}))
    return folder


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        grey = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    (folder / "3.png").write_text("broken")
    return folder


def predict(*words: object) -> int:
    return main(["predict", *map(str, words)])


def test_every_output_of_the_command_is_of_the_same_results(model, images, tmp_path, capsys):
    for suffix in FORMATS:
        assert predict(images, "--model", model, "--out", tmp_path / f"x{suffix}", "--batch_size", 4) == 2
    assert predict(images, "--model", model, "--csv", tmp_path / "y.2026", "--batch_size", 4) == 2
    assert (tmp_path / "y.2026").read_bytes() == (tmp_path / "x.csv").read_bytes()
    printed = capsys.readouterr()
    assert printed.err.count("not checked whether the images are chest radiographs") == 4
    paths = sorted(path for path in images.iterdir() if path.name != "3.png")
    expected = [
        result.to_dict()
        for result in Classifier(model).predict_images(sorted(images.iterdir()), batch_size=4)
        if not isinstance(result, ImageError)
    ]
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    assert [line["image"] for line in expected] == list(map(str, paths))
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    for row, values in zip(rows, expected, strict=True):
        assert [row[name] for name in NAMES] == [finding["probability"] for finding in values["findings"]]
    assert predict(images, "--model", model, "--out", "-", "--batch_size", 4) == 2
    assert capsys.readouterr().out.splitlines() == lines
    with (tmp_path / "x.parquet.unreadable.csv").open(newline="") as file:
        header, (name, reason) = csv.reader(file)
    assert (header, name) == (["image", "reason"], str(images / "3.png"))
    assert "not an image" in reason


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_resumes_and_reads_again_what_could_not_be_read(model, images, tmp_path, monkeypatch, suffix):
    out, whole = tmp_path / f"x{suffix}", tmp_path / f"whole{suffix}"
    real, asked = Classifier.outputs, []

    def stopped(self, pixel_B1SS):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(pixel_B1SS))
        return real(self, pixel_B1SS)

    flags = ("--model", model, "--out", out, "--batch_size", 2)
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "outputs", stopped)
        assert predict(images, *flags) == 130
    assert not out.exists()
    Image.open(images / "2.png").save(images / "3.png")  # it has been repaired
    (tmp_path / f"x{suffix}.unreadable.csv").write_text("image,reason\r\nold.png,old\r\n")
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "outputs", lambda self, given: (asked.append(len(given)), real(self, given))[1])
        assert predict(images, *flags) == 0
    assert asked == [2, 1, 2, 1]  # 0 1, 2; then 3 4, 5
    assert predict(images, "--model", model, "--out", whole, "--batch_size", 2) == 0
    if suffix == ".csv":
        assert out.read_bytes() == whole.read_bytes()
    assert out.stat().st_size > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["images", out.name, whole.name])


def test_a_list_that_is_not_ours_stays(model, images, tmp_path):
    (images / "3.png").unlink()
    other = tmp_path / "x.csv.unreadable.csv"
    other.write_text("my notes\n")
    assert predict(images, "--model", model, "--out", tmp_path / "x.csv") == 0
    assert other.read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x.txt"], "must be one of .csv, .parquet, .jsonl"),
        (["--out", "x.csv", "--csv", "y.csv"], "not both"),
        (["--out", ""], "not the name of a file"),
        (["--workers", "-1"], "--workers"),
        (["--device", "gpu"], "not a device"),
        (["--device", "cuda:99"], "no device cuda:99"),
        (["--attention", "flash"], "attention"),
    ],
)
def test_bad_words_are_one_line(model, images, capsys, words, said):
    try:
        status = predict(images, "--model", model, *words)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_workers_attention_and_device_change_no_row(model, images, tmp_path):
    assert predict(images, "--model", model, "--out", tmp_path / "a.csv", "--workers", 0) == 2
    flags = ("--workers", 3, "--device", "cpu", "--attention", "fast")
    assert predict(images, "--model", model, "--out", tmp_path / "b.csv", *flags) == 2
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


# One forward pass.


def test_logits_come_from_the_features_of_the_same_pass(model):
    import torch

    classifier = Classifier(model)
    pixel_B1SS = torch.randint(0, 256, (5, 1, 36, 36), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logit_BC, feature_BD = classifier.outputs(pixel_B1SS)
    head = classifier.model.classifier
    again_BC = feature_BD @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(logit_BC, again_BC, atol=1e-5)
    np.testing.assert_array_equal(logit_BC, classifier.logits(pixel_B1SS))
    assert (logit_BC.dtype, feature_BD.dtype, feature_BD.shape[0]) == (np.float32, np.float32, 5)
    assert np.ptp(feature_BD, axis=0).max() > 0.01


def test_bf16_moves_probabilities_a_little_and_is_another_model_to_kept_rows(model, images):
    exact, rough = Classifier(model), Classifier(model, bf16=True)
    paths = [path for path in sorted(images.iterdir()) if path.name != "3.png"]
    one, other = (
        np.array([result.probability_C for result in classifier.predict_images(paths)])
        for classifier in (exact, rough)
    )
    assert other.dtype == np.float32
    assert 0 < np.abs(one - other).max() < 0.1
    assert exact.fingerprint() != rough.fingerprint()


def test_an_input_check_gets_the_pixels_and_features_of_the_pass(model, images):
    classifier = Classifier(model)
    seen = []

    class Check:
        def of(self, pixel_BSS, feature_BD):
            seen.append((pixel_BSS.shape, pixel_BSS.dtype, feature_BD.shape))
            return [InputCheckResult(float(pixel_SS.mean()), 500.0) for pixel_SS in pixel_BSS]

    classifier.input_check = Check()
    found = list(classifier.predict_images(sorted(images.iterdir()), batch_size=4))
    assert isinstance(found.pop(3), ImageError)
    assert all(80 < result.input_check.score < 180 for result in found)
    width = classifier.model.classifier.in_features
    assert seen == [((3, 36, 36), np.uint8, (3, width)), ((2, 36, 36), np.uint8, (2, width))]
