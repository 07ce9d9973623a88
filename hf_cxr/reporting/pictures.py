"""A radiograph as a small picture inside a page: made smaller, and encoded as text.

H, W = height and width.
"""

import base64
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def shrunk(grey_HW: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The same image with at most so many pixels along its longer side, and at least one along the other."""
    height, width = grey_HW.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return grey_HW
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(grey_HW).resize(size, Image.Resampling.BOX))


def in_base64(picture: NDArray[np.uint8], kind: str = "png", **options: Any) -> str:
    """A picture as a file in base64.

    Args:
        picture: grey (H, W) or colour (H, W, 3).
        kind: of the file, "png" or "jpeg".
        options: of Pillow's ``save``.
    """
    file = BytesIO()
    Image.fromarray(picture).save(file, format=kind, **options)
    return base64.b64encode(file.getvalue()).decode("ascii")
