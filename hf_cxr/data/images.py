"""One file, one 8-bit grey image: what a pixel means, whatever the container.

| stored as                    | read as                                                                        |
|------------------------------|--------------------------------------------------------------------------------|
| 8-bit grey                   | as it is                                                                       |
| RGB, palette, CMYK, ...      | converted to RGB, then luma (ITU-R 601-2); equal channels give that very value |
| with alpha                   | alpha is dropped, as `Image.convert("RGB")` does; in the release it is 255     |
| 1-bit                        | 0 and 255                                                                      |
| 16-bit grey (also 32-bit)    | linear from 0 to the full scale of 8, 10, 12, 14 or 16 bits                    |
| turned by an EXIF flag       | upright                                                                        |
| several frames               | the first one                                                                  |

The first four rows are what the stock image pipeline sees, channel by channel, wherever the colours are grey. It
clips 16-bit pixels at 255, to nearly all white; here they are scaled. A 16-bit container seldom says how many bits
are in use, so the fewest of 8, 10, 12, 14 and 16 that hold the image's own maximum are taken: twelve-bit data do
not come out sixteen times too dark, and two images differ in scale only by these steps, never by a stretch from
minimum to maximum. An image that leaves its own top bits unused is read up to four times brighter.

Refuses, as `ImageError` with the file's name and the reason: files that are missing, empty, cut short, broken or no
image; floating-point, negative or wider than 16-bit pixels; more pixels than Pillow's `Image.MAX_IMAGE_PIXELS`.

H, W = height, width.
"""

import os
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

BIT_DEPTHS = (8, 10, 12, 14, 16)
RULE = 1  # number of the table above; another number wherever the same file would give other pixels


class ImageError(ValueError):
    """An image that cannot be read: ``name`` says which, ``reason`` why."""

    # A DataLoader makes it anew from one string, the message, when it comes out of a worker process.
    def __init__(self, name: str, reason: str = ""):
        super().__init__(name, reason)  # both, so that it survives pickling between processes
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {self.name}: {self.reason}" if self.reason else self.name


def read_grey(source: str | os.PathLike | bytes | Image.Image, *, name: str | None = None) -> np.ndarray:
    """Decode an image to 8-bit grey by the rules at the top of this module.

    Args:
        source: a path, the bytes of a file, or an opened image, which is not changed.
        name: what to call it in an error; by default the path, or the file name that the image knows.

    Returns:
        (H, W) uint8, 0 black as stored: nothing is inverted.

    Raises:
        ImageError: see above.
    """
    name = name or _name(source)
    try:
        image = source if isinstance(source, Image.Image) else _open(source, name)
        _check_size(image, name)
        image.load()
        image = ImageOps.exif_transpose(image)
        # Not convert("L") at once: for a palette or CMYK that is another rounding than by way of RGB.
        return _scale(image, name) if image.mode.startswith(("I", "F")) else _luma(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on broken files; all of it means this
        raise ImageError(name, f"{type(error).__name__}: {error}") from error


def check_image(source: str | os.PathLike | bytes) -> ImageError | None:
    """What is wrong with an image file as far as its header, its size and, for PNG, its checksums tell; None if sound.

    It does not decode the pixels, which takes some 40 times as long.
    """
    name = _name(source)
    try:
        _open(source, name)
    except ImageError as error:
        return error
    except Exception as error:  # as in read_grey
        return ImageError(name, f"{type(error).__name__}: {error}")
    return None


def resize_grey(image_HW: np.ndarray, size: int, resample: int) -> np.ndarray:
    """Resize to a square exactly as transformers' PIL image processors do: one `PIL.Image.resize`, no reducing gap.

    The result is every channel of the resized RGB image, to the bit.

    Args:
        image_HW: (H, W) uint8.
        size: the new height and width in pixels.
        resample: a `PIL.Image.Resampling` number, as in the image processor's ``resample``.

    Returns:
        (size, size) uint8.

    Raises:
        ValueError: not a 2-d uint8 array.
    """
    if image_HW.ndim != 2 or image_HW.dtype != np.uint8:
        raise ValueError(f"resize_grey takes (H, W) uint8; got {image_HW.shape} {image_HW.dtype}")
    return np.array(Image.fromarray(image_HW).resize((size, size), resample=resample))


def _name(source: str | os.PathLike | bytes | Image.Image) -> str:
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "an image in memory")
    return f"{len(source)} bytes in memory" if isinstance(source, bytes) else os.fspath(source)


def _open(source: str | os.PathLike | bytes, name: str) -> Image.Image:
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    if not content:
        raise ImageError(name, "the file is empty")
    try:
        image = Image.open(BytesIO(content))
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, "not an image in a format that Pillow knows, or cut off in its header") from error
    _check_size(image, name)
    if image.format == "PNG":
        # Reading skips the checksums of the pixel data and returns flipped bits as pixels; verify() does not. It
        # uses up the image.
        image.verify()
        image = Image.open(BytesIO(content))
    return image


def _check_size(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ImageError(
            name,
            f"{image.width} x {image.height} pixels are more than {limit}; "
            "if the file is sound, raise PIL.Image.MAX_IMAGE_PIXELS",
        )


def _luma(image: Image.Image) -> np.ndarray:
    return np.array(image if image.mode == "L" else image.convert("RGB").convert("L"))


def _scale(image: Image.Image, name: str) -> np.ndarray:
    """16- or 32-bit integer grey to 8 bits, linearly, rounded to nearest."""
    if image.mode == "F":
        raise ImageError(name, "floating-point pixels have no stated range; store it as 8- or 16-bit grey")
    value_HW = np.asarray(image).astype(np.int64)
    lowest, highest = int(value_HW.min()), int(value_HW.max())
    if lowest < 0 or highest >= 1 << BIT_DEPTHS[-1]:
        raise ImageError(name, f"pixels from {lowest} to {highest}; expected 0 to 65535: store it as 16-bit grey")
    full_scale = next((1 << bits) - 1 for bits in BIT_DEPTHS if highest < 1 << bits)
    return ((2 * 255 * value_HW + full_scale) // (2 * full_scale)).astype(np.uint8)
