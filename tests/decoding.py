"""Decoding in tests: what is wrong with one image, or with those of splits."""

from hf_cxr.data.images.checks import inspect_images, refusal
from hf_cxr.data.images.grey import ImageError, read_grey


def check_image(source) -> ImageError | None:
    """The error of an image (a path or bytes) that cannot be read; None if it can."""
    try:
        read_grey(source)
    except ImageError as error:
        return error
    return None


def check_images(splits) -> None:
    """Decode every image as a run does before its first step; ValueError if some cannot be read."""
    found = inspect_images(splits)
    found.warn()
    if found.count:
        raise ValueError(refusal(found))
