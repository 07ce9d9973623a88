"""Scores of any program with labels of any table: the numbers exactly, the images by name, and what is refused."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from hf_cxr import Predictions
from hf_cxr.evaluation import METRICS
from hf_cxr.labels import NIH14
from hf_cxr.prediction_tables import match, read_labels, read_predictions, read_scores

NAN = float("nan")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def scores(**columns):
    return pd.DataFrame({"image_id": ["a", "b", "c", "d"], "Mass": [0.9, 0.2, 0.6, 0.1]} | columns)


def labels(**columns):
    table = {"image_id": ["a", "b", "c", "d"], "patient_id": [1, 1, 2, 3], "Mass": [1, 0, 1, 0]}
    return pd.DataFrame(table | columns)


def read(scores, labels, **options):
    scores.to_csv("scores.csv", index=False)
    labels.to_csv("labels.csv", index=False)
    return read_predictions("scores.csv", "labels.csv", **options)


# Numbers


def test_csv_and_parquet_give_the_same_bits_and_the_figures_of_scikit_learn(tmp_path):
    rng = np.random.default_rng(0)
    # Neighbours in float64, which float32 logits would make equal, and the ends of the range
    prob_N = np.concatenate([0.001 * (1 + rng.permutation(60) * 1e-12), [0.0, 1.0, 5e-324, 1 - 2**-53]])
    label_N = rng.integers(0, 2, len(prob_N))
    table = pd.DataFrame({"image_id": [f"{n}.png" for n in range(len(prob_N))], "Mass": prob_N})
    truth = pd.DataFrame({"image_id": table["image_id"], "patient_id": range(len(prob_N)), "Mass": label_N})
    table.to_parquet("scores.parquet")
    truth.to_parquet("labels.parquet")
    one, other = read(table, truth), read_predictions("scores.parquet", "labels.parquet")
    assert one.probabilities.tobytes() == other.probabilities.tobytes() == prob_N.tobytes()
    auc = METRICS["auc"].measure(one.probabilities, one.labels)[0]
    assert auc == pytest.approx(roc_auc_score(label_N, prob_N), abs=1e-12)
    assert auc != METRICS["auc"].measure(one.logits, one.labels)[0]
    saved = Predictions.load(one.save("p.parquet"))
    assert saved.probabilities.tobytes() == prob_N.tobytes()
    assert read_predictions("p.parquet").probabilities.tobytes() == prob_N.tobytes()


def test_logits_are_taken_as_logits_only_when_they_are_called_so(caplog):
    logit_N = [2.0, -3.0, 0.5, -1.0]
    with pytest.raises(
        ValueError, match=r"row 1, image a, column 'Mass' is 2 .and 2 more., outside \[0, 1\], so.*--scores logits"
    ):
        read(scores(Mass=logit_N), labels())
    with pytest.raises(ValueError, match="declared probabilities"):
        read(scores(Mass=logit_N), labels(), kind="probabilities")
    np.testing.assert_array_equal(
        read(scores(Mass=logit_N), labels(), kind="logits").probabilities[:, 0], expit(logit_N)
    )
    named = scores().drop(columns="Mass").assign(**{"logit/Mass": logit_N})
    np.testing.assert_array_equal(read(named, labels()).probabilities[:, 0], expit(logit_N))
    with pytest.raises(ValueError, match="says that its scores are logits"):
        read(named, labels(), kind="probabilities")
    read(scores(Mass=[50.0, 60.0, -3.0, -4.0]), labels(), kind="logits")
    assert "1 different ones are equal as probabilities" in caplog.text


def test_a_parquet_file_may_state_its_kind_and_its_format(tmp_path):
    labels().to_csv("labels.csv", index=False)

    def write(**header):
        table = pa.Table.from_pandas(scores(Mass=[0.1, 0.2, 0.3, 0.4]))
        pq.write_table(table.replace_schema_metadata({"hf_cxr.scores": json.dumps(header)}), "s.parquet")
        return match(read_scores("s.parquet"), read_labels("labels.csv"))

    assert write(format=1, scores="logits").facts["scores"] == "logits, as the file says"
    assert write(format=1).facts["scores"] == "probabilities: all are in [0, 1]"
    with pytest.raises(ValueError, match="another format"):
        write(format=2, scores="logits")
    with pytest.raises(ValueError, match="calls its scores odds"):
        write(format=1, scores="odds")


# Images and findings


@pytest.mark.parametrize(
    ("mine", "theirs", "rule"),
    [
        (["a", "b", "c", "d"], ["a", "b", "c", "d"], "the whole id"),
        (["/x/a.png", "/x/b.png", "/x/c.png", "/x/d.png"], ["a.png", "b.png", "c.png", "d.png"], "file name"),
        (["r\\a.png", "r\\b.png", "c.png", "d.png"], ["a", "b", "c", "d"], "file name without suffix"),
        (
            ["1.2.840.1", "1.2.840.2", "3", "4"],
            ["x/1.2.840.1.dcm", "1.2.840.2.dcm", "3", "4"],
            "file name without suffix",
        ),
        (
            ["R/p1/1.png", "R/p2/1.png", "R/p3/1.png", "R/p4/1.png"],
            ["S/p1/1.png", "S/p2/1.png", "S/p3/1.png", "S/p4/1.png"],
            "the last 2 parts of the path",
        ),
    ],
)
def test_images_are_found_by_the_most_specific_rule(mine, theirs, rule):
    mixed = scores(image_id=mine).sample(frac=1, random_state=2)
    mixed.to_csv("s.csv", index=False)
    labels(image_id=theirs).to_csv("l.csv", index=False)
    matched = match(read_scores("s.csv"), read_labels("l.csv"))
    assert matched.facts["ids_matched_by"] == rule
    assert matched.predictions.image_ids == tuple(theirs)
    np.testing.assert_array_equal(matched.predictions.probabilities[:, 0], [0.9, 0.2, 0.6, 0.1])
    np.testing.assert_array_equal(matched.predictions.labels[:, 0], [1, 0, 1, 0])


def test_a_name_that_stands_for_two_images_is_refused():
    with pytest.raises(ValueError, match=r"x/1.png and y/1.png of .*labels.csv are both '1.png' by file name"):
        read(
            scores(image_id=["1.png", "2.png", "3.png", "4.png"]),
            labels(image_id=["x/1.png", "y/1.png", "2.png", "3.png"]),
        )


def test_ids_that_do_not_match_are_counted_on_both_sides():
    shifted = labels(image_id=["b", "c", "d", "E"])
    with pytest.raises(
        ValueError,
        match=r"1 of 4 images of scores.csv are not in labels.csv, such as a; 1 of 4 images of "
        r"labels.csv have no score, such as E.*the 3 images that both have with --shared",
    ):
        read(scores(), shifted)
    assert read(scores(), shifted, shared=True).image_ids == ("b", "c", "d")
    with pytest.raises(ValueError, match=r"no image of the scores in .* \(4 ids, such as a\) is in the labels in"):
        read(scores(), labels(image_id=["w", "x", "y", "z"]), shared=True)
    with pytest.raises(
        ValueError, match="differ only in leading zeros, capital letters or the like, such as 1 and 01"
    ):
        read(scores(image_id=["1", "2", "3", "4"]), labels(image_id=["01", "02", "03", "04"]))


def test_findings_are_matched_by_alias_and_synonym_and_the_rest_is_listed():
    columns = {"pleural effusion": [0.1, 0.2, 0.3, 0.4], "Infiltrates": [0.4] * 4, "No Finding": [0.5] * 4}
    table = labels(Effusion=[0, 1, 1, 0], Infiltration=[1, 0, 1, 1], no_finding=[0, 0, 0, 1])
    found = read(scores(**columns), table)
    assert found.label_names == ("Mass", "Effusion", "Infiltration")
    np.testing.assert_array_equal(found.probabilities[:, 1], [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match=r"scores.csv has no score of Hernia, which labels.csv has labels of"):
        read(scores(**columns), table.assign(Hernia=[0, 0, 0, 1]))
    matched = match(read_scores("scores.csv"), read_labels("labels.csv"), shared=True)
    assert matched.predictions.label_names == ("Mass", "Effusion", "Infiltration")
    assert matched.facts["findings_not_in_model"] == ["Hernia"]
    read(scores(Extra=[0.1] * 4), labels())
    matched = match(read_scores("scores.csv"), read_labels("labels.csv"))
    assert (matched.facts["shared_findings"], matched.facts["model_findings"]) == (1, 2)
    assert matched.facts["findings_not_in_data"] == ["Extra"]
    with pytest.raises(ValueError, match="no finding is shared"):
        read(scores(), labels().rename(columns={"Mass": "Hernia"}))


def test_columns_of_text_and_of_lists_are_no_findings(tmp_path):
    labels().to_csv("labels.csv", index=False)
    wide = scores(split=["test"] * 4, embedding=[[0.1, 0.2]] * 4)
    wide.to_parquet("scores.parquet")
    matched = match(read_scores("scores.parquet"), read_labels("labels.csv"))
    assert "model_findings" not in matched.facts
    np.testing.assert_array_equal(matched.predictions.probabilities[:, 0], [0.9, 0.2, 0.6, 0.1])


# Labels


def test_the_nih_table_is_read_as_it_is():
    pd.DataFrame(
        {
            "Image Index": ["00000001_000.png", "00000001_001.png", "00000002_000.png"],
            "Finding Labels": ["Cardiomegaly|Effusion", "No Finding", ""],
            "Follow-up #": [0, 1, 0],
            "Patient ID": [1, 1, 2],
            "Patient Age": ["058Y", "58", ""],
            "Patient Gender": ["M", "M", "F"],
            "View Position": ["PA", "AP", ""],
            "Scanner": ["x", "y", ""],
        }
    ).to_csv("Data_Entry_2017.csv", index=False)
    table = read_labels("Data_Entry_2017.csv")
    assert table.label_names == NIH14
    assert table.patient_ids == ("1", "1", "2")
    assert np.nansum(table.labels, axis=1).tolist() == [2, 0, 0]
    assert np.isnan(table.labels).sum(axis=1).tolist() == [0, 0, 14]  # an empty cell says nothing
    assert (table.view, table.sex) == (("PA", "AP", None), ("M", "M", "F"))
    assert table.age[:2].tolist() == [58, 58]
    assert table.extra == {"follow_up": (0.0, 1.0, 0.0), "Scanner": ("x", "y", None)}


def test_uncertain_and_empty_cells_are_unknown_and_other_columns_are_kept():
    table = labels(
        Mass=["1", "-1", "", "0.0"], Sex=["male", "F", "f", ""], ward=["A", "B", "", "C"], dose=[1.5, 2, None, 3]
    )
    found = read(scores(), table)
    np.testing.assert_array_equal(found.labels[:, 0], [1, NAN, NAN, 0])
    assert found.sex == ("M", "F", "F", None)
    assert found.extra == {"ward": ("A", "B", None, "C"), "dose": (1.5, 2.0, None, 3.0)}
    assert Predictions.load(found.save("p.parquet")).extra == found.extra


def test_a_table_with_two_synonyms_keeps_them_apart():
    table = labels(**{"Effusion": [1, 0, 0, 0], "pleural_effusion": [0, 1, 0, 0]})
    table.to_csv("labels.csv", index=False)
    found = read_labels("labels.csv")
    assert [found.label_names.index(name) for name in found.label_names] == [0, 1, 2]
    with pytest.raises(ValueError, match="matches several findings of the labels"):
        read(scores(**{"Pleural Effusion": [0.1] * 4}), table, shared=True)


def test_labels_may_be_in_the_file_of_the_scores():
    own = scores(patient_id=[1, 1, 2, 3], **{"label/Mass": [1, 0, "", 1], "meta/ward": list("abcd")})
    own = own.rename(columns={"Mass": "probability/Mass"})
    own.to_csv("both.csv", index=False)
    found = read_predictions("both.csv")
    np.testing.assert_array_equal(found.labels[:, 0], [1, 0, NAN, 1])
    assert found.extra == {"ward": ("a", "b", "c", "d")}
    scores().to_csv("alone.csv", index=False)
    with pytest.raises(ValueError, match="has scores and no labels"):
        read_predictions("alone.csv")


# What is refused


@pytest.mark.parametrize(
    ("mine", "theirs", "message"),
    [
        ({"Mass": [0.1, NAN, 0.3, 0.4]}, {}, r"row 2, image b, column 'Mass' is empty or NaN; every score"),
        ({"Mass": [0.1, 0.2, np.inf, -np.inf]}, {}, r"row 3, image c, column 'Mass' is inf \(and 1 more\)"),
        (
            {"Mass": ["0.1", "high", "0.3", "0.4"]},
            {},
            r"row 2, image b, column 'Mass' is 'high', which is not a number",
        ),
        ({"image_id": ["a", "a", "c", "d"]}, {}, "1 rows repeat an image id, such as a"),
        ({"image_id": ["a", "", "c", "d"]}, {}, "1 rows have no image_id, the first is row 2"),
        ({}, {"image_id": ["a", "b", "b", "d"]}, "1 rows repeat an image id, such as b"),
        ({}, {"patient_id": [1, "", 2, 3]}, "1 images have no patient_id, the first is b"),
        ({}, {"Mass": [1, 2, 0, 1]}, r"row 2, image b, column 'Mass' is '2'; write 1 for present"),
        ({"mass": [0.1] * 4}, {}, "the columns 'Mass' and 'mass' are both Mass"),
        ({}, {"mass": [1, 0, 1, 0]}, "the columns 'Mass' and 'mass' are the same finding"),
        ({}, {"Mass": [1, 0, 1, 0], "Finding Labels": ["Mass|No Finding", "", "", ""]}, "keep one of the two"),
    ],
)
def test_wrong_cells_are_named(mine, theirs, message):
    with pytest.raises(ValueError, match=message):
        read(scores(**mine), labels(**theirs))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"PK\3\4", "neither a Parquet file nor named .csv"),
        ("a.csv", bytes(range(256)), "cannot be read as CSV"),
        ("a.csv", b"", "cannot be read as CSV"),
        ("a.csv", b"image,Mass\n", "has no rows below its header"),
        ("a.csv", b"image;Mass\na;0,5\n", "one column, 'image;Mass'"),
        ("a.csv", b"image,Mass,Mass\na,0.5,0.5\n", "has the column 'Mass' twice"),
        ("a.csv", b"image,Mass\na,0.5\nb,0.5,0.7\n", "cannot be read as CSV"),
        ("a.csv", b"Mass,Edema\n0.5,0.5\n", "no column of image ids"),
        ("a.csv", b"image,patient\na,1\n", "no column of scores"),
        ("a.parquet", b"PAR1xxxx", "not a readable Parquet file"),
    ],
)
def test_files_that_are_no_tables_of_scores_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_scores(name)


def test_labels_without_patients_or_findings_are_refused():
    for column, message in (("patient_id", "no column of patients"), ("Mass", "no column of labels")):
        labels().drop(columns=column).to_csv("l.csv", index=False)
        with pytest.raises(ValueError, match=message):
            read_labels("l.csv")
    with pytest.raises(FileNotFoundError, match="no file gone"):
        read_labels("gone.csv")
