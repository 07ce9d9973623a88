"""The predictions file: an exact round trip, never half-written, and clear about what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hf_cxr.predictions as module
from hf_cxr.predictions import Predictions

NAN = float("nan")


@pytest.fixture
def predictions() -> Predictions:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, size=(6, 3)).astype(np.float32)
    labels[2, 1] = NAN
    return Predictions(
        logits=rng.normal(size=(6, 3)).astype(np.float32) * 10,
        labels=labels,
        image_ids=[f"{row:08d}_000.png" for row in range(6)],
        patient_ids=["a", "a", "b", "c", "c", "c"],
        label_names=["Mass", "Pleural/Other", "Hernia"],
        view=["PA", None, "AP", "PA", "PA", None],
        age=[58, NAN, 81, 3.5, 0, 94],
        sex=["M", "F", None, "M", "M", "F"],
        split="validation",
        metadata={"split_fingerprint": "c0ffee", "calibrated": False, "sizes": (256, 224)},
    )


def assert_equal(one: Predictions, other: Predictions) -> None:
    for name in one.__dataclass_fields__:
        expected, value = getattr(one, name), getattr(other, name)
        if isinstance(expected, np.ndarray):
            assert value.dtype == expected.dtype
            assert value.shape == expected.shape
            np.testing.assert_array_equal(value, expected)  # NaN equals NaN here
        else:
            assert value == expected
            assert type(value) is type(expected)


def test_round_trip_is_exact_with_unknown_cells(predictions, tmp_path):
    path = predictions.save(tmp_path / "run" / "predictions" / "validation.parquet")
    assert_equal(predictions, Predictions.load(path))
    assert np.isnan(Predictions.load(path).labels[2, 1])
    assert_equal(predictions, Predictions.load(str(path)))


def test_round_trip_without_the_optional_columns(predictions, tmp_path):
    bare = replace(predictions, view=None, age=None, sex=None, split="", metadata={})
    path = bare.save(tmp_path / "bare.parquet")
    assert_equal(bare, Predictions.load(path))
    assert not {"view", "age", "sex"} & set(pq.read_schema(path).names)


def test_the_file_has_the_columns_that_other_tools_read(predictions, tmp_path):
    table = pq.read_table(predictions.save(tmp_path / "p.parquet"))
    assert table.column_names[:5] == ["image_id", "patient_id", "view", "age", "sex"]
    assert {"logit/Mass", "label/Pleural/Other"} <= set(table.column_names)
    assert table["logit/Hernia"].type == pa.float32()
    assert table["label/Pleural/Other"].null_count == 0, "unknown is NaN, as everywhere"


def test_probabilities_are_the_sigmoid_in_float64(predictions):
    extreme = replace(predictions, logits=np.full((6, 3), [0.0, -80.0, 1e4]))
    np.testing.assert_allclose(extreme.probabilities[0], [0.5, np.exp(-80.0), 1.0], rtol=1e-12)
    assert extreme.probabilities.dtype == np.float64


def test_a_failed_write_leaves_the_old_file_and_nothing_else(predictions, tmp_path, monkeypatch):
    path = predictions.save(tmp_path / "p.parquet")

    def half_written(table, file):
        Path(file).write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(module.pq, "write_table", half_written)
    with pytest.raises(OSError, match="disk full"):
        replace(predictions, split="other").save(path)
    assert Predictions.load(path).split == "validation"
    assert [file.name for file in tmp_path.iterdir()] == ["p.parquet"]


def test_files_of_other_programs_are_refused(predictions, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no predictions file"):
        Predictions.load(tmp_path / "absent.parquet")
    text = tmp_path / "text.parquet"
    text.write_text("image_id,patient_id\n")
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        Predictions.load(text)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"image_id": ["a"]}), foreign)
    with pytest.raises(ValueError, match="not one of predictions"):
        Predictions.load(foreign)
    path = predictions.save(tmp_path / "p.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["logit/Mass"]), foreign)
    with pytest.raises(ValueError, match="has no columns logit/Mass"):
        Predictions.load(foreign)
    monkeypatch.setattr(module, "FORMAT", 0)
    with pytest.raises(ValueError, match="format 1; this version reads up to 0"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_ids": ["a", "b", "a", "c", "d", "e"]}, "1 image ids appear more than once, such as a"),
        ({"patient_ids": ["a"] * 5}, r"patient_ids has shape \(5,\) for 6 image ids"),
        ({"patient_ids": ["a", "b", None, "c", "d", "e"]}, "patient_id at row 2 is None"),
        ({"image_ids": [0, 1, 2, 3, 4, 5]}, "image_id at row 0 is 0; expected a string"),
        ({"view": ["PA"]}, "view has shape"),
        ({"age": [1.0]}, "age has shape"),
        ({"sex": [NAN] * 6}, "sex at row 0 is nan; expected a string, or None"),
        ({"labels": np.zeros((6, 2))}, r"labels have shape \(6, 2\); expected \(6, 3\)"),
        ({"labels": np.full((6, 3), 0.5)}, "labels: 0.5 for Mass of image 00000000_000.png"),
        ({"logits": np.full((6, 3), NAN)}, "logits: nan for Mass"),
        ({"label_names": ["a", "a", "b"]}, "finding names must be unique"),
        ({"metadata": {"loss": NAN}}, "metadata must be what JSON can hold"),
        ({"metadata": {"loss": object()}}, "metadata must be what JSON can hold"),
    ],
)
def test_bad_fields_are_refused(predictions, change, message):
    with pytest.raises(ValueError, match=message):
        replace(predictions, **change)


def test_exact_probabilities_come_back_to_the_bit_and_new_logits_need_a_word(predictions, tmp_path):
    prob_NC = np.random.default_rng(0).random((6, 3))
    prob_NC[0] = [0, 1, 5e-324]
    fields = {name: getattr(predictions, name) for name in ("labels", "image_ids", "patient_ids", "label_names")}
    exact = Predictions.of_probabilities(prob_NC, **fields)
    assert exact.probabilities.tobytes() == prob_NC.tobytes()
    assert np.isfinite(exact.logits).all()
    assert exact.logits.dtype == np.float32
    assert Predictions.load(exact.save(tmp_path / "a.parquet")).probabilities.tobytes() == prob_NC.tobytes()
    with pytest.raises(ValueError, match="exact_probabilities are not those of the logits"):
        replace(exact, logits=exact.logits + 1)
    moved = replace(exact, logits=exact.logits + 1, exact_probabilities=None)
    assert not np.allclose(moved.probabilities, prob_NC)
    with pytest.raises(ValueError, match=r"1.5 is not a probability"):
        Predictions.of_probabilities(np.full((6, 3), 1.5), **fields)


def test_further_columns_come_back(predictions, tmp_path):
    extra = {"scanner": ("a", None, "b", "b", "", "a"), "dose": (1, 2.5, NAN, None, 0, 3), "nothing": (None,) * 6}
    kept = replace(predictions, extra=extra)
    assert kept.extra["dose"] == (1.0, 2.5, None, None, 0.0, 3.0)
    assert_equal(kept, Predictions.load(kept.save(tmp_path / "a.parquet")))
    with pytest.raises(ValueError, match="extra scanner has shape"):
        replace(predictions, extra={"scanner": ("a",)})
    with pytest.raises(ValueError, match="extra mixed must contain numbers or strings"):
        replace(predictions, extra={"mixed": ("a", 1.0, None, None, None, None)})


def test_empty_ids_are_refused_in_every_kind_of_column():
    fields = {"logits": np.zeros((2, 1)), "labels": np.zeros((2, 1)), "label_names": ["Mass"]}
    fields["patient_ids"] = ["p", "q"]
    for kind in (list, tuple, np.array, pd.Series, lambda ids: pd.Series(ids, index=["x", "y"])):
        with pytest.raises(ValueError, match=r"image_id at row 1 is .*''"):
            Predictions(image_ids=kind(["a", ""]), **fields)
        assert Predictions(image_ids=kind(["a", "b"]), **fields).image_ids == ("a", "b")
