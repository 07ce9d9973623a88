"""One file, one 8-bit grey image: what a pixel means, whatever the container.

| stored as                    | read as                                                                        |
|------------------------------|--------------------------------------------------------------------------------|
| 8-bit grey                   | as it is; a TIFF whose 0 is white is inverted, here and below                  |
| RGB, palette, CMYK, ...      | converted to RGB, then luma (ITU-R 601-2); equal channels give that very value |
| with alpha                   | alpha is dropped, as `Image.convert("RGB")` does; in the release it is 255     |
| 1-bit                        | 0 and 255                                                                      |
| 16-bit grey (also 32-bit)    | linear from 0 to the full scale of 8, 10, 12, 14 or 16 bits                    |
| 16-bit colour, or with alpha | the high byte of each channel, which is all that Pillow reads, then as above   |
| turned by an EXIF flag       | upright                                                                        |
| DICOM                        | as a viewer would first show it: see `dicom.py`                                |
| several frames or pages      | refused                                                                        |

The first four rows are what the stock image pipeline sees, channel by channel, wherever the colours are grey. It
clips 16-bit pixels at 255, to nearly all white; here they are scaled. A 16-bit container seldom says how many bits
are in use. Where it does (sBIT of PNG, BitsPerSample of a 12-bit TIFF), that full scale is taken if it holds the
image's own maximum, else that of the container, which PNG wants to be filled. Where it does not, the fewest of 8, 10,
12, 14 and 16 bits that hold the maximum are taken: twelve-bit data do not come out sixteen times too dark, and two
images differ in scale only by these steps, never by a stretch from minimum to maximum. An image that leaves its own
top bits unused is read up to four times brighter. The rule looks at one file, so an image is read alike in any folder.

Formats are those of `FORMATS` and DICOM, recognised by content, not by name; a file without DICOM's magic is tried as
DICOM if it is called .dcm or .dicom.

Refuses, as `ImageError` with the file's name and the reason: files that are missing, unreadable, folders, empty, cut
short, broken or not an image; several frames; floating-point, negative or wider than 16-bit pixels; DICOM that
`dicom.py` refuses. As `TooManyPixelsError`, which only says the limit, for a command knows what to do about it: more
pixels than Pillow's `Image.MAX_IMAGE_PIXELS`, and files of more than eight bytes for each of those.

H, W = height, width.
"""

import os
import stat
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from hf_cxr.data.images import dicom, png, resizing
from hf_cxr.extras import MissingExtraError
from hf_cxr.words import plural

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # not EPS, which runs Ghostscript
BIT_DEPTHS = (8, 10, 12, 14, 16)
RULE = 1  # number of the table above; another number wherever the same file would give other pixels
TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262  # tag numbers


class ImageError(ValueError):
    """An image that cannot be read: ``name`` says which, ``reason`` why."""

    def __init__(self, name: str, reason: str = ""):
        # A DataLoader builds it again from one string when it comes out of a worker process: a whole traceback, whose
        # last line is the message.
        if not reason and "\n" in name.strip():
            name = name.strip().splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: ")
        super().__init__(name, reason)  # both, so that it survives pickling between processes
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {self.name}: {self.reason}" if self.reason else self.name


class TooManyPixelsError(ImageError):
    """An image with more pixels than are decoded, which may be sound. The reason ends with what everybody can do."""

    REPAIR = "if the file is sound, save it with fewer pixels"

    def reason_with(self, repair: str) -> str:
        """The reason, with what to do where the limit can be changed."""
        return self.reason.replace(self.REPAIR, repair)

    @classmethod
    def of(cls, name: str, reason: str) -> "TooManyPixelsError":
        """The error for an image whose reason has no repair yet."""
        return cls(name, f"{reason}; {cls.REPAIR}")


def read_grey(
    source: str | os.PathLike | bytes | Image.Image, *, name: str | None = None, remarks: list[str] | None = None
) -> np.ndarray:
    """Decode an image to 8-bit grey by the rules at the top of this module.

    Args:
        source: a path, the bytes of a file, or an opened image, which is not changed.
        name: what to call it in an error; by default the path, or the file name that the image knows. Of bytes, its
            suffix may say that they are DICOM.
        remarks: a list to which sentences are added about what was read and may not be what was meant; see
            `dicom.unused_bits`.

    Returns:
        (H, W) uint8, 0 black.

    Raises:
        ImageError: see above.
    """
    name = name or _name(source)
    try:
        if isinstance(source, Image.Image):
            image = source
            _check_image(image, name)
        else:
            with _file(source, name) as file:
                if _is_dicom(file, name if isinstance(source, bytes) else source):
                    return dicom.decode(file, Image.MAX_IMAGE_PIXELS, remarks)
                content = file.read()  # an opened image outlives the file
            image = _open(content, name)
            pixels = png.grey_pixels(content, image.info) if image.format == "PNG" else None
            if pixels is not None:
                return _scale(pixels, name, _stated_bits(image)) if pixels.dtype == np.uint16 else pixels
        image.load()
        bits, zero_is_white = _stated_bits(image), _zero_is_white(image)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            if image.mode == "F":
                raise ImageError(name, "floating-point pixels have no stated range; store it as 8- or 16-bit grey")
            return _scale(np.asarray(image), name, bits, zero_is_white)
        # Not convert("L") at once: a palette or CMYK image is rounded differently when it goes through RGB.
        return np.array(image if image.mode == "L" else image.convert("RGB").convert("L"))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly everything on broken files; all of it means this
        raise _as_image_error(error, name) from error


def read_content(path: str | os.PathLike, name: str) -> bytes:
    """The bytes of an image file, called ``name`` in errors. They need not be those of an image.

    Raises:
        ImageError: it is missing, no file, empty, or larger than an image can be.
    """
    try:
        with _file(path, name) as file:
            return file.read()
    except OSError as error:
        raise _as_image_error(error, name) from error


def image_size(source: str | os.PathLike) -> tuple[int, int]:
    """Width and height in pixels as stored (an EXIF flag turns nothing), from a file's header: no pixel is decoded.

    Raises:
        ImageError: as far as the header tells, see above.
    """
    name = _name(source)
    try:
        with _file(source, name) as file:
            if _is_dicom(file, source):
                return dicom.size(file, Image.MAX_IMAGE_PIXELS)
            with Image.open(file, formats=FORMATS) as image:
                return image.size
    except ImageError:
        raise
    except Exception as error:  # as in read_grey
        raise _as_image_error(error, name) from error


def resize_grey(image_HW: np.ndarray, size: int, resample: int) -> np.ndarray:
    """Resize to a square exactly as transformers' PIL image processors do: one `PIL.Image.resize`, no reducing gap.

    The result is every channel of the resized RGB image, to the bit, whether Pillow or `resizing` computes it.

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
    return resizing.resized(image_HW, size, int(resample))


def _name(source: str | os.PathLike | bytes | Image.Image) -> str:
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "an image in memory")
    return f"{plural(len(source), 'byte')} in memory" if isinstance(source, bytes) else os.fspath(source)


def _as_image_error(error: Exception, name: str) -> ImageError:
    if isinstance(error, dicom.SizeError):
        return TooManyPixelsError.of(name, str(error))
    if isinstance(error, OSError) and error.strerror:
        return ImageError(name, error.strerror)
    reason = " ".join(str(error).split())  # some of pydicom's have several lines
    ours = reason and type(error) in (ValueError, MissingExtraError)
    return ImageError(name, reason if ours else f"{type(error).__name__}: {reason}")


def _file(source: str | os.PathLike | bytes, name: str) -> BinaryIO:
    """The content, opened; not so if it is empty, absurdly large, or no file at all."""
    if source is None:  # a row whose file is not there
        raise ImageError(name, "the file is missing")
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(name, "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is not a regular file")
        size = status.st_size
    if not size:
        raise ImageError(name, "the file is empty")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size > 8 * limit:
        raise TooManyPixelsError.of(name, f"{size:,} bytes are more than {limit:,} pixels, the limit, can take")
    return BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb")


def _is_dicom(file: BinaryIO, path: str | os.PathLike) -> bool:
    head = file.read(132)
    file.seek(0)
    return dicom.is_dicom(head, Path(path).suffix)


def _open(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        known = ", ".join((*FORMATS, "DICOM"))
        raise ImageError(name, f"not an image of a known format and pixel layout ({known}), or truncated") from error
    except Image.DecompressionBombError as error:  # twice the limit and more: Pillow refuses it first
        raise TooManyPixelsError.of(name, f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels, the limit") from error
    _check_image(image, name)
    if image.format == "PNG":
        # Reading skips the checksums of the pixel data and returns flipped bits as pixels; verify() does not. It
        # uses up the image.
        image.verify()
        image = Image.open(BytesIO(content), formats=FORMATS)
        image.info["sBIT"] = _significant_bits(content)
    elif image.format in ("JPEG", "MPO") and not _is_ended(content):
        # The decoder takes whatever follows for pixels: the zeros of a download that was given its length beforehand.
        raise ImageError(name, "truncated: it has no end-of-image marker")
    return image


def _check_image(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise dicom.SizeError(image.width, image.height, limit)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ImageError(name, f"it contains {frames} frames or pages; split them: a radiograph is one")


def _is_ended(jpeg: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan; not that of a thumbnail in a segment before it."""
    position = 2
    while (marker := jpeg[position : position + 2])[:1] == b"\xff" and marker != b"\xff\xda":
        # 0xff before a marker is padding.
        padded = marker == b"\xff\xff"
        position += 1 if padded else 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return b"\xff\xd9" in jpeg[position:]


def _significant_bits(content: bytes) -> int | None:
    """The first number of a PNG's sBIT chunk, which Pillow passes over. The chunks are sound: they were verified."""
    position = 8
    while (kind := content[position + 4 : position + 8]) not in (b"IDAT", b"IEND", b""):
        if kind == b"sBIT":
            return content[position + 8]
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return None


def _stated_bits(image: Image.Image) -> int | None:
    """How many bits of a wide pixel are in use, if the file says less than all."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(TIFF_BITS, (0,))[0]
        return bits if 8 < bits < 16 else None
    bits = image.info.get("sBIT")
    return bits if bits and bits < 16 else None


def _zero_is_white(image: Image.Image) -> bool:
    """Whether wide pixels are still to be inverted; those of 8 bits and less Pillow inverts itself."""
    return image.format == "TIFF" and image.tag_v2.get(TIFF_PHOTOMETRIC) == 0


def _scale(value_HW: np.ndarray, name: str, stated_bits: int | None, zero_is_white: bool = False) -> np.ndarray:
    """16- or 32-bit integer grey to 8 bits, linearly, rounded to nearest."""
    lowest, highest = int(value_HW.min()), int(value_HW.max())
    if lowest < 0 or highest >= 1 << BIT_DEPTHS[-1]:
        raise ImageError(name, f"pixels from {lowest} to {highest}; expected 0 to 65535: store it as 16-bit grey")
    depths = BIT_DEPTHS if stated_bits is None else (stated_bits, BIT_DEPTHS[-1])
    full_scale = next((1 << bits) - 1 for bits in depths if highest < 1 << bits)
    grey = np.arange(highest + 1)  # of each value: far fewer than pixels
    if zero_is_white:
        grey = full_scale - grey
    return ((2 * 255 * grey + full_scale) // (2 * full_scale)).astype(np.uint8)[value_HW]
