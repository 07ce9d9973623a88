"""One DICOM file, one 8-bit grey image as a viewer would first show it.

For one grey sample a pixel, in this order:

| step               | rule                                                                                    |
|--------------------|-----------------------------------------------------------------------------------------|
| stored value       | BitsStored bits, signed or not by PixelRepresentation; unused bits are dropped          |
| modality           | Modality LUT, else RescaleSlope and RescaleIntercept (1 and 0 where absent)             |
| values of interest | the first VOI LUT; without one the first window (LINEAR, LINEAR_EXACT, SIGMOID)         |
| ... if neither     | linear over all that BitsStored can hold, after the modality step; nothing is stretched |
| photometric        | MONOCHROME1 is inverted, so that 0 is black in every file                               |
| 8 bits             | linear from the range of the step before to 0..255, rounded to nearest                  |
| padding            | PixelPaddingValue, up to PixelPaddingRangeLimit, is black whatever the photometric      |

All of it is a function of the stored value, so it is worked out once as a table of at most 65,536 greys.

| colour                        | rule                                                                         |
|-------------------------------|------------------------------------------------------------------------------|
| RGB, and YBR converted to RGB | linear from BitsStored to 8 bits, then luma (ITU-R 601-2); no window         |
| PALETTE COLOR                 | through its palette, then as RGB; alpha is dropped                           |

Overlays are not drawn. PresentationLUTShape is not read: in a radiograph it repeats the photometric interpretation.
Rows and columns are as stored: pixels are taken as square, and nothing is turned or flipped by orientation elements.
No element about the patient is parsed; text that is burned into the pixels stays there.

Without a file meta group, as some archives write files, the encoding is the one that the first element shows. Decoders
are pydicom's own: native, deflated, RLE and 8-bit JPEG always, JPEG 2000 and JPEG-LS with the extra ``dicom``. JPEG
Lossless and 12-bit JPEG need a plugin that pydicom finds once it is installed; without one they are refused.

Refuses, as `ValueError` with the reason (`images.py` adds the file's name): several frames, functional groups
(enhanced objects), dose grids; no pixel data; a transfer syntax without decoder; more than 16 bits, floating point;
windows, tables and bit depths that contradict themselves; sizes above a limit, in the header or in the codestream;
pixel data that are cut short.

H, W = height, width; V = stored values.
"""

import zlib
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from hf_cxr.words import plural

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = (".dcm", ".dicom")
INSTALL = "pip install 'hf-cxr[dicom]'"
MOST_BITS = 16
GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
DEFLATED = b"1.2.840.10008.1.2.1.99"
LIMIT_REPAIR = "raise PIL.Image.MAX_IMAGE_PIXELS"
"""In the message of an image with too many pixels; a program that sets the limit itself has another repair."""
DOSE_GRID = "1.2.840.10008.5.1.4.1.1.481.2"

# Only these are parsed. Those of the palette are read when the photometric interpretation asks for them.
TAGS = (
    *("SOPClassUID", "SharedFunctionalGroupsSequence", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue", "Alpha")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
)


def is_dicom(head: bytes, suffix: str) -> bool:
    """Whether a file is to be read as DICOM: by the magic in its first 132 bytes, or by its suffix."""
    return head[128:132] == b"DICM" or suffix.lower() in SUFFIXES


def size(file: BinaryIO, max_pixels: int | None) -> tuple[int, int]:
    """Width and height in pixels, from the header alone; the pixels may still be unreadable.

    Args:
        file: a whole DICOM file, opened for reading; its name plays no part.
        max_pixels: the most that Rows x Columns may be, which also limits what a deflated file may grow to; None is no
            limit.

    Raises:
        ValueError: the header does not have them. pydicom raises other errors on broken files.
    """
    dataset = _header(_inflated(file, max_pixels))
    return _whole(dataset, "Columns"), _whole(dataset, "Rows")


def decode(file: BinaryIO, max_pixels: int | None, remarks: list[str] | None = None) -> np.ndarray:
    """Decode to 8-bit grey by the rules at the top of this module.

    Args:
        file: as for `size`.
        max_pixels: as for `size`.
        remarks: a list to which the sentence of `unused_bits` is added, if there is one.

    Returns:
        (H, W) uint8, 0 black.

    Raises:
        ValueError: see the top of this module. pydicom raises other errors on broken files.
    """
    file = _inflated(file, max_pixels)
    dataset = _header(file)
    table_V = _check_header(dataset, max_pixels)
    _check_pixel_data(dataset, file)
    from pydicom.pixels import pixel_array

    file.seek(0)
    pixels = pixel_array(_read(file, stop_before_pixels=False))
    if pixels.shape[:2] != (dataset.Rows, dataset.Columns) or pixels.ndim != (2 if table_V is not None else 3):
        raise ValueError(f"its pixel data are {pixels.shape}, its header says {dataset.Rows} x {dataset.Columns}")
    bits = dataset.BitsStored
    if table_V is None:
        return _luma(pixels, bits)
    lowest = _lowest(dataset)
    seen = int(pixels.min()), int(pixels.max())
    if seen[0] < lowest or seen[1] >= lowest + (1 << bits):
        raise ValueError(f"its pixels are from {seen[0]} to {seen[1]}, more than its BitsStored of {bits} can hold")
    if remarks is not None:
        remarks += unused_bits(dataset, pixels)
    return table_V[pixels.astype(np.int32) - lowest]


def looks_whole(file: BinaryIO, max_pixels: int | None) -> bool:
    """Whether the header is sound and the pixel data are all there, without decoding them.

    Also False, which means "decode it to know", if only the pixels tell: see `unused_bits`.

    Raises:
        ValueError: as `decode`, as far as the header tells.
    """
    file = _inflated(file, max_pixels)
    dataset = _header(file)
    table_V = _check_header(dataset, max_pixels)
    _check_pixel_data(dataset, file)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        file.seek(-64, 2)
        ended, delimiter, rest = file.read().rpartition(b"\xfe\xff\xdd\xe0\0\0\0\0")
        if not delimiter or rest or not ended.rstrip(b"\0").endswith(b"\xff\xd9"):
            return False
    return table_V is None or _states_greys(dataset)


def unused_bits(dataset: "Dataset", pixel_HW: np.ndarray) -> list[str]:
    """A sentence about a greyscale image that is shown far too dark (or, in MONOCHROME1, too bright); else nothing.

    Some writers set BitsStored to BitsAllocated, whatever the detector gives. Without a window the greys then run over
    16 bits where the pixels use 12, and the image comes out 16 times too dark. The pixels stay as they are: a
    stretch to each image's own maximum would lose what exposure means. It is reported where two bits or more are
    unused, which is four times too dark.
    """
    if _states_greys(dataset):
        return []
    value_N = pixel_HW[~_is_padding(dataset, pixel_HW)].astype(np.int64)
    sign = int(_lowest(dataset) < 0)
    used = max((int(end).bit_length() for end in (value_N.max(initial=0), -1 - value_N.min(initial=0))), default=0)
    if used + sign > dataset.BitsStored - 2:
        return []
    cause = f"its BitsStored is {dataset.BitsStored}, its pixels use {used + sign} bits, and it has no window"
    return [f"it is read with far too little contrast: {cause}"]


def _states_greys(dataset: "Dataset") -> bool:
    """Whether a window, a table or 8 bits say what is bright, whatever values the pixels take."""
    has_window = _first(dataset.get("WindowCenter")) is not None and _first(dataset.get("WindowWidth")) is not None
    if dataset.PhotometricInterpretation not in GREYS or dataset.get("VOILUTSequence") or has_window:
        return True
    return bool(dataset.get("ModalityLUTSequence")) or dataset.BitsStored <= 8


def _read(file: BinaryIO, *, stop_before_pixels: bool) -> "Dataset":
    try:
        from pydicom import dcmread, uid
    except ImportError as error:
        raise ValueError(f"reading DICOM needs pydicom: {INSTALL}") from error
    dataset = dcmread(file, force=True, stop_before_pixels=stop_before_pixels, specific_tags=list(TAGS))
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        syntaxes = {
            (True, True): uid.ImplicitVRLittleEndian,
            (False, True): uid.ExplicitVRLittleEndian,
            (False, False): uid.ExplicitVRBigEndian,
        }
        dataset.file_meta.TransferSyntaxUID = syntaxes[implicit, little]
    return dataset


def _header(file: BinaryIO) -> "Dataset":
    """What comes before the pixel data; the file is left where they begin."""
    file.seek(0)
    return _read(file, stop_before_pixels=True)


def _inflated(file: BinaryIO, max_pixels: int | None) -> BinaryIO:
    """A deflated data set in full, without its file meta group; any other file as it is."""
    # pydicom would inflate it too, but without a limit.
    file.seek(0)
    head = file.read(4096)
    if head[128:132] != b"DICM" or DEFLATED not in head:
        return file
    if head[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise ValueError("it is deflated, and its file meta group does not say how long it is")
    file.seek(144 + int.from_bytes(head[140:144], "little"))
    limit = 8 * max_pixels if max_pixels is not None else 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(file.read(), limit)
    if not inflater.eof:
        raise ValueError(f"its deflated data are cut short, or longer than {limit:,} bytes")
    return BytesIO(content)


def _check_header(dataset: "Dataset", max_pixels: int | None) -> np.ndarray | None:
    """Check that the header describes one radiograph that can be read.

    Returns:
        Its table (V,) uint8 from stored value to grey; None for colour.
    """
    sop_class = dataset.get("SOPClassUID")
    kind = f" ({sop_class.name})" if sop_class else ""
    if "Rows" not in dataset or "Columns" not in dataset:
        raise ValueError(f"no image: it has no Rows and Columns{kind}, is cut off before them, or is not a DICOM file")
    frames = dataset.get("NumberOfFrames")
    if frames not in (None, "", 1):
        raise ValueError(f"it holds {frames} frames{kind}; split them: a radiograph is one frame")
    if "SharedFunctionalGroupsSequence" in dataset or sop_class == DOSE_GRID:
        raise ValueError(
            f"it is not a plain radiograph{kind}: windows in functional groups and dose grids are not supported"
        )
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    if not rows or not columns:
        raise ValueError(f"it is {columns} x {rows} pixels")
    if max_pixels is not None and rows * columns > max_pixels:
        raise ValueError(f"{columns} x {rows} pixels are more than {max_pixels}; if the file is right, {LIMIT_REPAIR}")
    _check_bits(dataset)
    _check_decoder(dataset)
    # Required by the standard and by the decoder. None is guessed: signed pixels read as unsigned give wrong greys.
    _whole(dataset, "PixelRepresentation")
    photometric, samples = dataset.get("PhotometricInterpretation"), _whole(dataset, "SamplesPerPixel")
    if not photometric:
        raise ValueError("it has no PhotometricInterpretation")
    if samples > 1:
        _whole(dataset, "PlanarConfiguration")
    if photometric in GREYS and samples == 1:
        return _grey_table(dataset)
    if photometric == "PALETTE COLOR" and samples == 1:
        return _palette_table(dataset)
    if photometric in COLOURS and samples == 3:
        return None
    raise ValueError(f"its PhotometricInterpretation is {photometric} with {plural(samples, 'sample')} a pixel")


def _whole(dataset: "Dataset", keyword: str, default: int | None = None) -> int:
    value = dataset.get(keyword)
    if value is None and default is None:
        raise ValueError(f"it has no {keyword}")
    return int(default if value is None else value)


def _check_bits(dataset: "Dataset") -> None:
    allocated, stored = _whole(dataset, "BitsAllocated"), _whole(dataset, "BitsStored")
    high = _whole(dataset, "HighBit", stored - 1)
    if not 1 <= stored <= allocated or high != stored - 1:
        raise ValueError(f"BitsAllocated {allocated}, BitsStored {stored} and HighBit {high} contradict each other")
    if stored > MOST_BITS:
        raise ValueError(f"BitsStored is {stored}; at most {MOST_BITS} are supported")


def _check_decoder(dataset: "Dataset") -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(f"its transfer syntax is {syntax.name}, which pydicom does not decode") from None
    # Pillow's JPEG is of 8 bits.
    is_deep = syntax == JPEGExtended12Bit and dataset.BitsStored > 8
    if not decoder.is_available or (is_deep and decoder.available_plugins == ("pillow",)):
        raise ValueError(
            f"its transfer syntax is {syntax.name}, and no decoder for it is installed. {INSTALL} brings JPEG 2000 "
            f"and JPEG-LS; for this one pydicom can use any of: {'; '.join(decoder.missing_dependencies)}"
        )


def _lowest(dataset: "Dataset") -> int:
    return -(1 << (dataset.BitsStored - 1)) if _whole(dataset, "PixelRepresentation") else 0


def _grey_table(dataset: "Dataset") -> np.ndarray:
    """From stored value, less the lowest possible one, to grey: (V,) uint8."""
    stored_V = np.arange(1 << dataset.BitsStored) + _lowest(dataset)
    value_V, low, high = _modality(dataset, stored_V)
    shown_V = _values_of_interest(dataset, value_V, low, high)  # 0 to 1
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown_V = 1 - shown_V
    grey_V = np.floor(255 * shown_V + 0.5).astype(np.uint8)
    grey_V[_is_padding(dataset, stored_V)] = 0
    return grey_V


def _is_padding(dataset: "Dataset", stored: np.ndarray) -> np.ndarray:
    """Which stored values stand for no pixel; of any shape."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, dtype=bool)
    first = _whole(dataset, "PixelPaddingValue")
    ends = first, _whole(dataset, "PixelPaddingRangeLimit", first)
    lowest = _lowest(dataset)
    if lowest < 0:  # a negative one may be written as unsigned
        ends = tuple(end - (1 << dataset.BitsAllocated) if end >= -lowest else end for end in ends)
    return (stored >= min(ends)) & (stored <= max(ends))


def _modality(dataset: "Dataset", stored_V: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Values after the modality step, and the range that they may take."""
    if dataset.get("ModalityLUTSequence"):
        entries, first, bits = _lookup_table(dataset.ModalityLUTSequence[0], dataset, "Modality LUT")
        return entries[np.clip(stored_V - first, 0, len(entries) - 1)], 0, (1 << bits) - 1
    slope, intercept = (
        float(default if dataset.get(keyword) is None else dataset.get(keyword))
        for keyword, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise ValueError(f"its RescaleSlope is {slope:g}, its RescaleIntercept {intercept:g}")
    value_V = stored_V * slope + intercept
    return value_V, value_V.min(), value_V.max()


def _values_of_interest(dataset: "Dataset", value_V: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 to 1 over the first VOI LUT, else the first window, else the whole range."""
    if dataset.get("VOILUTSequence"):
        entries, first, bits = _lookup_table(dataset.VOILUTSequence[0], dataset, "VOI LUT")
        position_V = np.clip(np.floor(value_V + 0.5) - first, 0, len(entries) - 1).astype(np.int64)
        return entries[position_V] / ((1 << bits) - 1)
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is None or width is None:
        return (value_V - low) / (high - low)
    return _window(value_V, center, width, str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper())


def _first(value) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, (int, float, str)) else value[0])


def _window(value_V: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """0 to 1 by PS3.3 C.11.2.1.2 and C.11.2.1.3, computed by pydicom."""
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"its VOILUTFunction is {function}; known: LINEAR, LINEAR_EXACT, SIGMOID")
    narrowest = 1 if function == "LINEAR" else np.nextafter(0, 1)
    if not (np.isfinite([center, width]).all() and width >= narrowest):
        raise ValueError(f"its window has center {center:g} and width {width:g}, which {function} does not allow")
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    window = Dataset()  # of one bit, so that the window's range is 0 to 1
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 1, 0
    window.VOILUTFunction = function
    window.add_new("WindowCenter", "FD", center)
    window.add_new("WindowWidth", "FD", width)
    with np.errstate(over="ignore"):  # of exp in SIGMOID, where the limit is right
        return apply_windowing(value_V, window)


def _lookup_table(item: "Dataset", dataset: "Dataset", noun: str) -> tuple[np.ndarray, int, int]:
    """Entries, the value that the first one stands for, and the bits of an entry."""
    # Not by pydicom.pixels 3.0, which reads some tables wrongly without an error: apply_voi counts positions in the
    # type of the entries, so a table of 8-bit entries starts again after 256 values, and it cuts rescaled values off
    # where the nearest entry is meant. Entries of 9 to 15 bits (apply_modality_lut) and 8-bit ones that lie two in a
    # word fail, and nothing says that a table contradicts its descriptor.
    descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
    if descriptor is None or data is None or len(descriptor) != 3:
        raise ValueError(f"its {noun} has no descriptor or no data")
    count, first, bits = int(descriptor[0]) or 1 << 16, int(descriptor[1]), int(descriptor[2])
    if isinstance(data, bytes):  # OW; entries of 8 bits may lie two in a word
        endian = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, dtype=np.uint8 if len(data) < 2 * count else f"{endian}u2")
    entries = np.atleast_1d(np.asarray(data, dtype=np.int64))[:count]
    if not 1 <= bits <= MOST_BITS or len(entries) < count or entries.min() < 0 or entries.max() >= 1 << bits:
        raise ValueError(
            f"its {noun} says {count} entries of {bits} bits, and has {len(entries)} up to {entries.max(initial=0)}"
        )
    return entries, first, bits


def _palette_table(dataset: "Dataset") -> np.ndarray:
    """From stored value, less the lowest possible one, to the luma of its colour: (V,) uint8."""
    from pydicom.pixels import apply_color_lut

    stored_1V = (np.arange(1 << dataset.BitsStored) + _lowest(dataset))[None]
    colour_1VC = apply_color_lut(stored_1V, dataset)[..., :3]
    # Some writers keep entries of 8 bits in 16, and some call them 16 bits wide.
    bits = min(int(dataset.RedPaletteColorLookupTableDescriptor[2]), 8 * colour_1VC.itemsize)
    highest = int(colour_1VC.max())
    if not 1 <= bits <= MOST_BITS or highest >= 1 << bits:
        raise ValueError(f"its palette says entries of {bits} bits, and has {highest}")
    return _luma(colour_1VC, bits)[0]


def _luma(colour_HWC: np.ndarray, bits: int) -> np.ndarray:
    full = (1 << bits) - 1
    if bits != 8:
        colour_HWC = (2 * 255 * colour_HWC.astype(np.int64) + full) // (2 * full)
    return np.array(Image.fromarray(np.ascontiguousarray(colour_HWC, dtype=np.uint8)).convert("L"))


def _check_pixel_data(dataset: "Dataset", file: BinaryIO) -> None:
    """Whether the pixel data that begin here are whole, and their codestream has the size in the header."""
    from pydicom.pixels.utils import get_expected_length

    start = file.tell()
    end = file.seek(0, 2)
    endian = "little" if dataset.original_encoding[1] else "big"
    file.seek(min(start, end))
    head = file.read(8)
    if head[4:8] in (b"OB\0\0", b"OW\0\0", b"UN\0\0"):  # explicit, whatever the transfer syntax says
        head += file.read(4)
    tag = (int.from_bytes(head[:2], endian), int.from_bytes(head[2:4], endian))
    if len(head) < 8 or tag[0] != 0x7FE0:
        raise ValueError("it has no pixel data, or is cut off before them")
    if tag[1] != 0x0010:
        raise ValueError("floating-point pixels have no stated range")
    length = int.from_bytes(head[-4:], endian)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        # Some write the length of all fragments where the standard wants none.
        stop = None if length == 0xFFFFFFFF else file.tell() + length
        _check_codestream(dataset, file, _first_fragment(file, end, stop))
        return
    expected = get_expected_length(dataset)
    present = min(length, end - file.tell())
    if present < expected:
        raise ValueError(f"truncated: {present:,} bytes of pixel data; its header says {expected:,}")
    if length >= 2 * expected and length > expected + 1:
        raise ValueError(f"its pixel data hold {length // expected} frames; split them: a radiograph is one frame")


def _first_fragment(file: BinaryIO, end: int, stop: int | None) -> int:
    """Where the first fragment begins; all are checked to be whole, which pydicom's parse_fragments does not do."""
    start = None
    is_offset_table = True
    while start is None or file.tell() != stop:
        head = file.read(8)
        tag, length = head[:4], int.from_bytes(head[4:], "little")
        if tag == b"\xfe\xff\xdd\xe0" and start is not None:
            break
        if tag != b"\xfe\xff\x00\xe0" or len(head) < 8 or file.tell() + length > end:
            raise ValueError("truncated: its pixel data end inside a fragment, or are not fragments")
        if not is_offset_table and start is None:
            start = file.tell()
        is_offset_table = False
        file.seek(length, 1)
    return start


def _check_codestream(dataset: "Dataset", file: BinaryIO, start: int) -> None:
    """A codestream repeats its size, and decoders allocate memory for that one."""
    file.seek(start)
    size = _codestream_size(file)
    if size is not None and size != (dataset.Columns, dataset.Rows):
        raise ValueError(
            f"its codestream is {size[0]} x {size[1]} pixels, its header says {dataset.Columns} x {dataset.Rows}"
        )


def _codestream_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height of a JPEG 2000, JPEG or JPEG-LS codestream; None for any other, such as RLE."""
    start = file.tell()
    head = file.read(4096)
    if head[:2] != b"\xff\xd8":
        siz = head.find(b"\xff\x4f\xff\x51")  # JPEG 2000, at once or behind the boxes of a JP2 file
        if siz < 0:
            return None
        right, bottom, left, top = (int.from_bytes(head[siz + at : siz + at + 4], "big") for at in (8, 12, 16, 20))
        return right - left, bottom - top
    file.seek(start + 2)
    while True:
        marker = file.read(2)
        while marker == b"\xff\xff":  # fill bytes
            marker = b"\xff" + file.read(1)
        length = int.from_bytes(file.read(2), "big")
        if len(marker) < 2 or marker[0] != 0xFF or length < 2 or marker[1] == 0xDA:
            raise ValueError("its JPEG codestream has no frame header")
        if (0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC)) or marker[1] == 0xF7:
            body = file.read(5)
            return int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        file.seek(length - 2, 1)
