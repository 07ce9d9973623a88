"""Whether an image file looks whole: told from its first and its last bytes, without reading what is between them.

| format | what must hold, for a True                                                                              |
|--------|---------------------------------------------------------------------------------------------------------|
| PNG    | signature; every chunk before the pixels with its checksum; the first pixel chunk inside the file; IEND |
|        | as the very last chunk                                                                                  |
| JPEG   | every segment up to the first scan; a frame of 8-bit grey or three colours; the end marker at the end   |
| DICOM  | the whole header, as for decoding; the pixel data as long as it says; of a compressed image every       |
|        | fragment, and the end marker of its codestream                                                          |

True is never given for a file that is missing, empty, cut short, filled up with zeros, of another format under this
name, of several frames, or too large. It may be given for one that is damaged between its ends, such as by a flipped
bit: only decoding finds that. False means no more than "decode it to know", and is the answer for all other formats,
for padding after the end, and for what the decoder treats in a special way (Exif, animation, colour profiles).

A DICOM image without a window is decoded too: whether it comes out too dark is told by its pixels.
"""

import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from hf_cxr.data.images import dicom
from hf_cxr.files import PNG_SIGNATURE

HEAD, LONG_HEAD, TAIL = 4096, 1 << 17, 64  # bytes that are read first; where they do not suffice; and from the end
JPEG_SIGNATURE = b"\xff\xd8\xff"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # by colour type
PNG_PLAIN = {b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD", b"tRNS", b"hIST", b"PLTE", b"tEXt"}
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
JPEG_PLAIN = {*range(0xE0, 0xF0), 0xFE, 0xDB, 0xC4, 0xDD, *JPEG_FRAMES}  # APPn, comment, tables, restart interval


def looks_whole(source: str | os.PathLike | bytes, *, name: str | None = None) -> bool:
    """Whether a file is of a known format and reaches to its end; see the top of this module.

    Args:
        source: a path, or the bytes of a file (any buffer; only the bytes at its ends are touched).
        name: of bytes, its suffix may say that they are DICOM.
    """
    if not isinstance(source, str | os.PathLike):
        content = memoryview(source)
        return _looks_whole(lambda count: bytes(content[:count]), bytes(content[-TAIL:]), len(content)) or (
            dicom.is_dicom(bytes(content[:132]), Path(name or "").suffix) and _is_whole_dicom(BytesIO(content))
        )
    try:
        file = os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        return False
    try:
        size = os.lseek(file, 0, os.SEEK_END)
        head = _read(file, HEAD, 0)
        if dicom.is_dicom(head[:132], os.path.splitext(source)[1]):
            with open(source, "rb") as opened:
                return _is_whole_dicom(opened)
        if not head.startswith((PNG_SIGNATURE, JPEG_SIGNATURE)):
            return False
        tail = _read(file, TAIL, max(size - TAIL, 0))
        return _looks_whole(lambda count: head if count <= HEAD else _read(file, count, 0), tail, size)
    except OSError:  # a folder, a pipe, a disk that fails
        return False
    finally:
        os.close(file)


def _read(file: int, count: int, position: int) -> bytes:
    os.lseek(file, position, os.SEEK_SET)
    return os.read(file, count)


def _looks_whole(read_head, tail: bytes, size: int) -> bool:
    """``read_head(count)`` gives the first bytes, at most so many."""
    head = read_head(HEAD)
    if head.startswith(PNG_SIGNATURE):
        ends, header_is_sound = tail.endswith(PNG_END), _is_png_header
    elif head.startswith(JPEG_SIGNATURE):
        ends, header_is_sound = tail.endswith(b"\xff\xd9"), _is_jpeg_header
    else:
        return False
    if not ends:
        return False
    answer = header_is_sound(head, size)
    if answer is None and size > HEAD:
        answer = header_is_sound(read_head(LONG_HEAD), size)
    return bool(answer)


def _is_png_header(head: bytes, size: int) -> bool | None:
    """Whether the chunks before the pixels are sound; None if the bytes end before them."""
    position = 8
    while len(head) >= position + 10:
        length, kind = int.from_bytes(head[position : position + 4], "big"), head[position + 4 : position + 8]
        if kind == b"IDAT":
            # The stream inside begins with two bytes of zlib: deflate, and a multiple of 31.
            start = head[position + 8 : position + 10]
            zlib_is_sound = length < 2 or (start[0] & 15 == 8 and int.from_bytes(start, "big") % 31 == 0)
            return zlib_is_sound and position > 8 and position + 12 + length <= size - len(PNG_END)
        if position + 12 + length > len(head):
            break
        body = head[position + 8 : position + 8 + length]
        if zlib.crc32(kind + body) != int.from_bytes(head[position + 8 + length : position + 12 + length], "big"):
            return False
        if position == 8:
            if kind != b"IHDR" or length != 13 or not _is_png_size(body):
                return False
        elif kind not in PNG_PLAIN:
            return False
        position += 12 + length
    return None


def _is_png_size(body: bytes) -> bool:
    width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
    depth, colour, compression, filters, interlace = body[8:]
    is_known = depth in PNG_DEPTHS.get(colour, ()) and not compression and not filters and interlace in (0, 1)
    return is_known and _fits(width, height)


def _is_jpeg_header(head: bytes, size: int) -> bool | None:
    """Whether the segments up to the first scan are sound; None if the bytes end before it."""
    position, has_frame = 2, False
    while len(head) >= position + 4:
        mark, marker = head[position], head[position + 1]
        length = int.from_bytes(head[position + 2 : position + 4], "big")
        if mark != 0xFF or length < 2:
            return False
        if marker == 0xDA:
            return has_frame and position + 2 + length < size - 2
        body = head[position + 4 : position + 2 + length]
        if len(body) < length - 2:
            break
        if marker not in JPEG_PLAIN or body.startswith((b"Exif", b"MPF")):
            return False
        if marker in JPEG_FRAMES:
            if len(body) < 6 or body[0] != 8 or body[5] not in (1, 3) or has_frame:
                return False
            if not _fits(int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")):
                return False
            has_frame = True
        position += 2 + length
    return None


def _fits(width: int, height: int) -> bool:
    limit = Image.MAX_IMAGE_PIXELS
    return width > 0 and height > 0 and (limit is None or width * height <= limit)


def _is_whole_dicom(file: BinaryIO) -> bool:
    try:
        return dicom.looks_whole(file, Image.MAX_IMAGE_PIXELS)
    except Exception:  # whatever pydicom raises on a broken file; decoding it will say what is wrong
        return False
