"""Pictures of an image for a page, in memory: the grey that the model reads, and a heat map over it.

H, W = height and width, as drawn.
"""

import base64
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

LONGEST = 768
"""Pixels along the longer side of a picture on the page."""
SIDE_OF_EXAMPLE = 128


def shrunk(grey_HW: NDArray[np.uint8], longest: int = LONGEST) -> NDArray[np.uint8]:
    """The same image with at most so many pixels along its longer side, and at least one along the other."""
    height, width = grey_HW.shape
    scale = longest / max(height, width)
    if scale >= 1:
        return grey_HW
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(grey_HW).resize(size, Image.Resampling.BOX))


def address_of(picture: NDArray[np.uint8]) -> str:
    """A picture as a data: address; grey (H, W) without loss, colour (H, W, 3) as JPEG."""
    kind, options = ("png", {"compress_level": 3}) if picture.ndim == 2 else ("jpeg", {"quality": 90})
    file = BytesIO()
    Image.fromarray(picture).save(file, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def scale_colours(name: str = "inferno", steps: int = 9) -> str:
    """A colour map as CSS colours with commas between them, lowest first."""
    return ", ".join(
        f"rgb({r} {g} {b})" for r, g, b in np.round(255 * colormaps[name](np.linspace(0, 1, steps))[:, :3]).astype(int)
    )
