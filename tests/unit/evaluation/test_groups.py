"""Groups of images: every image is in one group of each attribute, and what is unknown is a group of its own."""

import numpy as np
import pytest

from hf_cxr.evaluation.groups import (
    MOST_GROUPS,
    NUMBER_OF_FINDINGS,
    age_bands,
    follow_up_numbers,
    image_attributes,
)

LABELS = [[0, 0], [1, 0], [1, 1], [np.nan, 0], [np.nan, 1]]


def test_every_image_is_in_exactly_one_group_of_each_attribute():
    attributes, left_out = image_attributes(
        LABELS,
        sex=["F", "M", None, "F", ""],
        age=[3, 18, 85, np.nan, 39.9],
        view=["AP", "PA", "PA", "AP", "AP"],
        follow_up=[0, 1, 0, None, 7],
        columns={"scanner": ["b", "a", np.nan, None, "b"], "age": [1.0, 2.5, 1, 1, 1]},
        crossings=[("sex", "view")],
    )
    assert left_out == {}
    assert attributes["sex"].groups == ("F", "M", "unknown")
    assert attributes["age"].group_N == ("0-17", "18-39", "80+", "unknown", "18-39")
    assert attributes["study"].group_N == ("first study", "follow-up", "first study", "unknown", "follow-up")
    assert attributes["scanner"].group_N == ("b", "a", "unknown", "unknown", "b")
    assert attributes["age (column)"].group_N == ("1", "2.5", "1", "1", "1")
    assert attributes["sex and view"].group_N == ("F, AP", "M, PA", "unknown", "F, AP", "unknown")
    for attribute in attributes.values():
        assert np.sum([attribute.rows(group) for group in attribute.groups], axis=0).tolist() == [1] * 5


def test_the_number_of_findings_is_known_only_if_the_labels_say_it():
    attributes, _ = image_attributes([*LABELS, [1, np.nan], [np.nan, np.nan]])
    attribute = attributes[NUMBER_OF_FINDINGS]
    assert attribute.group_N == ("none", "one", "several", "unknown", "unknown", "unknown", "unknown")
    assert attribute.from_labels
    three = image_attributes([[1, 1, np.nan], [0, 0, 0]])[0][NUMBER_OF_FINDINGS]
    assert three.group_N == ("several", "none")


def test_age_bands_begin_where_they_are_told_and_leave_no_year_out():
    bands = age_bands([0, 49, 50, 120], [50])
    assert bands.groups == ("below 50", "50+")
    assert bands.group_N == ("below 50", "below 50", "50+", "50+")
    assert set(age_bands(np.linspace(0, 120, 500)).group_N) == {"0-17", "18-39", "40-59", "60-79", "80+"}
    for starts in ([], [20, 20], [40, 18], [-1, 5]):
        with pytest.raises(ValueError, match="ascending years"):
            age_bands([1], starts)
    with pytest.raises(ValueError, match="row 1 is -3"):
        age_bands([1, -3])


def test_what_does_not_divide_the_images_is_named():
    many = [f"2020-01-{day:02}" for day in range(1, MOST_GROUPS + 2)]
    label_NC = np.tile([[0.0, 1.0]], (len(many), 1))
    attributes, left_out = image_attributes(
        label_NC, sex=[None] * len(many), columns={"date": many}, crossings=[("view", "number of findings")]
    )
    assert list(attributes) == [NUMBER_OF_FINDINGS]
    assert left_out["sex"] == "unknown for every image"
    assert "21 different values" in left_out["date"]
    assert left_out["view and number of findings"] == "view is unknown for every image"


def test_bad_columns_are_refused_by_name():
    with pytest.raises(ValueError, match="sex has 2 values for 5 images"):
        image_attributes(LABELS, sex=["F", "M"])
    with pytest.raises(ValueError, match="cannot cross sex and scaner"):
        image_attributes(LABELS, sex=list("FMFMF"), crossings=[("sex", "scaner")])


def test_follow_up_numbers_are_read_from_all_ids_or_from_none():
    assert follow_up_numbers(["00000013_000.png", "synthetic_00002_011.png", "00000013_004"]) == (0, 11, 4)
    assert follow_up_numbers(["00000013_000.png", "scan.png"]) is None
    assert follow_up_numbers([]) is None
