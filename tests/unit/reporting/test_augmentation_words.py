"""The report's sentence on augmentation names each lever that was on, with its values, and no other."""

import pytest

from hf_cxr.augmentation import Augmentation
from hf_cxr.reporting.augmentation import augmentation_words

LEVERS = {
    "horizontal_flip": (0.5, "left-right flip (probability 0.5)"),
    "rotation_degrees": (7.5, "rotation up to 7.5 degrees"),
    "random_resized_crop": ([0.6, 1.0], "random resized crop (0.6 to 1 of the area, width / height 0.75 to 1.33)"),
    "brightness": (0.2, "brightness x 0.8 to 1.2"),
    "contrast": (0.3, "contrast x 0.7 to 1.3"),
    "erasing": (0.25, "random erasing with the mean grey (probability 0.25, 0.02 to 0.33 of the area)"),
}


@pytest.mark.parametrize("key", LEVERS)
def test_one_lever_is_one_part_of_the_sentence(key):
    value, words = LEVERS[key]
    assert augmentation_words(Augmentation(**{key: value}).to_dict()) == words


def test_all_levers_and_none():
    everything = augmentation_words(Augmentation(**{key: value for key, (value, _) in LEVERS.items()}).to_dict())
    assert all(words in everything for _, words in LEVERS.values())
    assert augmentation_words(Augmentation().to_dict()) == "none"
