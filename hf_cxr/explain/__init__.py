"""Where a model looks: heat maps of findings, and the way from a map back to the original pixels.

- `maps`: Grad-CAM and Grad-CAM++ of any backbone, by way of `models.map_layer`; the table `METHODS`.
- `occlusion`: a method of captum, an optional extra, that needs no gradient.
- `geometry`: a map on the model's grid to the pixels of the file: resize and crop inverted.
- `controls`: maps that have not seen the image, and the same method on a model of random weights.

A map is one method's estimate of what raised the score; another method may mark other pixels. It does not say that the
finding is there, nor that the score is right.
How good maps are is measured in `evaluation.localization`; pictures of them are in `reporting.overlay`.
"""

METHOD_NAMES = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "occlusion")
"""The keys of `maps.METHODS`, for a command line that does not import torch; a test compares them."""


def check_method_name(name: str) -> None:
    """Refuse a method that does not exist.

    Raises:
        ValueError: with the methods to choose from.
    """
    if name not in METHOD_NAMES:
        raise ValueError(f"no method {name!r}; choose from {', '.join(METHOD_NAMES)}")
