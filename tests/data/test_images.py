"""Decoding to 8-bit grey: what each container gives, and which files are refused."""

import io
import os
import pickle
import zlib

import numpy as np
import pytest
from decoding import check_image
from PIL import Image
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil

from hf_cxr.data.images.grey import ImageError, read_grey, resize_grey

GREY = np.random.default_rng(0).integers(0, 256, (24, 31), dtype=np.uint8)


def test_check_image_sees_what_reading_would(tmp_path):
    rng = np.random.default_rng(0)
    good = tmp_path / "good.png"
    Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(good)
    assert check_image(good) is None
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for name, broken in (("cut.png", content[:-300]), ("empty.png", b""), ("flip.png", flipped), ("text.png", b"no")):
        (tmp_path / name).write_bytes(broken)
        error = check_image(tmp_path / name)
        assert error.name == str(tmp_path / name)
        with pytest.raises(ImageError):
            read_grey(tmp_path / name)
    assert "no such" in str(check_image(tmp_path / "none.png")).lower()


def encode(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def grey_palette() -> Image.Image:
    image = Image.fromarray(255 - GREY).convert("P")
    image.putdata((255 - GREY).ravel())
    image.putpalette(np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())  # an inverted ramp
    return image


EIGHT_BIT = {
    "grey": Image.fromarray(GREY),
    "grey and alpha": Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]),
    "rgb": Image.fromarray(GREY).convert("RGB"),
    "opaque rgba": Image.fromarray(GREY).convert("RGBA"),
    "half-transparent rgba": Image.merge("RGBA", [Image.fromarray(GREY)] * 3 + [Image.fromarray(GREY // 2)]),
    "palette": grey_palette(),
    "one bit": Image.fromarray(GREY > 127),
}


@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_grey_is_what_the_stock_pipeline_sees_in_every_channel(kind):
    content = encode(EIGHT_BIT[kind])
    stock_HWC = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    grey_HW = read_grey(content)
    assert grey_HW.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(grey_HW, stock_HWC[..., channel])
    np.testing.assert_array_equal(grey_HW, (GREY > 127) * 255 if kind == "one bit" else GREY)


def test_colour_is_luma():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(read_grey(encode(Image.fromarray(colours))), [[76, 150, 29]])


@pytest.mark.parametrize(
    ("highest", "full_scale"),
    [(200, 255), (255, 255), (256, 1023), (1023, 1023), (3000, 4095), (4095, 4095), (16383, 16383), (16384, 65535)],
)
@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_16_bit_grey_is_scaled_from_the_fewest_bits_that_hold_it(highest, full_scale, mode):
    value_HW = np.linspace(0, highest, 24 * 31).round().astype(np.uint16).reshape(24, 31)
    value_HW = value_HW if mode == "I;16" else value_HW.astype(np.int32)
    image = Image.fromarray(value_HW)
    assert image.mode == mode
    np.testing.assert_array_equal(read_grey(image), np.rint(value_HW * (255 / full_scale)))
    if mode == "I;16":
        np.testing.assert_array_equal(read_grey(encode(image)), read_grey(image))
        np.testing.assert_array_equal(read_grey(encode(image, "TIFF")), read_grey(image))


def test_16_bit_grey_does_not_turn_white():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    content = encode(Image.fromarray(ramp))
    assert (np.asarray(Image.open(io.BytesIO(content)).convert("L")) == 255).mean() > 0.99  # what the repair is for
    np.testing.assert_array_equal(read_grey(content).ravel(), np.arange(256))


def tiff(strip: np.ndarray, *, width: int, height: int = 1, bits: int = 16, photometric: int = 1) -> bytes:
    """An uncompressed grey TIFF in the byte order of its strip."""
    order = "big" if strip.dtype.byteorder == ">" else "little"
    fields = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 110),
        (278, 4, height),
        (279, 4, strip.nbytes),
    ]
    entries = b"".join(
        b"".join(number.to_bytes(size, order) for number, size in ((tag, 2), (kind, 2), (1, 4)))
        + value.to_bytes(2 if kind == 3 else 4, order).ljust(4, b"\0")
        for tag, kind, value in fields
    )
    head = b"MM\x00*\x00\x00\x00\x08\x00\x08" if order == "big" else b"II*\x00\x08\x00\x00\x00\x08\x00"
    return head + entries + bytes(4) + strip.tobytes()


def tiff_of_size(width: int, height: int) -> bytes:
    return tiff(np.zeros(16, dtype=np.uint8), width=width, height=height)


def test_big_endian_16_bit_tiff():
    content = tiff(np.array([0, 65535], dtype=">u2"), width=2)
    assert Image.open(io.BytesIO(content)).mode == "I;16B"
    np.testing.assert_array_equal(read_grey(content), [[0, 255]])


@pytest.mark.parametrize(
    ("bits", "strip", "full_scale"),
    [
        (8, np.array([0, 100, 255], dtype=np.uint8), 255),
        (16, np.array([0, 700, 900], dtype="<u2"), 1023),
        (16, np.array([0, 700, 40_000], dtype="<u2"), 65535),
    ],
)
def test_a_tiff_whose_zero_is_white_is_the_complement(bits, strip, full_scale):
    black, white = (read_grey(tiff(strip, width=3, bits=bits, photometric=kind)) for kind in (1, 0))
    np.testing.assert_array_equal(black, [np.rint(strip.astype(int) * (255 / full_scale))])
    np.testing.assert_array_equal(white, 255 - black)
    assert check_image(tiff(strip, width=3, bits=bits)) is None


def test_a_12_bit_tiff_says_its_depth():
    packed = np.array([0x00, 0x01, 0x00, 0x1F, 0x40, 0x00], dtype=np.uint8)  # 0, 256, 500, 0
    content = tiff(packed, width=4, bits=12)
    np.testing.assert_array_equal(read_grey(content), np.rint(np.array([[0, 256, 500, 0]]) * (255 / 4095)))


def with_significant_bits(content: bytes, bits: int) -> bytes:
    body = b"sBIT" + bytes([bits])
    return content[:33] + (1).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize(
    ("highest", "bits", "full_scale"),
    [(900, 12, 4095), (4095, 12, 4095), (10_000, 12, 65535), (65535, 12, 65535), (900, 10, 1023), (900, 16, 1023)],
)
def test_a_png_that_says_its_depth_is_believed(highest, bits, full_scale):
    value_HW = np.linspace(0, highest, 24 * 31).round().astype(np.uint16).reshape(24, 31)
    content = with_significant_bits(encode(Image.fromarray(value_HW)), bits)
    np.testing.assert_array_equal(read_grey(content), np.rint(value_HW * (255 / full_scale)))


def test_8_bit_grey_is_as_it_is_whatever_depth_it_says():
    np.testing.assert_array_equal(read_grey(with_significant_bits(WHOLE, 4)), GREY)


@pytest.mark.parametrize("source_kind", ["path", "str", "bytes", "image"])
def test_an_exif_turn_is_undone_and_the_source_left_alone(tmp_path, source_kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = tmp_path / "turned.png"
    path.write_bytes(encode(Image.fromarray(GREY), exif=exif))
    opened = Image.open(path)
    source = {"path": path, "str": str(path), "bytes": path.read_bytes(), "image": opened}[source_kind]
    np.testing.assert_array_equal(read_grey(source), np.rot90(GREY, -1))
    np.testing.assert_array_equal(np.asarray(opened), GREY)


def png_of_size(width: int, height: int, rows: bytes = b"", *, bits: int = 8, colour_type: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + bytes([bits, colour_type, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_of_16_bit_colour_or_alpha_the_high_byte_is_read(colour_type, channels):
    value_W = np.array([0, 255, 256, 40_000, 65535], dtype=">u2")
    row = b"\0" + np.repeat(value_W, channels).tobytes()
    content = png_of_size(5, 1, row, bits=16, colour_type=colour_type)
    np.testing.assert_array_equal(read_grey(content), [value_W // 256])


def frames(file_format: str) -> bytes:
    second = Image.fromarray(255 - GREY)
    return encode(Image.fromarray(GREY), file_format, save_all=True, append_images=[second])


WHOLE, JPEG = encode(Image.fromarray(GREY)), encode(Image.fromarray(GREY), "JPEG")
BROKEN = {
    "empty": (b"", "empty"),
    "no image": (b"<html>please log in</html>", "not an image"),
    "header only": (WHOLE[:30], "runcated"),
    "cut in half": (WHOLE[: len(WHOLE) // 2], "runcated"),
    "half a jpeg": (JPEG[:-200], "truncated"),
    "zeros for the rest of a jpeg": (JPEG[:-200] + bytes(200), "no end-of-image"),
    "wrong checksum": (WHOLE[:100] + bytes([WHOLE[100] ^ 1]) + WHOLE[101:], "checksum"),
    "large": (png_of_size(10_000, 10_000), "10000 x 10000 pixels are more than"),
    "absurd": (png_of_size(2_000_000, 1_000_000), "more than 89,478,485 pixels"),
    "negative": (encode(Image.fromarray(np.array([[-5, 5]], dtype=np.int32)), "TIFF"), "from -5 to 5"),
    "wide": (encode(Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)), "TIFF"), "from 0 to 70000"),
    "float": (encode(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"), "floating-point"),
    "absurd tiff": (tiff_of_size(50_000, 50_000), "more than 89,478,485 pixels"),
    "half a tiff": (tiff(np.zeros(100, dtype=np.uint8), width=100, height=100), "truncated|cut|file"),
    "two pages": (frames("TIFF"), "it contains 2 frames or pages"),
    "animated gif": (frames("GIF"), "it contains 2 frames or pages"),
    "animated png": (frames("PNG"), "it contains 2 frames or pages"),
    "animated webp": (frames("WEBP"), "it contains 2 frames or pages"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image of a known"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_file_is_refused_with_its_path_and_the_reason(tmp_path, kind):
    content, reason = BROKEN[kind]
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_grey(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match=f"^cannot read 00000001_000.png: .*({reason})"):
        read_grey(content, name="00000001_000.png")


def test_the_end_of_a_jpeg_is_its_own(tmp_path):
    """Not that of a thumbnail in a segment before it; and what follows it is let be."""
    thumbnail = b"\xff\xe1" + (2 + len(JPEG)).to_bytes(2, "big") + JPEG
    whole = JPEG[:2] + thumbnail + b"\xff\xff" + JPEG[2:]  # 0xff before a marker is padding
    for content in (whole, whole + b"trailer", encode(Image.fromarray(GREY), "JPEG", progressive=True)):
        assert np.abs(read_grey(content).astype(int) - GREY).mean() < 20
    np.testing.assert_array_equal(read_grey(whole), read_grey(JPEG))
    with pytest.raises(ImageError, match="no end-of-image"):
        read_grey(whole[:-200] + bytes(200))


def test_a_missing_file_is_refused_with_its_path(tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png.*No such file"):
        read_grey(tmp_path / "absent.png")


def test_a_path_that_is_not_a_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    for name, reason in (("folder.png", "it is a folder"), ("pipe.png", "it is not a regular file")):
        assert str(check_image(tmp_path / name)) == f"cannot read {tmp_path / name}: {reason}"
        with pytest.raises(ImageError, match=reason):
            read_grey(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_folder_is_refused_with_the_reason(tmp_path):
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "a.png").write_bytes(WHOLE)
    (tmp_path / "locked").chmod(0)
    assert "Permission denied" in check_image(tmp_path / "locked" / "a.png").reason
    (tmp_path / "locked").chmod(0o700)
    assert check_image(tmp_path / "locked" / "a.png") is None


def test_an_absurdly_large_file_is_not_read(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(8 * Image.MAX_IMAGE_PIXELS + 1)  # a hole: it takes no room
    assert "715,827,881 bytes are more than" in check_image(tmp_path / "large.png").reason


def test_no_damaged_png_is_read_as_other_pixels():
    """Over single flipped bits anywhere in the file: refused, or the very same pixels."""
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(WHOLE), 300):
        damaged = bytearray(WHOLE)
        damaged[position] ^= 1 << int(rng.integers(8))
        try:
            np.testing.assert_array_equal(read_grey(bytes(damaged)), GREY)
        except ImageError:
            refused += 1
    assert refused > 250


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_no_damaged_file_raises_anything_else(file_format):
    """Over flipped bits and cuts anywhere: an image, or an ImageError from reading and checking alike."""
    whole = encode(Image.fromarray(GREY), file_format)
    rng = np.random.default_rng(0)
    refused = 0
    for position in [*range(40), *rng.integers(0, len(whole), 100)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        for broken in (bytes(damaged), whole[:position]):
            try:
                assert read_grey(broken).ndim == 2
            except ImageError as error:
                refused += bool(error.reason)
            if check_image(broken) is not None:
                with pytest.raises(ImageError):
                    read_grey(broken)
    assert refused > 40


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "broken")))
    assert (error.name, error.reason, str(error)) == ("a.png", "broken", "cannot read a.png: broken")
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("resample", list(Image.Resampling))
@pytest.mark.parametrize("shape", [(300, 260), (256, 256), (100, 180)])
def test_resize_is_that_of_the_stock_processor_to_the_bit(resample, shape):
    image_HW = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    processor = DeiTImageProcessorPil(
        resample=resample,
        size={"height": 256, "width": 256},
        do_center_crop=False,
        do_rescale=False,
        do_normalize=False,
    )
    rgb = Image.fromarray(image_HW).convert("RGB")
    stock_CHW = processor(rgb, return_tensors="np")["pixel_values"][0]
    ours_HW = resize_grey(image_HW, 256, resample)
    assert ours_HW.dtype == np.uint8
    for channel_HW in stock_CHW:
        np.testing.assert_array_equal(ours_HW, channel_HW)


def test_resize_refuses_what_is_not_8_bit_grey():
    with pytest.raises(ValueError, match=r"\(2, 2, 3\) uint8"):
        resize_grey(np.zeros((2, 2, 3), dtype=np.uint8), 4, 2)
    with pytest.raises(ValueError, match="float64"):
        resize_grey(np.zeros((2, 2)), 4, 2)


def test_images_of_the_release(release):
    paths = sorted((release / "images").glob("*.png"))[::100]
    assert paths
    for path in paths:
        np.testing.assert_array_equal(read_grey(path), np.asarray(Image.open(path).convert("RGB"))[..., 1])
