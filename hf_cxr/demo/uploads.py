"""What a browser sends as an image: limited, decoded in memory, and never a file.

Refuses, as `UploadError` with one line for the reader: what is larger than the limits, is not base64, or is not an
image that `inference.sources` reads. The size in pixels is taken from the header, before any pixel is decoded.

H, W = height, width.
"""

import base64
import binascii
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_cxr.data.images import dicom
from hf_cxr.data.images.grey import FORMATS, ImageError, TooManyPixelsError
from hf_cxr.demo.limits import Limits
from hf_cxr.inference.sources import read_image
from hf_cxr.words import error_words, one_line

LONGEST_NAME = 80
PIXELS_REPAIR = "if the file is sound, whoever runs this page can allow more with --max_megapixels"
COLOURS = "The image has colours, and was turned to grey. A radiograph has none."


class UploadError(ValueError):
    """An image that the page does not take; the message is for its reader."""


@dataclass(frozen=True)
class GreyImage:
    """An image that was read.

    Attributes:
        name: the last part of its file name.
        grey_HW: (H, W) uint8, 0 black.
        remarks: what a reader should know of it.
        doubts: why the grey may not be what was meant: `ImageResult.remarks` of the file.
    """

    name: str
    grey_HW: NDArray[np.uint8]
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def allow_pixels(limits: Limits) -> None:
    """Let Pillow open images up to the page's limit in this process, and no larger ones.

    Its own limit is another. Of what is refused it would print a warning, too.
    """
    Image.MAX_IMAGE_PIXELS = limits.pixels
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def decode(content: object, name: str, limits: Limits) -> bytes:
    """The bytes of a file that a browser sent as base64.

    Raises:
        UploadError: there are none, too many, or they are not base64.
    """
    if not isinstance(content, str) or not content:
        raise UploadError(f"{name} is empty; give an image or a DICOM file")
    if len(content) > limits.bytes * 4 // 3 + 4:
        raise too_large(name, limits)
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UploadError(f"{name} did not arrive completely; give it again") from error


def too_large(name: str, limits: Limits) -> UploadError:
    """The error of a file with too many bytes."""
    return UploadError(
        f"{name} is larger than {limits.megabytes:g} MB, the most that this page takes; whoever runs it can allow "
        "more with --max_megabytes"
    )


def too_many_pixels(what: str, limits: Limits) -> UploadError:
    """The error of an image with too many pixels; ``what`` says which, and how many."""
    return UploadError(f"{what} pixels; this page takes at most {limits.megapixels:g} million; {PIXELS_REPAIR}")


def read_upload(content: bytes, name: str, limits: Limits) -> GreyImage:
    """Decode a file to 8-bit grey as `hf-cxr predict` does.

    Args:
        content: of the file.
        name: from `file_name`; its suffix may say that the bytes are DICOM.
        limits: of bytes and pixels.

    Raises:
        UploadError: it is too large or cannot be read.
    """
    if len(content) > limits.bytes:
        raise too_large(name, limits)
    try:
        width, height = _size(content, name, limits)
        if width * height > limits.pixels:
            raise too_many_pixels(f"{name} has {width} x {height}", limits)
        doubts: list[str] = []
        grey_HW = read_image(content, name, doubts)
    except ImageError as error:
        many = isinstance(error, TooManyPixelsError)
        reason = error.reason_with(PIXELS_REPAIR) if many else error.reason
        raise UploadError(f"Cannot read {error.name}: {reason}") from error
    except MemoryError as error:
        raise UploadError(f"{name} is too large for the memory of this machine") from error
    return GreyImage(name, grey_HW, (COLOURS,) if _has_colours(content) else (), tuple(doubts))


def file_name(name: object) -> str:
    """The last part of a file's name as a browser gives it, on one line and not too long.

    >>> file_name("C:\\\\scans\\\\chest.dcm"), file_name(None)
    ('chest.dcm', 'the image')
    """
    if not isinstance(name, str):
        return "the image"
    last = one_line(PurePosixPath(name.replace("\\", "/")).name)
    if len(last) > LONGEST_NAME:  # the end has the suffix
        last = f"{last[: LONGEST_NAME - 11]}…{last[-10:]}"
    return last or "the image"


def _size(content: bytes, name: str, limits: Limits) -> tuple[int, int]:
    """Width and height from the header; (0, 0) where it has none, so that reading the file says what is wrong."""
    try:
        if dicom.is_dicom(content[:132], PurePosixPath(name).suffix):
            return dicom.size(BytesIO(content), limits.pixels)
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise too_many_pixels(f"{name} has too many", limits) from error
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly everything on broken files
        if not content:
            raise UploadError(f"{name} is empty") from error
        if dicom.is_dicom(content[:132], PurePosixPath(name).suffix):
            raise UploadError(f"{name} cannot be read as DICOM: {error_words(error)}") from error
        return 0, 0


def _has_colours(content: bytes) -> bool:
    """Whether an image that Pillow reads has pixels that are not grey; looked for in a small copy."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if image.mode in ("1", "L", "LA") or image.mode.startswith(("I", "F")):
                return False
            small = np.asarray(image.convert("RGB").resize((64, 64)), dtype=np.int16)
    except OSError:  # DICOM
        return False
    return bool((small.max(axis=2) - small.min(axis=2)).max() > 24)
