"""Predictions of images become predictions of studies; and a page about studies never calls one an image."""

import datasets
import numpy as np
import pytest

from hf_cxr.predictions import Predictions
from hf_cxr.reporting.document import Details, Facts, Figure, Heading, Note, Table, Text
from hf_cxr.reporting.units import in_unit, words_in_unit
from hf_cxr.run.evaluating.studies import (
    cautions,
    check_studies,
    names_studies,
    of_studies,
    saved_studies,
    study_ids_of,
)


def predictions(**change):
    values = {
        "logits": np.array([[0.0, 2.0], [1.0, -1.0], [0.5, 0.5], [-2.0, 3.0]], dtype=np.float32),
        "labels": [[1, 0], [0, np.nan], [0, 1], [np.nan, 0]],
        "image_ids": ["a1", "a2", "b1", "c1"],
        "patient_ids": ["p", "p", "p", "q"],
        "study_ids": ["a", "a", "b", None],
        "label_names": ["Mass", "Nodule"],
        "view": ["PA", "LATERAL", "PA", None],
        "age": [50, 50, 51, np.nan],
        "sex": ["F", "F", "F", "M"],
        "extra": {"scanner": ["x", "y", "x", "x"]},
        "metadata": {"calibrated": True},
        "split": "test",
    }
    return Predictions(**values | change)


def test_a_study_has_the_mean_score_any_positive_and_what_its_images_agree_on():
    images = predictions()
    studies, facts = of_studies(images)
    assert studies.image_ids == ("a", "b", "c1")
    assert studies.patient_ids == ("p", "p", "q")
    np.testing.assert_array_equal(studies.probabilities[0], images.probabilities[:2].mean(axis=0))
    np.testing.assert_array_equal(studies.probabilities[1:], images.probabilities[2:])
    np.testing.assert_array_equal(studies.labels, np.array([[1, 0], [0, 1], [np.nan, 0]], dtype=np.float32))
    assert (studies.sex, studies.view) == (("F", "F", "M"), None)
    np.testing.assert_array_equal(studies.age, np.array([50, 51, np.nan], dtype=np.float32))
    assert studies.extra == {"scanner": (None, "x", "x"), "views": ("LATERAL + PA", "PA", "unknown")}
    assert facts["studies with images of labels 1 and 0, counted positive"] == {"Mass": 1}
    assert facts["studies by number of images"] == ["2 of 1", "1 of 2"]
    assert facts["images without a study, each counted as one"] == 1
    largest, _ = of_studies(images, "max")
    np.testing.assert_array_equal(largest.probabilities[0], images.probabilities[:2].max(axis=0))
    with pytest.raises(ValueError, match="of studies already"):
        of_studies(studies)


def test_single_images_keep_their_logits_to_the_bit():
    images = predictions(study_ids=["a", "b", "c", "d"])
    studies, _ = of_studies(images)
    assert np.array_equal(studies.logits, images.logits)
    assert np.array_equal(studies.probabilities, images.probabilities)
    assert studies.view == images.view
    exact = Predictions.of_probabilities(
        images.probabilities,
        **{name: getattr(images, name) for name in ("labels", "image_ids", "patient_ids", "study_ids", "label_names")},
    )
    assert np.array_equal(of_studies(exact)[0].probabilities, images.probabilities)


def test_ids_like_those_of_chestxray14_name_the_study():
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png"]
    assert study_ids_of(None, names) == [name[:12] for name in names]
    assert names_studies(predictions(study_ids=None, image_ids=names))
    for unknown in (None, [None] * 4):
        assert not names_studies(predictions(study_ids=unknown))
        with pytest.raises(ValueError, match=r"needs the study of each image.*study_column"):
            study_ids_of(unknown, ["a", "b", "c", "d"])


def test_images_that_are_no_studies_are_refused_before_they_are_predicted():
    columns = {"image_id": ["a1", "a2", "b1"], "patient_id": ["p", "p", "q"], "study_id": ["a", "a", "b"]}
    check_studies(datasets.Dataset.from_dict(columns))
    with pytest.raises(ValueError, match="--by study needs the study of each image"):
        check_studies(datasets.Dataset.from_dict(columns).remove_columns("study_id"))
    with pytest.raises(ValueError, match="study a is of two patients"):
        check_studies(datasets.Dataset.from_dict(columns | {"study_id": ["a", "a", "a"]}))
    with pytest.raises(ValueError, match="phantoms belong to no studies"):
        check_studies(datasets.Dataset.from_dict(columns).remove_columns("study_id"), synthetic=True)


def test_studies_of_one_image_need_no_caution_about_calibration():
    alone, pairs = (of_studies(predictions(study_ids=ids))[1] for ids in (["a", "b", "c", "d"], ["a", "a", "b", "c"]))
    for facts, words in ((alone, 1), (pairs, 2)):
        assert len(cautions(facts, calibrated=True, thresholds=True)) == words
    assert "changes no score" in cautions(alone, calibrated=True, thresholds=True)[0]


def test_a_column_of_the_user_is_not_overwritten():
    images = predictions(extra={"views": ["x", "x", "y", "z"]})
    studies, _ = of_studies(images)
    assert studies.extra == {"views": ("x", "y", "z"), "study views": ("LATERAL + PA", "PA", "unknown")}


def test_a_saved_file_of_studies_says_how_they_are_scored(tmp_path):
    assert saved_studies(predictions()) is None
    studies, facts = of_studies(predictions(), "max")
    rule, words = saved_studies(Predictions.load(studies.save(tmp_path / "p.parquet")))
    assert rule == "max"
    assert words.items() <= facts.items()
    with pytest.raises(ValueError, match="study_score in their file is None"):
        saved_studies(predictions(metadata={"unit": "study"}))


def test_predictions_keep_studies_in_their_file(tmp_path):
    images = predictions()
    assert Predictions.load(images.save(tmp_path / "p.parquet")).study_ids == images.study_ids
    bare = predictions(study_ids=None)
    assert Predictions.load(bare.save(tmp_path / "q.parquet")).study_ids is None


def test_a_page_in_the_unit_of_studies():
    assert words_in_unit("An image, 2 images; Images of an image's set: image_id", "study") == (
        "A study, 2 studies; Studies of a study's set: image_id"
    )
    blocks = (
        Heading("Subsets of the images"),
        Text("40 test images"),
        Note(("An image is called",)),
        Table.of(("subset", "images"), [["a", "2"]], "per image"),
        Figure("x.png", "an image", "of all images"),
        Details("images", (Text("image"),)),
    )
    assert "image" not in repr(in_unit(blocks, "study")).lower().replace("'images'", "")
    assert "image" not in "".join(in_unit(blocks, "study")[3].frame.columns)
    assert in_unit(blocks, "image") == blocks
    facts = (Facts((("images averaged", "4"),)),)
    assert in_unit(facts, "study") == facts


def test_cautions_name_the_unit_and_what_is_lacking():
    _, facts = of_studies(predictions())
    sentences = cautions(facts, calibrated=True, thresholds=False)
    assert len(sentences) == 3
    assert len(cautions(facts, calibrated=False, thresholds=True)) == 1
