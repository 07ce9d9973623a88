"""What a browser sends: decoded as predict decodes it, or refused with one line."""

import base64
import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from demo_models import dicom, photograph, png, png_of_16_bits
from PIL import Image

from hf_cxr.data.images.grey import read_grey
from hf_cxr.demo.limits import Limits
from hf_cxr.demo.uploads import UploadError, allow_pixels, decode, file_name, read_upload

LIMITS = Limits(megabytes=0.2, megapixels=0.05)


def blank(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("L", (width, height)).save(file, format="PNG")
    return file.getvalue()


def claiming(side: int) -> bytes:
    """A PNG whose header promises a square of so many pixels."""
    content = bytearray(blank(8, 8))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "name"),
    [(png(), "a.png"), (png_of_16_bits(), "a.png"), (dicom(), "a.dcm"), (photograph(), "a.jpg")],
    ids=["8 bits", "16 bits", "DICOM", "photograph"],
)
def test_an_upload_is_read_as_everywhere_else(content, name):
    upload = read_upload(content, name, LIMITS)
    assert np.array_equal(upload.grey_HW, read_grey(content, name=name))
    assert upload.grey_HW.std() > 5
    assert bool(upload.remarks) == (name == "a.jpg")


REFUSED = {
    "text": (b"hello", "notes.txt", "Cannot read notes.txt: not an image"),
    "empty": (b"", "a.png", "a.png is empty"),
    "truncated": (png()[:900], "a.png", "Cannot read a.png"),
    "truncated DICOM": (dicom()[:200], "a.dcm", "a.dcm"),
    "DICOM by name": (b"hello", "a.dcm", "a.dcm cannot be read as DICOM"),
    "many bytes": (bytes(200_001), "a.png", "larger than 0.2 MB"),
    "many pixels": (
        blank(300, 200),
        "a.png",
        "300 x 200 pixels; this page takes at most 0.05 million; if the file is sound, whoever runs this page",
    ),
    "absurdly many pixels": (claiming(20_000), "a.png", "this page takes at most 0.05 million"),
    "many pixels of DICOM": (dicom(230), "a.dcm", "230 x 230 pixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_one_line(kind):
    content, name, words = REFUSED[kind]
    with pytest.raises(UploadError) as error:
        read_upload(content, name, LIMITS)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_pillows_own_limit_is_the_pages(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    many, bytes_ = blank(200, 200), bytes(170_000)
    with pytest.raises(UploadError, match=r"too many pixels; this page takes at most 0\.05 million"):
        read_upload(many, "a.png", LIMITS)
    with pytest.raises(UploadError, match="if the file is sound, whoever runs this page can allow more"):
        read_upload(bytes_, "a.png", LIMITS)
    with warnings.catch_warnings():
        allow_pixels(LIMITS)
        assert read_upload(many, "a.png", LIMITS).grey_HW.shape == (200, 200)


def test_base64_is_checked_before_it_is_decoded():
    assert decode(base64.b64encode(b"abc").decode(), "a", LIMITS) == b"abc"
    for content, words in (
        ("", "empty"),
        (None, "empty"),
        (7, "empty"),
        ("a*c=", "completely"),
        ("A" * 300_000, "larger"),
    ):
        with pytest.raises(UploadError, match=words):
            decode(content, "a", LIMITS)


def test_a_request_has_room_for_the_largest_file():
    assert LIMITS.body > len(base64.b64encode(bytes(LIMITS.bytes)))


@pytest.mark.parametrize("name", ["megabytes", "megapixels", "waiting", "minutes"])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: 0})


def test_names_are_one_short_line():
    assert file_name("../../etc/a\nb\x00.png") == "a b\N{REPLACEMENT CHARACTER}.png"
    assert file_name("x" * 500 + ".dcm").endswith(".dcm")
    assert len(file_name("x" * 500 + ".dcm")) == 80
    assert file_name("") == file_name(3) == "the image"
