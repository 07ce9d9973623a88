"""A plain vision transformer's image: whole patches."""

from collections.abc import Mapping
from typing import Any


def check_patches(values: Mapping[str, Any], where: str) -> None:
    """Refuse an image that is not a whole number of patches: transformers would ignore its edge and not report it.

    Raises:
        ValueError: image_size is not a multiple of patch_size.
    """
    image, patch = values["image_size"], values["patch_size"]
    if image % patch:
        raise ValueError(
            f"image_size {image} of {where} is not a multiple of its patch_size {patch}: the image's edge would be "
            f"lost; set image_size to {image // patch * patch or patch} or {(image // patch + 1) * patch}"
        )
