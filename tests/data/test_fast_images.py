"""The compiled decoder and resize against Pillow's: the same pixels to the bit, the same errors."""

import io
import logging
import math
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from hf_cxr.data.images import engine, png, resizing
from hf_cxr.data.images.grey import ImageError, read_grey, resize_grey

RNG = np.random.default_rng(0)
SMOOTH = (np.add.outer(np.arange(37) * 5, np.arange(29) * 3) + RNG.integers(0, 60, (37, 29))).astype(np.uint8)


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    monkeypatch.setattr(engine, "WARM_UP", 0)


def by_pillow(content, monkeypatch):
    """What the same call gives without the compiled code: pixels, or the error in words."""
    with monkeypatch.context() as patch:
        patch.setattr(engine, "WARM_UP", math.inf)
        return outcome(content)


def outcome(content):
    try:
        return read_grey(content, name="a.png")
    except ImageError as error:
        return str(error)


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def filtered(row_N: np.ndarray, above_N: np.ndarray, kind: int, pixel_bytes: int) -> bytes:
    """A row through one of the filters of the PNG specification, byte by byte."""
    out = []
    for n, value in enumerate(row_N.tolist()):
        left = int(row_N[n - pixel_bytes]) if n >= pixel_bytes else 0
        up, corner = int(above_N[n]), int(above_N[n - pixel_bytes]) if n >= pixel_bytes else 0
        estimate = left + up - corner
        nearest = min((left, up, corner), key=lambda other: abs(estimate - other))  # the first of equals
        out.append((value - (0, left, up, (left + up) // 2, nearest)[kind]) % 256)
    return bytes([kind, *out])


def rows_of(pixel_HN: np.ndarray, pixel_bytes: int, kinds: list[int]) -> bytes:
    above_HN = np.vstack([np.zeros_like(pixel_HN[:1]), pixel_HN[:-1]])
    return b"".join(
        filtered(*rows, kinds[y % len(kinds)], pixel_bytes)
        for y, rows in enumerate(zip(pixel_HN, above_HN, strict=True))
    )


def png_file(image: np.ndarray, kinds: list[int], *, before=b"", after=b"", parts=1, tail=b"", interlaced=False):
    """A PNG of (H, W) or (H, W, channels), with chosen filters and chunks around the pixels."""
    height, width = image.shape[:2]
    pixels = image.reshape(height, width, -1)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    pixel_bytes = pixels.shape[2] * image.itemsize

    def rows(part_HWC):
        stored = np.ascontiguousarray(part_HWC.astype(image.dtype.newbyteorder(">"))).view(np.uint8)
        return rows_of(stored.reshape(part_HWC.shape[0], -1), pixel_bytes, kinds)

    adam7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    passes = [pixels[y::dy, x::dx] for y, dy, x, dx in adam7] if interlaced else [pixels]
    data = zlib.compress(b"".join(rows(part) for part in passes if part.size)) + tail
    cut = [data[n * len(data) // parts : (n + 1) * len(data) // parts] for n in range(parts)]
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([8 * image.itemsize, colour_type, 0, 0, interlaced]))
    idat = b"".join(chunk(b"IDAT", part) for part in cut)
    return b"\x89PNG\r\n\x1a\n" + header + before + idat + after + chunk(b"IEND", b"")


def channels(count: int) -> np.ndarray:
    return np.stack([np.roll(SMOOTH, shift, axis=1) for shift in range(count)], axis=-1)


LAYOUTS = {
    "grey": SMOOTH,
    "grey and alpha": channels(2),
    "rgb": channels(3),
    "rgba": channels(4),
    "16-bit grey": SMOOTH.astype(np.uint16) * 100 + 3,
    "16-bit grey, full": np.where(SMOOTH > 9, SMOOTH.astype(np.uint16) * 257, 0).astype(np.uint16),
    "one column": SMOOTH[:, :1],
    "one pixel": SMOOTH[:1, :1],
    "one row of rgba": channels(4)[:1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 1, 2, 0], [4, 3, 2, 1, 0]])
def test_every_layout_and_filter_gives_pillows_pixels(layout, kinds, monkeypatch):
    content = png_file(LAYOUTS[layout], kinds)
    assert png.grey_pixels(content, {}) is not None
    np.testing.assert_array_equal(outcome(content), by_pillow(content, monkeypatch))
    if layout == "grey":
        np.testing.assert_array_equal(outcome(content), SMOOTH)


def text(**pairs) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in pairs.items():
        info.add_itxt(key, value)
    return info


def saved(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def turned_by_xmp() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    return saved(Image.fromarray(SMOOTH), pnginfo=info)


def exif() -> Image.Exif:
    turned = Image.Exif()
    turned[0x0112] = 6
    return turned


GREY = Image.fromarray(SMOOTH)
OTHERS = {  # name -> the file, whether the compiled code takes it
    "saved by Pillow": (saved(GREY), True),
    "uncompressed": (saved(GREY, compress_level=0), True),
    "several parts": (png_file(SMOOTH, [4], parts=5), True),
    "gamma": (png_file(SMOOTH, [3], before=chunk(b"gAMA", (45455).to_bytes(4, "big"))), True),
    "significant bits": (png_file(LAYOUTS["16-bit grey"], [3], before=chunk(b"sBIT", b"\x10")), True),
    "time and size": (png_file(SMOOTH, [3], before=chunk(b"pHYs", bytes(9)) + chunk(b"tIME", bytes(7))), True),
    "text": (saved(GREY, pnginfo=text(comment="a note")), True),
    "xmp": (turned_by_xmp(), False),
    "exif": (saved(GREY, exif=exif()), False),
    "colour profile": (saved(GREY, icc_profile=b"\0" * 200), True),
    "palette": (saved(GREY.convert("P")), False),
    "one bit": (saved(GREY.convert("1")), False),
    "transparent grey": (saved(GREY, transparency=7), False),
    "transparent colour": (saved(GREY.convert("RGB"), transparency=(7, 7, 7)), False),
    "interlaced": (png_file(SMOOTH, [1], interlaced=True), False),
    "interlaced rgba": (png_file(channels(4), [4], interlaced=True), False),
    "text after the pixels": (png_file(SMOOTH, [3], after=chunk(b"tEXt", b"a\0b")), False),
    "unknown chunk": (png_file(SMOOTH, [3], before=chunk(b"abCd", b"?")), False),
    "16-bit colour": (png_file(channels(3).astype(np.uint16) * 257, [4]), False),
    "16-bit alpha": (png_file(channels(2).astype(np.uint16) * 257, [4]), False),
    "more than the pixels": (png_file(SMOOTH, [3], tail=b"trailer"), False),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_whatever_a_png_has_the_pixels_are_pillows(kind, monkeypatch):
    content, taken = OTHERS[kind]
    assert (png.grey_pixels(content, Image.open(io.BytesIO(content)).info) is not None) == taken
    np.testing.assert_array_equal(outcome(content), by_pillow(content, monkeypatch))


def test_other_formats_are_left_to_pillow(monkeypatch):
    for file_format in ("JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"):
        file = io.BytesIO()
        GREY.save(file, file_format)
        np.testing.assert_array_equal(outcome(file.getvalue()), by_pillow(file.getvalue(), monkeypatch))


def bad_filter() -> bytes:
    rows = bytearray(rows_of(SMOOTH, 1, [0]))
    rows[30 * 5] = 9
    return rebuilt(bytes(rows))


def rebuilt(rows: bytes, *, checksum: bool = True) -> bytes:
    """A PNG with sound chunks of 37 x 29 pixels around these rows."""
    data = zlib.compress(rows)
    data = data if checksum else data[:-1] + bytes([data[-1] ^ 1])
    header = chunk(b"IHDR", (29).to_bytes(4, "big") + (37).to_bytes(4, "big") + bytes([8, 0, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


ROWS = rows_of(SMOOTH, 1, [3])
DAMAGED = {
    "no damage": rebuilt(ROWS),
    "unknown filter": bad_filter(),
    "a row is missing": rebuilt(ROWS[:-30]),
    "half a row is missing": rebuilt(ROWS[:-15]),
    "a row too many": rebuilt(ROWS + bytes(30)),
    "no row": rebuilt(b""),
    "wrong checksum of the pixels": rebuilt(ROWS, checksum=False),
    "no pixels": rebuilt(ROWS)[:33] + chunk(b"IEND", b""),
    "no end": rebuilt(ROWS)[:-12],
    "no width": rebuilt(ROWS)[:8]
    + chunk(b"IHDR", bytes(4) + bytes([0, 0, 0, 37, 8, 0, 0, 0, 0]))
    + rebuilt(ROWS)[33:],
}

SOUND_TO_PILLOW = {"no damage", "a row is missing", "a row too many"}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_gives_the_same_words(kind, monkeypatch):
    ours, pillows = outcome(DAMAGED[kind]), by_pillow(DAMAGED[kind], monkeypatch)
    assert isinstance(ours, str) == isinstance(pillows, str)
    np.testing.assert_array_equal(ours, pillows)
    assert isinstance(ours, np.ndarray) == (kind in SOUND_TO_PILLOW)


def test_flipped_bits_and_cuts_give_the_same_words_or_pixels(monkeypatch):
    whole, refused = OTHERS["saved by Pillow"][0], 0
    for position in RNG.integers(0, len(whole), 150):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(RNG.integers(8))
        for content in (bytes(flipped), whole[:position]):
            ours = outcome(content)
            np.testing.assert_array_equal(ours, by_pillow(content, monkeypatch))
            refused += isinstance(ours, str)
    assert refused > 200


@pytest.mark.parametrize("resample", list(Image.Resampling))
@pytest.mark.parametrize(
    ("shape", "size"),
    [((64, 64), 16), ((64, 64), 64), ((61, 47), 17), ((47, 200), 45), ((256, 250), 7), ((20, 90), 32), ((9, 9), 1)],
)
def test_resized_pixels_are_pillows(resample, shape, size, monkeypatch):
    monkeypatch.setattr(resizing, "COMPARED", 0)
    image_HW = RNG.integers(0, 256, shape, dtype=np.uint8) // 255 * 255  # black and white: the filters overshoot
    image_HW[::3] = RNG.integers(0, 256, image_HW[::3].shape)
    pillows = np.array(Image.fromarray(image_HW).resize((size, size), resample))
    np.testing.assert_array_equal(resize_grey(image_HW, size, int(resample)), pillows)
    turned = np.array(Image.fromarray(np.ascontiguousarray(image_HW.T)).resize((size, size), resample))
    np.testing.assert_array_equal(resize_grey(image_HW.T, size, int(resample)), turned)


def test_many_sizes_are_pillows_to_the_bit(monkeypatch):
    monkeypatch.setattr(resizing, "COMPARED", 0)
    calls = []
    real = resizing._coefficients
    monkeypatch.setattr(resizing, "_coefficients", lambda *args: calls.append(args) or real(*args))
    for size, old in ((24, 95), (31, 310), (40, 41), (33, 100), (10, 137)):
        for resample in resizing.FILTERS:
            image_HW = RNG.integers(0, 256, (old, old + 3), dtype=np.uint8)
            pillows = np.array(Image.fromarray(image_HW).resize((size, size), resample))
            np.testing.assert_array_equal(resize_grey(image_HW, size, resample), pillows)
    assert len(calls) == 30


def test_a_pillow_that_resizes_differently_is_noticed(monkeypatch, caplog):
    monkeypatch.setattr(resizing, "_differs", False)
    monkeypatch.setattr(resizing, "_compared", set())
    monkeypatch.setattr(resizing, "_by_pillow", lambda image, size, resample: np.full((size, size), 9, np.uint8))
    with caplog.at_level(logging.WARNING):
        assert (resize_grey(SMOOTH, 8, 3) == 9).all()
        assert (resize_grey(SMOOTH, 9, 3) == 9).all()
    assert len(caplog.records) == 1


def test_a_process_that_reads_few_pixels_does_not_load_the_compiled_code(monkeypatch):
    monkeypatch.setattr(engine, "WARM_UP", 2 * SMOOTH.size)
    monkeypatch.setattr(engine, "_decoded", 0)
    taken = [png.grey_pixels(saved(GREY), {}) is not None for _ in range(4)]
    assert taken == [False, False, True, True]
    monkeypatch.setattr(engine, "_decoded", 0)
    engine.warm_up()
    assert png.grey_pixels(saved(GREY), {}) is not None


def test_the_pixels_of_a_header(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(GREY))
    assert png.stored_pixels(saved(GREY)) == png.stored_pixels(str(tmp_path / "a.png")) == SMOOTH.size
    for other in (b"", b"BM" + bytes(40), saved(GREY)[:20], None, str(tmp_path / "absent.png")):
        assert png.stored_pixels(other) == 0


def test_without_numba_it_is_pillow(monkeypatch):
    monkeypatch.setattr(engine, "_is_installed", lambda name: False)
    engine._load.cache_clear()
    try:
        assert engine.kernels() is None
        assert engine.engine_name() == "Pillow"
        np.testing.assert_array_equal(read_grey(saved(GREY)), SMOOTH)
        np.testing.assert_array_equal(resize_grey(SMOOTH, 8, 3), np.array(GREY.resize((8, 8), 3)))
    finally:
        engine._load.cache_clear()
