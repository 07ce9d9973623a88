"""DICOM to 8-bit grey: every step against pydicom's own, every encoding against the plain one, and what is refused."""

import errno
import io
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pydicom
import pytest
from decoding import check_image, check_images
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from tiny import save_model

from hf_cxr.commands import main
from hf_cxr.data import DecodedImages, load_table
from hf_cxr.data.images.checks import inspect_images
from hf_cxr.data.images.dicom import TAGS
from hf_cxr.data.images.grey import ImageError, image_size, read_grey, resize_grey
from hf_cxr.data.images.sound_files import SoundFiles
from hf_cxr.data.manifest import Recipe
from hf_cxr.data.prepare import prepare
from hf_cxr.data.schema import features
from hf_cxr.data.sources import Source
from hf_cxr.data.sources.table.description import TableDescription
from hf_cxr.inference.classifier import Classifier, find_images, stock_images
from hf_cxr.labels import LabelSpace
from hf_cxr.run.stock import PIPELINE_TOLERANCE, compare_with_stock_pipeline

SHIPPED = Path(pydicom.__file__).parent / "data"
SECRET = "Secret^Patient"


def radiograph(stored: np.ndarray, *, bits: int, syntax: str = uid.ExplicitVRLittleEndian, **elements) -> Dataset:
    """A dataset around stored values (H, W) or (H, W, 3); those of 8 bits lie in bytes, others in words."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = SECRET
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.min() < 0)
    sign = "i" if dataset.PixelRepresentation else "u"
    dataset.PixelData = stored.astype(f"<{sign}{dataset.BitsAllocated // 8}").tobytes()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    if uid.UID(syntax).is_encapsulated:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def content(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def values(bits: int, *, signed: bool = False, shape=(32, 48)) -> np.ndarray:
    """From the lowest to the highest that the bits can hold, shuffled."""
    low = -(1 << (bits - 1)) if signed else 0
    stored = np.linspace(low, low + (1 << bits) - 1, shape[0] * shape[1]).round().astype(np.int32)
    return np.random.default_rng(bits).permutation(stored).reshape(shape)


def table(noun: str, entries: np.ndarray, first: int, bits: int) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    item.add_new("LUTExplanation" if noun == "VOI" else "ModalityLUTType", "LO", "US")
    return [item]


def reference(dataset: Dataset) -> np.ndarray:
    """The same by pydicom's own functions, pixel by pixel in float64: (H, W) of 0 to 255, not rounded."""
    pixels = pixel_array(dataset)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)[..., :3]
    if pixels.ndim == 3:
        full = np.iinfo(pixels.dtype).max
        rgb = np.floor(pixels / full * 255 + 0.5).astype(np.uint8)
        return np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float64)
    bits, low = dataset.BitsStored, 0
    if dataset.PixelRepresentation:
        low = -(1 << (bits - 1))
    ends = np.array([low, low + (1 << bits) - 1], dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        ends = np.array([0, (1 << dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1])
    elif dataset.get("ModalityLUTSequence"):
        ends = np.array([0, (1 << dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1])
    elif "RescaleSlope" in dataset:
        ends = ends * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    modality = apply_modality_lut(pixels.astype(np.int32), dataset)  # in 16 bits its indices overflow
    if dataset.get("VOILUTSequence"):
        modality = np.rint(modality).astype(np.int64)
    shown = (apply_voi_lut(modality, dataset).astype(np.float64) - ends.min()) / np.ptp(ends)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    if "PixelPaddingValue" in dataset:
        shown[pixels == dataset.PixelPaddingValue] = 0
    return 255 * shown


def curve(bits: int, entries: int) -> np.ndarray:
    """A bent table over all of its range."""
    return np.rint(np.linspace(0, 1, entries) ** 2 * ((1 << bits) - 1)).astype(np.int64)


STEPS = {
    "nothing": {},
    "window": {"WindowCenter": 0.4, "WindowWidth": 0.5},
    "two windows": {"WindowCenter": [0.6, 0.1], "WindowWidth": [0.3, 0.2]},
    "exact window": {"WindowCenter": 0.4, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 0.5, "WindowWidth": 0.2, "VOILUTFunction": "SIGMOID"},
    "rescale": {"RescaleSlope": 0.5, "RescaleIntercept": -100},
    "rescale and window": {"RescaleSlope": 2, "RescaleIntercept": 0, "WindowCenter": 0.5, "WindowWidth": 0.7},
    "VOI LUT and window": {"VOILUTSequence": 12, "WindowCenter": 0.9, "WindowWidth": 0.01},
    "rescale and VOI LUT": {"VOILUTSequence": 10, "RescaleSlope": 1, "RescaleIntercept": 3},
    "modality LUT": {"ModalityLUTSequence": 16},
}


@pytest.mark.parametrize(
    ("photometric", "bits", "signed"),
    [
        ("MONOCHROME2", 8, False),
        ("MONOCHROME2", 10, False),
        ("MONOCHROME2", 12, False),
        ("MONOCHROME2", 16, False),
        ("MONOCHROME2", 12, True),
        ("MONOCHROME2", 16, True),
        ("MONOCHROME1", 12, False),
        ("MONOCHROME1", 16, True),
    ],
)
@pytest.mark.parametrize("steps", STEPS)
def test_grey_is_what_pydicom_computes(steps, bits, signed, photometric):
    stored = values(bits, signed=signed)
    elements = dict(STEPS[steps])
    slope = elements.get("RescaleSlope", 1)
    for keyword in ("WindowCenter", "WindowWidth"):  # given as a share of the range
        offset = int(stored.min()) if keyword == "WindowCenter" else 0
        if keyword in elements:
            share = np.atleast_1d(elements[keyword]) * (1 << bits) + offset
            elements[keyword] = [round(float(x * slope), 1) for x in share]
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        if keyword in elements:
            entries, first = min(1 << bits, 200), int(stored.min()) + (1 << bits) // 8
            elements[keyword] = table(keyword[:3], curve(elements[keyword], entries), first, elements[keyword])
    dataset = radiograph(stored, bits=bits, PhotometricInterpretation=photometric, **elements)
    expected = reference(dataset)
    grey = read_grey(content(dataset))
    assert grey.dtype == np.uint8
    assert np.abs(grey - expected).max() <= 0.5 + 1e-6
    assert np.ptp(grey) > 100
    assert check_image(content(dataset)) is None


def test_monochrome1_is_the_complement():
    stored = values(12)
    white = content(radiograph(4095 - stored, bits=12, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read_grey(white), read_grey(content(radiograph(stored, bits=12))))
    np.testing.assert_array_equal(read_grey(white), np.rint(stored * (255 / 4095)))


def test_the_standards_own_example_of_a_window_is_the_whole_range():
    """PS3.3 C.11.2.1.2.1: center 2048, width 4096 leaves 12 bits as they are; width 1 is a threshold."""
    stored = values(12)
    whole = radiograph(stored, bits=12, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(read_grey(content(whole)), read_grey(content(radiograph(stored, bits=12))))
    threshold = radiograph(stored, bits=12, WindowCenter=1000, WindowWidth=1)
    np.testing.assert_array_equal(read_grey(content(threshold)), np.where(stored > 999.5, 255, 0))


def test_an_8_bit_table_in_bytes_or_words_over_part_of_the_range():
    stored = values(12)
    expected = np.clip(stored - 1000, 0, 255)
    item = table("VOI", np.arange(256), 1000, 8)
    np.testing.assert_array_equal(read_grey(content(radiograph(stored, bits=12, VOILUTSequence=item))), expected)
    for data in (np.arange(256, dtype=np.uint8).tobytes(), np.arange(256, dtype="<u2").tobytes()):
        item[0]["LUTData"] = pydicom.DataElement("LUTData", "OW", data)
        np.testing.assert_array_equal(read_grey(content(radiograph(stored, bits=12, VOILUTSequence=item))), expected)


def test_a_negative_slope_turns_the_order_of_values():
    stored = values(12)
    dataset = radiograph(stored, bits=12, RescaleSlope=-1, RescaleIntercept=4095)
    np.testing.assert_array_equal(read_grey(content(dataset)), np.rint((4095 - stored) * (255 / 4095)))
    windowed = radiograph(stored, bits=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(read_grey(content(windowed)), read_grey(content(dataset)))


def test_unused_bits_are_dropped():
    stored = values(12)
    with_overlay = radiograph(stored + 0x7000, bits=12)
    np.testing.assert_array_equal(read_grey(content(with_overlay)), read_grey(content(radiograph(stored, bits=12))))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black(photometric):
    stored = values(12, signed=True)
    plain = read_grey(content(radiograph(stored, bits=12, PhotometricInterpretation=photometric)))
    high, low = (stored >= 1500), (stored == stored.min())
    dataset = radiograph(stored, bits=12, PhotometricInterpretation=photometric)
    dataset.add_new("PixelPaddingValue", "SS", 1500)
    dataset.add_new("PixelPaddingRangeLimit", "SS", 2047)
    np.testing.assert_array_equal(read_grey(content(dataset)), np.where(high, 0, plain))
    dataset = radiograph(stored, bits=12, PhotometricInterpretation=photometric)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2048)  # as some write a negative one
    np.testing.assert_array_equal(read_grey(content(dataset)), np.where(low, 0, plain))
    assert plain[high].any()


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (12, True)])
@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEG2000Lossless,
        uid.JPEGLSLossless,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_every_lossless_encoding_is_the_plain_one(syntax, bits, signed):
    stored = values(bits, signed=signed, shape=(40, 56))
    plain = read_grey(content(radiograph(stored, bits=bits)))
    encoded = content(radiograph(stored, bits=bits, syntax=syntax))
    np.testing.assert_array_equal(read_grey(encoded), plain)
    assert check_image(encoded) is None
    assert len(np.unique(plain)) > 200


def test_a_jpeg_inside_is_read_as_the_jpeg():
    smooth = np.linspace(0, 255, 64 * 48).astype(np.uint8).reshape(64, 48)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG")
    dataset = radiograph(smooth, bits=8)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    np.testing.assert_array_equal(read_grey(content(dataset)), read_grey(buffer.getvalue()))


def test_colour_is_luma():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], dtype=np.int32)
    expected = [[76, 150, 29, 90]]
    np.testing.assert_array_equal(read_grey(content(radiograph(colours, bits=8))), expected)
    np.testing.assert_array_equal(read_grey(content(radiograph(colours * 257, bits=16))), expected)
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel, name in enumerate(("Red", "Green", "Blue")):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        entries = (colours[0, :, channel] * 257).astype("<u2").tobytes()
        palette[f"{name}PaletteColorLookupTableData"] = entries
    numbers = np.array([[0, 1, 2, 3]], dtype=np.int32)
    np.testing.assert_array_equal(read_grey(content(radiograph(numbers, bits=8, **palette))), expected)


def test_an_icon_and_nested_sequences_before_the_pixels_are_ignored():
    stored = values(12)
    plain = read_grey(content(radiograph(stored, bits=12)))
    icon = radiograph(values(8, shape=(8, 8)), bits=8)
    del icon.SOPClassUID, icon.PatientName
    inner, outer = Dataset(), Dataset()
    inner.WindowCenter, inner.WindowWidth, inner.Rows = 1, 1, 3
    inner.IconImageSequence = [icon]
    outer.add_new(0x00280000 | 0x9132, "SQ", [inner])  # Frame VOI LUT Sequence, as of an enhanced object
    for is_undefined_length in (False, True):
        dataset = radiograph(stored, bits=12, IconImageSequence=[icon], RequestAttributesSequence=[outer, outer])
        dataset.add_new(0x00281111, "OB", b"\xfe\xff\xdd\xe0\0\0\0\0")  # bytes that look like a delimiter
        for keyword in ("IconImageSequence", "RequestAttributesSequence"):
            dataset[keyword].is_undefined_length = is_undefined_length
        for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
            dataset.file_meta.TransferSyntaxUID = syntax
            np.testing.assert_array_equal(read_grey(content(dataset)), plain)
            assert check_image(content(dataset)) is None


def test_without_preamble_by_suffix_only(tmp_path):
    stored = values(12)
    whole = content(radiograph(stored, bits=12, syntax=uid.ImplicitVRLittleEndian))
    start = 144 + int.from_bytes(whole[140:144], "little")
    for name in ("a.dcm", "B.DICOM"):
        (tmp_path / name).write_bytes(whole[start:])
        np.testing.assert_array_equal(read_grey(tmp_path / name), np.rint(stored * (255 / 4095)))
    np.testing.assert_array_equal(read_grey(whole[start:], name="a.dcm"), np.rint(stored * (255 / 4095)))
    (tmp_path / "a").write_bytes(whole)  # with one, the name plays no part
    np.testing.assert_array_equal(read_grey(tmp_path / "a"), np.rint(stored * (255 / 4095)))
    (tmp_path / "a.png").write_bytes(whole[start:])
    with pytest.raises(ImageError, match=r"a\.png: not an image"):
        read_grey(tmp_path / "a.png")


def edited(**elements) -> bytes:
    """A sound radiograph with some elements changed after its pixels were written."""
    dataset = radiograph(values(12), bits=12)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return content(dataset)


def without(*keywords: str) -> bytes:
    dataset = radiograph(values(12), bits=12)
    for keyword in keywords:
        delattr(dataset, keyword)
    return content(dataset)


def relabelled(syntax: str, frame: bytes) -> bytes:
    dataset = radiograph(values(8), bits=8)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return content(dataset)


def j2k_bomb() -> bytes:
    """48 x 32 in the header, 50,000 x 50,000 in the codestream."""
    whole = content(radiograph(values(8), bits=8, syntax=uid.JPEG2000Lossless))
    at = whole.index(b"\xff\x4f\xff\x51")
    size = (50_000).to_bytes(4, "big") * 2
    return whole[: at + 8] + size + whole[at + 16 : at + 24] + size + whole[at + 32 :]


def deflate_bomb() -> bytes:
    dataset = radiograph(np.zeros((100, 100), np.int32), bits=8)
    dataset.add_new(0x00091010, "OB", bytes(20_000_000))
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return content(dataset)


def jpeg_bomb() -> bytes:
    frame = b"\xff\xd8\xff\xc0\x00\x0b\x08" + (50_000).to_bytes(2, "big") * 2 + b"\x01\x01\x11\x00"
    return relabelled(uid.JPEGBaseline8Bit, frame + b"\xff\xd9")


def float_pixels() -> bytes:
    dataset = radiograph(values(12), bits=12)
    del dataset.PixelData
    dataset.add_new("FloatPixelData", "OF", bytes(32 * 48 * 4))
    return content(dataset)


PLAIN = edited()
J2K = content(radiograph(values(12), bits=12, syntax=uid.JPEG2000Lossless))
SHORT_LUT = table("VOI", curve(12, 100), 0, 8)
REFUSED = {
    "several frames": (edited(NumberOfFrames=3), "it holds 3 frames .*X-Ray"),
    "frames not counted": (edited(Rows=4), "hold 8 frames"),
    "functional groups": (edited(SharedFunctionalGroupsSequence=[Dataset()]), "functional groups"),
    "no image": (without("Rows", "Columns", "PixelData"), "no image: .*X-Ray"),
    "no pixel data": (without("PixelData"), "no pixel data"),
    "floating point": (float_pixels(), "floating-point"),
    "truncated": (PLAIN[:-100], "truncated: 2,972 bytes of pixel data; its header says 3,072"),
    "truncated fragment": (J2K[:-100], "truncated: .* fragment"),
    "cut in the header": (PLAIN[:400], "cut off"),
    "only a preamble": (PLAIN[:132], "cut off"),
    "empty": (b"", "the file is empty"),
    "text": (b"<html>please log in</html>" * 20, "not a DICOM file"),
    "width 0": (edited(WindowCenter=10, WindowWidth=0), "window has center 10 and width 0"),
    "unknown function": (edited(WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"), "VOILUTFunction is CUBIC"),
    "slope 0": (edited(RescaleSlope=0, RescaleIntercept=1), "RescaleSlope is 0"),
    "wide table": (edited(VOILUTSequence=SHORT_LUT), "VOI LUT says 100 entries of 8 bits"),
    "half a table": (edited(ModalityLUTSequence=[Dataset()]), "Modality LUT has no descriptor"),
    "left-aligned": (edited(HighBit=15), "BitsStored 12 and HighBit 15 contradict"),
    "32 bits": (edited(BitsAllocated=32, BitsStored=32, HighBit=31), "BitsStored is 32"),
    "no bits": (without("BitsStored"), "no BitsStored"),
    "photometric": (edited(PhotometricInterpretation="HSV"), "PhotometricInterpretation is HSV"),
    "no rows": (edited(Rows=0), "48 x 0 pixels"),
    "no decoder": (relabelled(uid.MPEG2MPML, b"0000"), "MPEG2.* does not decode"),
    "garbage in fragments": (relabelled(uid.RLELossless, b"0000"), "RLE|pixel data|header"),
    "bomb in the header": (edited(Rows=50_000, Columns=50_000), "50000 x 50000 pixels are more than"),
    "bomb in a JPEG 2000": (j2k_bomb(), "its codestream is 50000 x 50000 pixels, its header says 48 x 32"),
    "bomb in a JPEG": (jpeg_bomb(), "its codestream is 50000 x 50000 pixels, its header says 48 x 32"),
}
DECODED_TO_SEE = {"garbage in fragments"}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_file_is_refused_with_its_path_and_the_reason(tmp_path, kind):
    whole, reason = REFUSED[kind]
    path = tmp_path / "bad.dcm"
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=reason) as caught:
        read_grey(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    if kind not in DECODED_TO_SEE:
        assert check_image(path).reason == caught.value.reason


def test_jpeg_lossless_names_the_decoders_it_wants():
    decoder = pydicom.pixels.get_decoder(uid.JPEGLosslessSV1)
    if decoder.is_available:
        pytest.skip("a decoder for JPEG Lossless is installed")
    with pytest.raises(ImageError, match=r"JPEG Lossless.*no decoder.*pylibjpeg-libjpeg"):
        read_grey(relabelled(uid.JPEGLosslessSV1, b"0000"))


def test_a_deflated_bomb_is_not_inflated(monkeypatch):
    whole = deflate_bomb()
    assert len(whole) < 30_000
    assert read_grey(whole).shape == (100, 100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert "longer than 8,000,000 bytes" in check_image(whole).reason


@pytest.mark.filterwarnings("ignore")
def test_no_damaged_file_raises_anything_else():
    """Over flipped bits and cuts anywhere: an image of the right size, or an ImageError."""
    rng = np.random.default_rng(0)
    elements = {"WindowCenter": 2000, "WindowWidth": 3000, "VOILUTSequence": table("VOI", curve(12, 50), 10, 12)}
    refused = 0
    for whole in (content(radiograph(values(12), bits=12, **elements)), J2K):
        for position in rng.integers(0, len(whole), 80):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            for broken in (bytes(damaged), whole[:position]):
                try:
                    grey = read_grey(broken, name="a.dcm")
                    assert grey.ndim == 2
                    assert grey.dtype == np.uint8
                except ImageError:
                    refused += 1
    assert refused > 120


def test_nothing_of_the_patient_is_parsed():
    groups = {pydicom.datadict.tag_for_keyword(keyword) >> 16 for keyword in TAGS}
    assert groups == {0x0008, 0x0028, 0x5200, 0x7FE0}


def test_absence_of_pydicom_names_the_install_line(monkeypatch, tmp_path):
    (tmp_path / "a.dcm").write_bytes(PLAIN)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"a\.dcm: .*pip install 'hf-cxr\[dicom\]'"):
        read_grey(tmp_path / "a.dcm")
    assert "hf-cxr[dicom]" in check_image(tmp_path / "a.dcm").reason
    with pytest.raises(ImageError, match=r"a\.dcm: .*pip install 'hf-cxr\[dicom\]'"):
        image_size(tmp_path / "a.dcm")


@pytest.mark.parametrize("name", ["a.dcm", "without_a_suffix"])
def test_the_size_is_that_of_the_pixels_and_none_is_decoded(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(PLAIN)
    height, width = read_grey(path).shape
    assert height != width
    path.write_bytes(PLAIN[:-20])  # pixel data that are cut short
    assert image_size(path) == (width, height)
    path.write_bytes(PLAIN[:200])
    with pytest.raises(ImageError, match=str(path)):
        image_size(path)


# --- pydicom's own test files, those that its wheel carries

FILES = sorted(path for path in SHIPPED.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))


@pytest.mark.filterwarnings("ignore")
def test_every_file_that_pydicom_ships_is_read_as_pydicom_does_or_refused():
    read, reasons = 0, []
    for path in FILES:
        try:
            grey = read_grey(path)
        except ImageError as error:
            reasons.append(error.reason)
            continue
        dataset = pydicom.dcmread(path)
        expected = reference(dataset)
        assert grey.shape == (dataset.Rows, dataset.Columns)
        assert grey.dtype == np.uint8
        assert np.abs(grey - expected).max() <= 0.5 + 1e-6, path
        assert np.ptp(grey) > 0 or np.ptp(expected) == 0, path
        read += 1
    assert read >= 80
    assert len(reasons) >= 50
    assert not [reason for reason in reasons if not reason or "Error:" in reason]  # each in words


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtdose.dcm", "15 frames .RT Dose"),
        ("rtstruct.dcm", "no image: .*RT Structure Set"),
        ("test-SR.dcm", "no image: .*Comprehensive SR"),
        ("waveform_ecg.dcm", "no image: .*ECG"),
        ("liver_1frame.dcm", "not a plain radiograph .Segmentation"),
        ("examples_ybr_color.dcm", "30 frames"),
        ("MR_truncated.dcm", "truncated"),
        ("SC_rgb_rle_32bit.dcm", "BitsStored is 32"),
    ],
)
def test_shipped_files_that_are_not_radiographs_are_refused_with_the_reason(name, reason):
    with pytest.raises(ImageError, match=reason):
        read_grey(SHIPPED / "test_files" / name)


# --- the roads that images come by


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> Path:
    """A spreadsheet and a folder of DICOM, with one 16-bit PNG and one JPEG 2000 among them."""
    root = tmp_path_factory.mktemp("hospital")
    (root / "images").mkdir()
    rows = ["image,patient,split,Effusion,Edema"]
    for number in range(12):
        stored = np.roll(np.add.outer(np.arange(60), np.arange(48)) * 38, number * 5, axis=1)
        name = f"{number}.dcm"
        if number == 9:
            name = "9.png"
            Image.fromarray((stored * 16).astype(np.uint16)).save(root / "images" / name)
        else:
            syntax = uid.JPEG2000Lossless if number == 10 else uid.ExplicitVRLittleEndian
            window = {"WindowCenter": 1500, "WindowWidth": 2500}
            dataset = radiograph(stored, bits=12, syntax=syntax, PhotometricInterpretation="MONOCHROME1", **window)
            (root / "images" / name).write_bytes(content(dataset))
        split = "test" if number >= 8 else "validation" if number >= 6 else "train"
        rows.append(f"{name},p{number},{split},{number % 2},{number // 2 % 2}")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def splits(hospital):
    description = TableDescription(
        name="hospital",
        source="made up",
        files="table.csv",
        image_root="images",
        image_column="image",
        patient_column="patient",
        split_column="split",
        findings=["Effusion", "Edema"],
    )
    return load_table(description, hospital)[0]


def test_a_hospitals_folder_comes_in_by_its_spreadsheet(hospital, splits):
    check_images(splits)
    rows = DecodedImages(splits["test"], 32, Image.Resampling.BILINEAR)
    assert len(rows) == 4
    for row, name in zip(rows, ("8.dcm", "9.png", "10.dcm", "11.dcm"), strict=True):
        grey = read_grey(hospital / "images" / name)
        np.testing.assert_array_equal(row["pixels"], resize_grey(grey, 32, Image.Resampling.BILINEAR))
        assert np.ptp(row["pixels"]) > 100
    found = [path.name for path in find_images([hospital])]
    assert found == sorted([f"{number}.dcm" for number in range(12) if number != 9] + ["9.png"])


def test_images_that_cannot_be_reached_are_an_error_and_not_skipped(tmp_path, monkeypatch):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.png").mkdir()
    assert find_images([tmp_path]) == [tmp_path / "a.png"]  # read_grey says that it is not there
    closed, scandir = tmp_path / "folder.png", os.scandir

    def refuse(path):  # and not by its mode, which stops no root
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match=r"cannot read the folder .*folder.png: Permission denied"):
        find_images([tmp_path])


def test_a_broken_file_is_named_before_training(hospital, splits, tmp_path):
    (tmp_path / "6.dcm").write_bytes((hospital / "images" / "6.dcm").read_bytes()[:-9])
    (tmp_path / "7.dcm").write_bytes((hospital / "images" / "7.dcm").read_bytes())
    moved = (
        splits["validation"]
        .select_columns(["image_id"])
        .add_column("image", [str(tmp_path / "6.dcm"), str(tmp_path / "7.dcm")])
    )
    with pytest.raises(ValueError, match=r"1 of 2 image files cannot be read: .*6\.dcm: truncated"):
        check_images({"validation": moved.cast_column("image", datasets.Image())})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), ("Effusion", "Edema"), spread=2.0)


def test_the_stock_pipeline_gets_what_it_can_read(hospital, splits, model):
    png = hospital / "images" / "9.png"
    assert (np.asarray(Image.open(png).convert("L")) == 255).mean() > 0.9  # what it would see of 16 bits
    images = stock_images(splits["test"], range(4))
    for image, path in zip(images, splits["test"].with_format("arrow")["image"].to_pylist(), strict=True):
        np.testing.assert_array_equal(np.asarray(image), read_grey(path["path"]))
    predictions = Classifier(model).predict_split(splits["test"], "test")
    compared = compare_with_stock_pipeline(model, splits["test"], predictions)
    assert compared["images"] == 4
    assert compared["largest_difference"] < PIPELINE_TOLERANCE
    assert np.ptp(predictions.logits, axis=0).max() > 1e-3


def test_images_that_the_stock_pipeline_reads_alike_go_in_as_they_are_stored(tmp_path):
    grey = np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8)
    Image.fromarray(grey).convert("RGBA").save(tmp_path / "a.png")
    split = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "image_id": ["a"]})
    assert stock_images(split.cast_column("image", datasets.Image()), [0])[0].mode == "RGBA"


def test_predict_reads_a_dicom_folder(hospital, model, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert main(["predict", str(hospital / "images"), "--model", str(model), "--csv", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "image,Effusion,Edema,image/remarks"
    assert len(lines) == 13
    assert SECRET not in out.read_text() + capsys.readouterr().out
    (tmp_path / "bad.dcm").write_bytes(PLAIN[:-100])
    assert main(["predict", str(tmp_path), "--model", str(model)]) == 2
    assert f"{tmp_path}{os.sep}bad.dcm: truncated" in capsys.readouterr().err


@pytest.mark.parametrize(
    "element",
    [
        "SamplesPerPixel",
        "PixelRepresentation",
        "PhotometricInterpretation",
        "BitsStored",
        "PlanarConfiguration",
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_an_element_that_the_decoder_needs_is_asked_for_by_name(element, empty):
    dataset = radiograph(values(8) if element != "PlanarConfiguration" else np.zeros((8, 8, 3), int), bits=8)
    assert check_image(content(dataset)) is None
    delattr(dataset, element)
    if empty:
        setattr(dataset, element, None)
    assert check_image(content(dataset)).reason == f"it has no {element}"


WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


@pytest.mark.parametrize(
    ("most", "bits", "elements", "is_dark"),
    [
        (4095, 16, {}, True),
        (4095, 16, {"PhotometricInterpretation": "MONOCHROME1"}, True),
        (16383, 16, {}, True),
        (32767, 16, {}, False),  # one bit is unused: an image that is merely dark
        (4095, 12, {}, False),
        (4095, 16, WINDOW, False),
        (60, 8, {}, False),
    ],
)
def test_pixels_that_use_far_fewer_bits_than_stored_are_remarked(most, bits, elements, is_dark):
    stored = np.linspace(0, most, 32 * 48).round().astype(np.int32).reshape(32, 48)
    remarks = []
    image = read_grey(content(radiograph(stored, bits=bits, **elements)), remarks=remarks)
    assert bool(remarks) == is_dark
    if is_dark:
        assert "BitsStored is 16" in remarks[0]
        assert f"use {most.bit_length()} bits" in remarks[0]
        np.testing.assert_array_equal(
            image, read_grey(content(radiograph(stored, bits=bits, **elements)))
        )  # a remark changes no pixel


def test_signed_pixels_and_padding_are_counted_by_what_is_an_image():
    signed = np.linspace(-2048, 2047, 32 * 48).round().astype(np.int32).reshape(32, 48)
    remarks = []
    read_grey(content(radiograph(signed, bits=16)), remarks=remarks)
    assert "use 12 bits" in remarks[0]
    padded = values(12)
    padded[0] = 65535
    dataset = radiograph(padded, bits=16)
    dataset.add_new("PixelPaddingValue", "US", 65535)
    read_grey(content(dataset), remarks=remarks)
    assert "use 12 bits" in remarks[1]


def test_dark_images_are_warned_of_once_with_their_number_when_seen_again_too(tmp_path, caplog):
    for number, bits in enumerate((16, 16, 12)):
        (tmp_path / f"{number}.dcm").write_bytes(content(radiograph(values(12), bits=bits)))
    paths = [str(tmp_path / f"{number}.dcm") for number in range(3)]
    split = datasets.Dataset.from_dict({"image": paths, "image_id": list("abc")}).cast_column(
        "image", datasets.Image()
    )
    memory = tmp_path / "sound"
    for _ in range(2):
        found = inspect_images({"test": split}, SoundFiles(memory))
        assert (found.unused_bits, found.images) == (2, 3)
        SoundFiles(memory).add(found.sound)
    assert found.sound == []
    check_images({"test": split})
    assert [record.message[:40] for record in caplog.records] == ["2 of 3 images come out at least four tim"]


def test_preparing_counts_dark_images(tmp_path, caplog):
    splits = {}
    for name, bits in (("train", 16), ("validation", 16), ("test", 12)):
        (tmp_path / f"{name}.dcm").write_bytes(content(radiograph(values(12), bits=bits)))
        row = {"image": [str(tmp_path / f"{name}.dcm")], "labels": [[1.0]], "image_id": [name], "patient_id": [name]}
        row |= {"view": ["PA"], "age": [50.0], "sex": ["F"], "boxes": [[]]}
        splits[name] = datasets.Dataset.from_dict(row, features=features(("Mass",)))
    manifest = prepare(Source(splits, LabelSpace(["Mass"]), "d"), tmp_path / "out", Recipe(36, 2), duplicates="list")
    assert manifest["unused_bits"] == 2
    assert "2 of 3 images come out" in caplog.text
