"""Pictures of an image for the page, in memory: their sizes, their addresses and the colours of heat maps.

H, W = height and width, as drawn.
"""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from hf_cxr.reporting.pictures import in_base64

LONGEST = 768
"""Pixels along the longer side of a picture on the page."""
SIDE_OF_EXAMPLE = 128


def address_of(picture: NDArray[np.uint8]) -> str:
    """A picture as a data: address; grey (H, W) without loss, colour (H, W, 3) as JPEG."""
    kind, options = ("png", {"compress_level": 3}) if picture.ndim == 2 else ("jpeg", {"quality": 90})
    return f"data:image/{kind};base64,{in_base64(picture, kind, **options)}"


def scale_colours(name: str = "inferno", steps: int = 9) -> str:
    """A colour map as CSS colours with commas between them, lowest first."""
    return ", ".join(
        f"rgb({r} {g} {b})" for r, g, b in np.round(255 * colormaps[name](np.linspace(0, 1, steps))[:, :3]).astype(int)
    )
