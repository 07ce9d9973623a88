"""The check before the first step: from a file's ends, remembered, and no milder on a cut file than decoding."""

import io
import logging
import os
import struct
import threading
import time
import zlib

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from hf_cxr.data.images import checks, sound_files
from hf_cxr.data.images.checks import inspect_images
from hf_cxr.data.images.grey import ImageError, read_grey
from hf_cxr.data.images.sound_files import DECODED, HEADER, ROW, SoundFiles, states
from hf_cxr.data.images.waiting import FileLooks
from hf_cxr.data.images.whole import looks_whole

RNG = np.random.default_rng(0)
GREY = Image.fromarray(RNG.integers(0, 256, (20, 20), dtype=np.uint8)).resize((90, 110))
WIDE = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 200)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def dicom(*, window=True, jpeg=False, bits=12):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 110, 90, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (8, 8, 7) if jpeg else (16, bits, bits - 1)
    if window:
        dataset.WindowCenter, dataset.WindowWidth = 1000, 900
    pixels = encode(GREY, "JPEG") if jpeg else (np.asarray(GREY).astype(np.uint16) * 4).tobytes()
    dataset.PixelData = encapsulate([pixels]) if jpeg else pixels
    if jpeg:
        dataset["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


SEEN = {  # what is known to be whole from its ends
    "png": encode(GREY, "PNG"),
    "png 16": encode(WIDE, "PNG"),
    "png colour": encode(GREY.convert("RGB"), "PNG"),
    "png palette": encode(GREY.convert("P"), "PNG"),
    "png 1": encode(GREY.convert("1"), "PNG"),
    "png with chunks": encode(GREY, "PNG", dpi=(72, 72)),
    "jpeg": encode(GREY, "JPEG"),
    "jpeg progressive": encode(GREY, "JPEG", progressive=True),
    "jpeg colour": encode(GREY.convert("RGB"), "JPEG"),
    "jpeg long header": encode(GREY, "JPEG", icc_profile=RNG.bytes(30_000)),
    "dicom": dicom(),
    "dicom jpeg": dicom(jpeg=True),
}
DECODED_KINDS = {  # what is decoded to know
    "tiff": encode(GREY, "TIFF"),
    "tiff lzw": encode(GREY, "TIFF", compression="tiff_lzw"),
    "gif": encode(GREY, "GIF"),
    "bmp": encode(GREY, "BMP"),
    "webp": encode(GREY, "WEBP"),
    "ppm": encode(GREY, "PPM"),
    "jpeg cmyk": encode(GREY.convert("CMYK"), "JPEG"),
    "dicom without window": dicom(window=False),
}


def is_sound(content) -> bool:
    try:
        read_grey(content)
    except ImageError:
        return False
    return True


def split_of(folder, contents):
    """A split of these files, by name; None is one that is not there."""
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
    paths = [str(folder / name) for name in contents]
    columns = {"image": paths, "image_id": list(contents)}
    return {"train": datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())}


@pytest.fixture
def looked(monkeypatch):
    """Names of the images that are looked at, and of those that are decoded, from here on."""
    seen, decoded = [], []

    def look(source, *, name):
        seen.append(name.rpartition("/")[2])
        return looks_whole(source, name=name)

    def decode(source, *, name, remarks):
        decoded.append(name.rpartition("/")[2])
        return read_grey(source, name=name, remarks=remarks)

    monkeypatch.setattr(checks, "looks_whole", look)
    monkeypatch.setattr(checks, "read_grey", decode)
    return seen, decoded


@pytest.mark.parametrize("kind", SEEN)
def test_what_can_be_seen_is_seen_without_decoding(kind, tmp_path):
    (tmp_path / "image").write_bytes(SEEN[kind])
    assert looks_whole(str(tmp_path / "image"))
    assert looks_whole(SEEN[kind])
    assert looks_whole(pa.py_buffer(SEEN[kind]))
    assert is_sound(SEEN[kind])


@pytest.mark.parametrize("kind", DECODED_KINDS)
def test_what_cannot_be_seen_is_left_to_the_decoder(kind, tmp_path):
    (tmp_path / "image").write_bytes(DECODED_KINDS[kind])
    assert not looks_whole(str(tmp_path / "image"))
    assert not looks_whole(DECODED_KINDS[kind])
    assert is_sound(DECODED_KINDS[kind])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SEEN)
def test_no_cut_and_no_filling_up_with_zeros_looks_whole(kind):
    whole = SEEN[kind]
    number = 20 if kind.startswith("dicom") else 150  # pydicom takes a millisecond
    cuts = np.linspace(1, min(len(whole), 800) - 1, number), np.linspace(1, len(whole) - 1, number)
    for position in np.unique(np.concatenate(cuts).astype(int)).tolist():
        assert not looks_whole(whole[:position])
        # The last zeros may be zeros in the file too; and pixels that are not compressed may all be zeros.
        if position < len(whole) - 40 and (kind != "dicom" or position < len(whole) - 2 * 90 * 110):
            assert not looks_whole(whole[:position] + bytes(len(whole) - position))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "png 16", "png with chunks"])
def test_no_flipped_bit_before_the_pixels_of_a_png_looks_whole(kind):
    whole = SEEN[kind]
    start = whole.index(b"IDAT") + 4
    for bit in range(8 * start):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        if looks_whole(bytes(flipped)):  # the length of the first pixel chunk, when it still ends inside the file
            assert start - 8 <= bit // 8 < start - 4
    for bit in range(8 * len(whole) - 96, 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not looks_whole(bytes(flipped))


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_what_the_decoder_treats_in_its_own_way_is_decoded():
    png, jpeg = SEEN["png"], SEEN["jpeg"]
    for chunk in (
        png_chunk(b"acTL", struct.pack(">II", 2, 0)),
        png_chunk(b"eXIf", b"broken"),
        png_chunk(b"zTXt", b""),
    ):
        assert not looks_whole(png[:33] + chunk + png[33:])
    exif = b"Exif\0\0broken"
    assert not looks_whole(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    assert not looks_whole(jpeg + b"\0")
    assert not looks_whole(png + b"\0")
    wide = bytearray(png)
    wide[16:20] = struct.pack(">I", 10**8)
    wide[29:33] = struct.pack(">I", zlib.crc32(wide[12:29]))
    assert not looks_whole(bytes(wide)), "more pixels than Pillow's limit"
    assert not is_sound(bytes(wide))


def test_folders_pipes_and_missing_files_do_not_look_whole(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing", "nul\0"):
        assert not looks_whole(str(path))
    (tmp_path / "empty").write_bytes(b"")
    assert not looks_whole(str(tmp_path / "empty"))
    assert not looks_whole(b"")


BROKEN = {
    "empty.png": b"",
    "cut.png": SEEN["png"][:-30],
    "cut.jpg": SEEN["jpeg"][:-30],
    "zeros.jpg": SEEN["jpeg"][:-300] + bytes(300),
    "cut.dcm": SEEN["dicom"][:-30],
    "cut jpeg.dcm": SEEN["dicom jpeg"][:-30],
    "page.png": b"<html>not found</html>",
    "frames.gif": encode(GREY, "GIF", save_all=True, append_images=[GREY.transpose(Image.Transpose.ROTATE_180)]),
    "frames.png": encode(GREY, "PNG", save_all=True, append_images=[GREY.transpose(Image.Transpose.ROTATE_180)]),
    "cut.tiff": DECODED_KINDS["tiff lzw"][:-30],
    "missing.png": None,
}


@pytest.mark.filterwarnings("ignore")
def test_every_broken_file_is_refused_in_the_same_words_by_header_and_in_full(tmp_path):
    contents = BROKEN | {f"good {number}": content for number, content in enumerate(SEEN.values())}
    splits = split_of(tmp_path, contents)
    found, full = inspect_images(splits), inspect_images(splits, full=True)
    assert found.in_words(99) == full.in_words(99)
    assert found.unreadable["train"].keys() == set(range(len(BROKEN)))
    assert found.images == len(contents)
    del contents["missing.png"]
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": content, "path": None} for content in contents.values()], "image_id": list(contents)},
        features=datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")}),
    )
    inside = inspect_images({"train": rows})
    assert inside.unreadable["train"].keys() == set(range(len(BROKEN) - 1))
    order = np.random.default_rng(0).permutation(len(contents))
    chosen = inspect_images({"train": rows.select(order)}).unreadable["train"]
    assert {int(order[row]) for row in chosen} == set(range(len(BROKEN) - 1))


def test_a_flipped_pixel_bit_is_found_in_full_and_only_there(tmp_path):
    damaged = bytearray(SEEN["png"])
    damaged[len(damaged) // 2] ^= 1
    splits = split_of(tmp_path, {"damaged.png": bytes(damaged), "good.png": SEEN["png"]})
    assert inspect_images(splits).count == 0
    memory = SoundFiles(tmp_path / "memory")
    memory.add(inspect_images(splits, memory).sound)
    assert inspect_images(splits, memory, full=True).unreadable["train"].keys() == {0}, "a look is not a decoding"


def test_only_what_changed_is_looked_at_again(tmp_path, looked):
    seen, decoded = looked
    names = [f"{number}.png" for number in range(6)]
    splits = split_of(tmp_path, dict.fromkeys(names, SEEN["png"]) | {"t.tiff": DECODED_KINDS["tiff"]})
    memory = tmp_path / "home" / "memory"

    def check():
        seen.clear(), decoded.clear()
        found = inspect_images(splits, SoundFiles(memory))
        SoundFiles(memory).add(found.sound)
        return found, sorted(set(seen) | set(decoded))

    assert check()[1] == sorted([*names, "t.tiff"])
    assert decoded == ["t.tiff"]
    found, again = check()
    assert (again, found.sound, found.images) == ([], [], 7)
    (tmp_path / "0.png").write_bytes(SEEN["png"] + b"\0")  # another size
    os.utime(tmp_path / "1.png", ns=(0, time.time_ns() + 10**9))  # the same size, another time
    (tmp_path / "2.png").unlink()
    same = os.stat(tmp_path / "3.png")
    os.utime(tmp_path / "3.png", ns=(7, same.st_mtime_ns))  # another time of access alone
    found, again = check()
    assert again == ["0.png", "1.png", "2.png"]
    assert found.unreadable["train"].keys() == {2}
    (tmp_path / "4.png").write_bytes(SEEN["png"][:-20] + bytes(20))  # the same size, damaged
    found, again = check()
    assert set(again) == {"2.png", "4.png"}
    assert found.unreadable["train"].keys() == {2, 4}
    inspected = inspect_images(splits, SoundFiles(memory), full=True)
    assert inspected.unreadable["train"].keys() == {2, 4}
    assert sum(map(len, inspected.sound)) == 3, "0.png, with something after its end, and the TIFF were decoded before"


def test_a_folder_has_one_name_and_relative_paths_are_known(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    with FileLooks() as looks:
        rows = states([str(tmp_path / "real" / "a"), str(tmp_path / "link" / "a"), "a", "b", ""], looks)
    assert len(set(rows["name"][:3])) == 1
    assert rows["size"].tolist() == [1, 1, 1, -1, -1]


def row(name, *, size=1, changed=1, day=1, flags=HEADER):
    return np.array([(name, size, changed, day, flags)], dtype=ROW)


def test_a_memory_is_shared_and_the_newest_state_of_a_file_counts(tmp_path):
    path = tmp_path / "folder" / "memory"
    one, other = SoundFiles(path), SoundFiles(path)
    one.add([row(5), row(2**64 - 1)])
    other.add([row(1, flags=DECODED), row(5, size=9)])
    both = SoundFiles(path)
    assert len(both) == 3
    asked = np.concatenate([row(1), row(5, size=9), row(5), row(2**64 - 1), row(3), row(1, changed=2)])
    assert both.flags(asked).tolist() == [DECODED, HEADER, 0, HEADER, 0, 0]
    assert SoundFiles(None).flags(asked).tolist() == [0] * 6
    assert one.flags(row(1)).tolist() == [0], "as it was when it was opened"


def test_a_damaged_memory_is_ignored_and_written_anew(tmp_path):
    path = tmp_path / "memory"
    SoundFiles(path).add([row(name) for name in range(1, 9)])
    content = path.read_bytes()
    assert len(SoundFiles(path)) == 8
    flipped = bytearray(content)
    flipped[40] ^= 4
    for damaged in (content[:-1], content[: -ROW.itemsize], content + b"\0", bytes(flipped), b"", b"x" * 320):
        path.write_bytes(damaged)
        assert len(SoundFiles(path)) == 0
    SoundFiles(path).add([row(7)])
    assert SoundFiles(path).flags(row(7)).tolist() == [HEADER]


def test_a_memory_that_cannot_be_written_is_reported_once(tmp_path, caplog):
    (tmp_path / "file").write_text("a file where a folder is wanted")
    nowhere = SoundFiles(tmp_path / "file" / "memory")
    with caplog.at_level(logging.WARNING):
        nowhere.add([row(1)])
    assert len(caplog.records) == 1
    assert "HF_HOME" in caplog.text
    assert nowhere.flags(row(1)).tolist() == [0]


def test_a_full_memory_loses_what_was_checked_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_files, "MOST", 3)
    path = tmp_path / "memory"
    SoundFiles(path).add([row(name, day=10 - name) for name in range(1, 6)])
    kept = SoundFiles(path)
    assert kept.flags(np.concatenate([row(name) for name in range(1, 6)])).tolist() == [HEADER] * 3 + [0] * 2


def test_other_versions_of_the_decoders_know_nothing(tmp_path, monkeypatch):
    splits = split_of(tmp_path, {"a.png": SEEN["png"]})
    memory = SoundFiles(tmp_path / "memory")
    memory.add(inspect_images(splits, memory).sound)
    assert inspect_images(splits, memory).sound == []
    monkeypatch.setattr(sound_files, "_version_number", lambda: 12345)
    assert len(inspect_images(splits, memory).sound) == 1


@pytest.mark.parametrize("seconds", [0, 0.003])
def test_looks_keep_their_order_whether_they_wait_or_not(seconds):
    threads = set()

    def look(number):
        threads.add(threading.get_ident())
        if seconds:
            time.sleep(seconds)
        return number

    with FileLooks(threads=4) as looks:
        assert looks.map(look, range(100)) == list(range(100))
        assert looks.map(look, []) == []
    assert (len(threads) > 1) == (seconds > 0)
