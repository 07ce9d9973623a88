"""Which boxes are scored: those of the model's findings, by whatever name the data give them."""

import datasets
import pytest

from hf_cxr.data import Source
from hf_cxr.data.schema import features
from hf_cxr.labels import NIH14
from hf_cxr.run.evaluating.localize import boxed_rows, matching

BOX = [0.1, 0.2, 0.3, 0.4]


def source(**findings_by_split):
    """A dataset without images: for each split, the findings of each image's boxes."""
    schema = features(NIH14, images=False)
    splits = {}
    for split, rows in findings_by_split.items():
        examples = [
            {
                "labels": [0.0] * 14,
                "image_id": f"{split}-{number}",
                "patient_id": f"{split}-{number}",
                "view": None,
                "age": 50.0,
                "sex": None,
                "boxes": [{"finding": name, "bbox": BOX} for name in names],
            }
            for number, names in enumerate(rows)
        ]
        splits[split] = datasets.Dataset.from_list(examples, features=schema)
    return Source(datasets.DatasetDict(splits), NIH14, name="four images")


def test_boxes_are_matched_by_alias():
    known = matching(("Pleural Effusion", "Mass"), source(test=[[]]))
    assert known("Effusion") == "Pleural Effusion"
    assert known("Mass") == "Mass"
    assert known("Hernia") is None


def test_rows_with_boxes_of_the_models_findings_are_kept_and_the_rest_counted():
    rows, left_out = boxed_rows(("Mass",), source(test=[["Mass", "Hernia"], [], ["Hernia"], ["Mass", "Mass"]]), "test")
    assert rows["image_id"][:] == ["test-0", "test-3"]
    assert left_out == {"Hernia": 2}


def test_a_split_without_boxes_names_the_one_that_has_some():
    with pytest.raises(ValueError, match=r"validation split .* boxes of Hernia.*: give --split test\Z"):
        boxed_rows(("Mass",), source(train=[[]], validation=[["Hernia"]], test=[["Mass"]]), "validation")
    with pytest.raises(ValueError, match=r"give other data, or image files\Z"):
        boxed_rows(("Mass",), source(train=[[]], test=[["Hernia"]]), "test")
