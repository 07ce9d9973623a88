"""What a caller may give as an image, and how each kind becomes 8-bit grey.

| given                       | read as                                                                   |
|-----------------------------|---------------------------------------------------------------------------|
| path, bytes of a file       | by `data.images.grey`, as training does                                   |
| PIL image                   | the same                                                                  |
| array (H, W) uint8          | as it is, 0 black                                                         |
| array (H, W) uint16         | as a 16-bit PNG of these values                                           |
| array (H, W, 3) uint8       | as an RGB image                                                           |
| pydicom Dataset             | as the file that it would be written to                                   |

Refused, as `ImageError`: everything else, such as floating-point arrays, whose range nobody knows.

H, W = height, width.
"""

import os
import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hf_cxr.data.images.dicom import SUFFIXES
from hf_cxr.data.images.grey import ImageError, read_grey

if TYPE_CHECKING:
    from pydicom import Dataset

AnyImage = "str | os.PathLike | bytes | Image.Image | np.ndarray | Dataset"
IN_MEMORY = "an image in memory"


def name_of(image: Any) -> str:
    """What an image is called where the caller does not say: its path, or `IN_MEMORY`."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    return str(getattr(image, "filename", "") or IN_MEMORY)


def read_image(image: Any, name: str, remarks: list[str] | None = None) -> np.ndarray:
    """8-bit grey (H, W) uint8, 0 black.

    Args:
        image: see the top of this module.
        name: what to call it in an error.
        remarks: see `read_grey`.

    Raises:
        ImageError: it cannot be read, or is none of these.
    """
    if isinstance(image, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        source = bytes(image) if isinstance(image, bytearray | memoryview) else image
        return read_grey(source, name=name, remarks=remarks)
    if isinstance(image, np.ndarray):
        return _read_array(image, name)
    if _is_dataset(image):
        # Without file meta there is no magic: then the suffix says that the bytes are DICOM.
        named = name if name.lower().endswith(SUFFIXES) else f"{name}{SUFFIXES[0]}"
        return read_grey(_file_of(image, name), name=named, remarks=remarks)
    raise ImageError(
        name,
        f"{type(image).__name__} is not an image; give a path, the bytes of a file, a PIL image, an array, or a "
        "pydicom Dataset",
    )


def _read_array(array: np.ndarray, name: str) -> np.ndarray:
    kind = f"an array {array.shape} {array.dtype}"
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not array.size or not (grey or colour):
        raise ImageError(name, f"{kind}; give (H, W) uint8 or uint16, or (H, W, 3) uint8, with 0 as black")
    return read_grey(Image.fromarray(np.ascontiguousarray(array)), name=name)


def _is_dataset(image: Any) -> bool:
    pydicom = sys.modules.get("pydicom")  # whoever has a Dataset has imported it
    return pydicom is not None and isinstance(image, pydicom.Dataset)


def _file_of(dataset: "Dataset", name: str) -> bytes:
    """The bytes of the DICOM file that a data set would be written to."""
    from pydicom import dcmwrite

    file = BytesIO()
    try:
        if getattr(dataset, "file_meta", None) is None:  # of a data set that no file has had yet
            dcmwrite(file, dataset, implicit_vr=True, little_endian=True)
        else:
            dcmwrite(file, dataset, enforce_file_format=True)
    except Exception as error:  # pydicom raises nearly everything on a broken data set
        raise ImageError(name, f"this pydicom Dataset cannot be written as a file: {error}") from error
    return file.getvalue()
