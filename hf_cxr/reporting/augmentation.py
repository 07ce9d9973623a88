"""How training images were varied, in words."""

from collections.abc import Mapping
from typing import Any


def augmentation_words(values: Mapping[str, Any]) -> str:
    """What was drawn for a training image, in the order in which it was done; "none" if nothing was.

    Args:
        values: of `hf_cxr.augmentation.Augmentation.to_dict`.

    >>> augmentation_words({"horizontal_flip": 0.5, "rotation_degrees": 10.0})
    'rotation up to 10 degrees, left-right flip (probability 0.5)'
    """
    value = values.get
    words = {
        "rotation_degrees": lambda: f"rotation up to {value('rotation_degrees'):g} degrees",
        "random_resized_crop": lambda: (
            f"random resized crop ({_range(value('random_resized_crop'))} of the area, width / height "
            f"{_range(value('crop_aspect'))})"
        ),
        "horizontal_flip": lambda: f"left-right flip (probability {value('horizontal_flip'):g})",
        "brightness": lambda: f"brightness x {_around_one(value('brightness'))}",
        "contrast": lambda: f"contrast x {_around_one(value('contrast'))}",
        "erasing": lambda: (
            f"random erasing with the mean grey (probability {value('erasing'):g}, "
            f"{_range(value('erasing_area'))} of the area)"
        ),
    }
    return ", ".join(text() for key, text in words.items() if value(key)) or "none"


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def _around_one(most: float) -> str:
    return _range((1 - most, 1 + most))
