"""Getting ChestX-ray14 from a loopback server that stalls, cuts off, is busy and serves the wrong thing."""

import errno
import hashlib
import json
import logging
import os
import shutil
import tarfile
from dataclasses import replace

import filelock
import pytest
from huggingface_hub import constants
from nih_server import ARCHIVE, LIST, QUICK, published_release, tar_gz
from test_nih import ROWS, TEST_IMAGES

from hf_cxr.commands import main
from hf_cxr.data import archives, download, load_nih
from hf_cxr.data.download import DownloadError, download_nih, unpack


@pytest.fixture
def release(tmp_path, monkeypatch):
    with published_release(tmp_path / "published", monkeypatch) as server:
        yield server


def snapshot(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_release_is_what_load_nih_reads_and_a_second_run_asks_for_nothing(release, tmp_path, monkeypatch):
    root = tmp_path / "deep" / "nih"
    assert download_nih(root, mirror=release.url, **QUICK) == [file.name for file in download.NIH_FILES]
    splits = load_nih(root)
    assert sum(map(len, splits.values())) == len(ROWS)
    assert sorted(splits["test"]["image_id"]) == list(TEST_IMAGES)
    assert all(row["image"].size == (4, 4) for row in splits["train"])
    assert sorted(path.name for path in root.iterdir() if path.suffix != ".lock") == sorted(
        [*(file.name for file in download.NIH_FILES if not file.is_archive), "images_001", "images_002"]
    )
    before, asked = snapshot(root), len(release.asked)
    assert asked == len(download.NIH_FILES)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # nothing is missing, so it may be
    assert download_nih(root, mirror=release.url, **QUICK) == []
    assert (snapshot(root), len(release.asked)) == (before, asked)


@pytest.mark.parametrize(
    ("plan", "ranges"),
    [
        ([503, 429, 200], [None, None, None]),
        ([("cut", 70_000)], [None, "bytes=70000-"]),
        ([("stall", 70_000)], [None, "bytes=70000-"]),
        ([("cut", 0), ("stall", 0)], [None, None, None]),
        (
            [("cut", 70_000), ("cut", 30_000), ("cut", 10_000)],
            [None, *(f"bytes={n}-" for n in (70000, 100000, 110000))],
        ),
        ([("cut", 70_000), ("whole",)], [None, "bytes=70000-"]),
        ([("redirect",)], [None, None]),
        ([("cut", 70_000), ("redirect",)], [None, "bytes=70000-", "bytes=70000-"]),
    ],
    ids=["busy", "cut off", "stalled", "nothing came", "cut off often", "no ranges", "redirected", "redirected later"],
)
def test_it_gets_there(release, tmp_path, plan, ranges):
    release.plan[ARCHIVE] = [() if step == 200 else step for step in plan]
    download_nih(tmp_path / "nih", mirror=release.url, only=[ARCHIVE], keep_archives=True, **QUICK)
    assert release.ranges(ARCHIVE) == ranges
    assert (tmp_path / "nih" / ARCHIVE).read_bytes() == release.files[ARCHIVE]
    assert len(list((tmp_path / "nih/images_001/images").iterdir())) == 4
    assert not list((tmp_path / "nih").glob("*.part*"))


def test_it_gives_up_and_continues_later(release, tmp_path):
    release.plan[ARCHIVE] = [("cut", 70_000), 503, 503, 503]
    with pytest.raises(DownloadError, match=r"HTTP status 503; gave up after 3 attempts at byte 70,000"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    assert not (tmp_path / "images_001").exists()
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert release.ranges(ARCHIVE)[-1] == "bytes=70000-"


def test_a_server_without_ranges_that_always_breaks_off_ends(release, tmp_path):
    release.plan[ARCHIVE] = [("whole cut", size) for size in (50_000, 40_000, 60_000, *[45_000] * 20)]
    with pytest.raises(DownloadError, match="gave up after 3 attempts at byte 45,000"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    assert release.ranges(ARCHIVE) == [None, *(f"bytes={n}-" for n in (50_000, 40_000, 60_000, 45_000))]


def test_no_connection(release, tmp_path):
    with pytest.raises(DownloadError, match=r"gave up after 3 attempts.*check the network"):
        download_nih(tmp_path, mirror="http://127.0.0.1:9", only=[LIST], **QUICK)


def test_killed_between_download_and_unpacking(release, tmp_path):
    part = tmp_path / f"{ARCHIVE}.part"
    part.write_bytes(release.files[ARCHIVE])
    stale = tmp_path / ".images_001.unpacking/images/00000009_000.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert release.asked == []
    assert not part.exists()
    assert not (tmp_path / "images_001/images/00000009_000.png").exists()


def test_leftovers_are_removed_though_nothing_is_missing_and_nothing_else_is(release, tmp_path):
    download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    before = snapshot(tmp_path)
    (tmp_path / ".images_001.unpacking/images").mkdir(parents=True)
    (tmp_path / f"{ARCHIVE}.part").write_bytes(b"x")
    (tmp_path / f".{ARCHIVE}.part-ab_c1d2e.json").write_text("{")
    (tmp_path / "images_002.tar.gz.part").write_bytes(b"half of another archive")
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == []
    (tmp_path / "images_002.tar.gz.part").unlink()
    assert snapshot(tmp_path) == before
    assert not (tmp_path / ".images_001.unpacking").exists()


@pytest.mark.parametrize(
    "note", ["", "[]", "{", '{"url": 3}', "null", '{"url": URL, "validator": "a\\nb"}', "[" * 99_999]
)
def test_a_damaged_note_on_a_download_under_way_costs_nothing(release, tmp_path, note):
    part = tmp_path / f"{ARCHIVE}.part"
    part.write_bytes(release.files[ARCHIVE][:70_000])
    part.with_name(f"{part.name}.json").write_text(note.replace("URL", json.dumps(f"{release.url}/{ARCHIVE}")))
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert release.ranges(ARCHIVE) == ["bytes=70000-"]


def test_a_flipped_byte_in_what_was_here_is_seen_and_downloaded_again(release, tmp_path):
    part, half = tmp_path / f"{ARCHIVE}.part", bytearray(release.files[ARCHIVE][:70_000])
    half[33_000] ^= 4
    part.write_bytes(half)
    with pytest.raises(DownloadError, match=r"has the md5 .*deleted; run again"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    assert not list(tmp_path.glob("images_001*"))
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]


def test_a_server_that_sends_without_end_does_not_fill_the_disk(release, tmp_path):
    release.plan[ARCHIVE] = [("endless",)] * 3
    with pytest.raises(DownloadError, match=r"sends more than the .* gave up after 3 attempts"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    assert (tmp_path / f"{ARCHIVE}.part").stat().st_size <= len(release.files[ARCHIVE])
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"images": "4"}', "null", "\0"])
def test_a_damaged_record_of_what_was_unpacked_is_one_error(release, tmp_path, record):
    download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    (tmp_path / "images_001/.done").write_text(record)
    with pytest.raises(DownloadError, match=r"images_001/.done is damaged.*move it away"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    (tmp_path / "images_001/.done").write_text('{"images": 4}')
    shutil.rmtree(tmp_path / "images_001/images")
    with pytest.raises(DownloadError, match="has 0 of the 4 images"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)


def test_a_place_that_is_not_a_folder(release, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "nih").mkdir()
    (tmp_path / "nih/images_001").symlink_to(tmp_path / "unmounted")
    for place, match in (("file", "is not a folder"), ("link", "does not exist"), ("file/nih", "cannot write")):
        with pytest.raises(DownloadError, match=match):
            download_nih(tmp_path / place, mirror=release.url, **QUICK)
    with pytest.raises(DownloadError, match="images_001 is a link to a folder that does not exist"):
        download_nih(tmp_path / "nih", mirror=release.url, only=[ARCHIVE], **QUICK)
    assert release.asked == []


def test_a_file_that_changed_on_the_server_is_not_stitched_together(release, tmp_path, monkeypatch):
    release.plan[LIST] = [("cut", 14), 503, 503, 503]  # where the two versions have parted
    with pytest.raises(DownloadError, match="503"):
        download_nih(tmp_path, mirror=release.url, only=[LIST], **QUICK)
    old, new = release.files[LIST], b"".join(reversed(release.files[LIST].splitlines(keepends=True)))
    assert (len(old), old[:14] == new[:14]) == (len(new), False)
    release.files[LIST] = new
    unknown = tuple(replace(file, checksum=None) for file in download.NIH_FILES)
    monkeypatch.setattr(download, "NIH_FILES", unknown)
    download_nih(tmp_path, mirror=release.url, only=[LIST], **QUICK)
    assert release.ranges(LIST)[-1] == "bytes=14-"
    assert (tmp_path / LIST).read_bytes() == new


def test_unknown_size_and_checksum(release, tmp_path, monkeypatch):
    unknown = tuple(replace(file, size=None, checksum=None) for file in download.NIH_FILES)
    monkeypatch.setattr(download, "NIH_FILES", unknown)
    release.plan[LIST] = [("cut", 10)]
    release.plan[ARCHIVE] = [("cut", 100), 503, 503, 503]
    with pytest.raises(DownloadError, match="503"):
        download_nih(tmp_path, mirror=release.url, **QUICK)
    part = tmp_path / f"{ARCHIVE}.part"
    part.write_bytes(release.files[ARCHIVE])  # complete, but nobody knows: the server answers 416
    download_nih(tmp_path, mirror=release.url, **QUICK)
    assert release.ranges(LIST) == [None, "bytes=10-"]
    assert release.ranges(ARCHIVE)[-1] == f"bytes={len(release.files[ARCHIVE])}-"
    assert sum(map(len, load_nih(tmp_path).values())) == len(ROWS)


@pytest.mark.parametrize("name", [ARCHIVE, LIST])
def test_a_login_page_is_one_error_and_costs_nothing_that_is_there(release, tmp_path, name):
    release.plan[name] = [("cut", 20), ("page",)]
    with pytest.raises(DownloadError, match=rf"{release.url}/{name} sends a web page instead of {name}.*by hand"):
        download_nih(tmp_path, mirror=release.url, only=[name], **QUICK)
    assert len(release.asked) == 2
    assert (tmp_path / f"{name}.part").stat().st_size == 20
    assert not (tmp_path / name).exists()
    download_nih(tmp_path, mirror=release.url, only=[name], **QUICK)
    assert release.ranges(name)[-1] == "bytes=20-"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"has [\d,]+ bytes, the published images_001.tar.gz has [\d,]+"),
        (lambda content: content + b"0", r"has [\d,]+ bytes, the published images_001.tar.gz has [\d,]+"),
        (
            lambda content: content[:-9] + bytes(9),
            r"images_001.tar.gz.part has the md5 \w+, the published file has \w+",
        ),
        (lambda content: b"PK" + content[2:], "sends a different kind of file instead of images_001.tar.gz"),
        (lambda content: b"", r"has 0 bytes, the published images_001.tar.gz has [\d,]+"),
    ],
    ids=["short", "long", "checksum", "zip", "empty"],
)
def test_a_wrong_file_is_never_taken(release, tmp_path, change, message):
    right = release.files[ARCHIVE]
    release.files[ARCHIVE] = change(right)
    with pytest.raises(DownloadError, match=message):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    assert len(release.asked) == 1
    assert not list(tmp_path.glob("images_001*"))
    release.files[ARCHIVE] = right
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]


def test_not_found_is_not_asked_for_again(release, tmp_path):
    release.plan[LIST] = [404]
    with pytest.raises(DownloadError, match=f"{release.url}/{LIST} answers with HTTP status 404; the link may"):
        download_nih(tmp_path, mirror=release.url, only=[LIST], **QUICK)
    assert len(release.asked) == 1


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, to
    return entry


def device(name: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    return entry


PNG = archives.PNG_SIGNATURE + b"pixels"
GOOD = {"images/00000001_000.png": PNG}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil.png": PNG}, "a path outside the folder"),
        ({"images/../../evil.png": PNG}, "a path outside the folder"),
        ({"/tmp/evil.png": PNG}, "a path outside the folder"),
        ({"s": link("images/00000002_000.png", "/etc/passwd")}, "link or a device"),
        ({"s": link("images", "..")}, "link or a device"),
        ({"s": link("images/00000002_000.png", "images/00000001_000.png", tarfile.LNKTYPE)}, "link or a device"),
        ({"s": device("images/00000002_000.png", tarfile.CHRTYPE)}, "link or a device"),
        ({"s": device("images/00000002_000.png", tarfile.FIFOTYPE)}, "link or a device"),
        ({"images/00000002_000.png": b"#!/bin/sh"}, "is not a PNG file"),
        ({"./images/00000001_000.png": PNG}, "contains 00000001_000.png twice"),
        ({"images/00000002_000.png": PNG + bytes(70_000_000)}, "larger than the release's images"),
    ],
    ids=["up", "up later", "absolute", "symlink", "folder", "hard link", "device", "fifo", "script", "twice", "bomb"],
)
def test_an_unsafe_archive_leaves_nothing(tmp_path, members, message):
    archive = tmp_path / "outside" / ARCHIVE
    archive.parent.mkdir()
    archive.write_bytes(tar_gz(GOOD | members))
    root = tmp_path / "root" / "nih"
    root.mkdir(parents=True)
    with pytest.raises(DownloadError, match=rf"images_001.tar.gz cannot be unpacked: .*{message}"):
        unpack(archive, root)
    assert {path.name for path in tmp_path.rglob("*")} == {"outside", ARCHIVE, "root", "nih"}


def test_the_good_part_of_these_archives_unpacks(tmp_path, caplog):
    archive = tmp_path / ARCHIVE
    archive.write_bytes(tar_gz({"d": device("images", tarfile.DIRTYPE)} | GOOD | {"images/._00000001_000.png": b"x"}))
    with caplog.at_level(logging.WARNING, logger="hf_cxr.data.archives"):
        assert unpack(archive, tmp_path) == 1
    assert "1 file skipped, such as images/._00000001_000.png" in caplog.text
    folder = tmp_path / "images_001"
    assert snapshot(folder).keys() == {".done", "images/00000001_000.png"}
    assert json.loads((folder / ".done").read_text()) == {"archive": ARCHIVE, "images": 1}
    assert (folder / "images/00000001_000.png").read_bytes() == PNG


@pytest.mark.parametrize(
    "content",
    [tar_gz(GOOD)[:-30], b"\x1f\x8bnothing", b"", tar_gz({"readme.txt": b"x"})],
    ids=["cut off", "not gzip", "empty", "no image"],
)
def test_a_damaged_archive_leaves_nothing(tmp_path, content):
    archive = tmp_path / ARCHIVE
    archive.write_bytes(content)
    with pytest.raises(DownloadError, match=r"images_001.tar.gz cannot be unpacked: .*delete the file"):
        unpack(archive, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]


def test_too_little_space_is_reported_before_the_first_request(release, tmp_path, monkeypatch):
    sizes = {file.name: file.size for file in download.NIH_FILES}
    archives = [size for name, size in sizes.items() if name.endswith(".gz")]
    unpacked = sum(int(1.05 * size) for size in archives)
    usage = type(shutil.disk_usage(tmp_path))
    for keep, needed in ((False, unpacked + max(archives)), (True, unpacked + sum(sizes.values()))):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, needed=needed: usage(10**9, 10**9, needed - 1))
        with pytest.raises(
            DownloadError, match=r"needs 0.0 GB .* free; free disk space, choose another disk, or download a"
        ):
            download_nih(tmp_path / "nih", mirror=release.url, keep_archives=keep, **QUICK)
    assert (release.asked, (tmp_path / "nih").exists()) == ([], False)
    download_nih(tmp_path / "nih", mirror=release.url, **QUICK)  # enough for the archives one at a time


def test_a_disk_that_fills_up_meanwhile(release, tmp_path, monkeypatch):
    real = shutil.copyfileobj

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DownloadError, match=f"no space left in {tmp_path}; free disk space"):
        download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK)
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {"published", f"{ARCHIVE}.part"}
    monkeypatch.setattr(shutil, "copyfileobj", real)
    assert download_nih(tmp_path, mirror=release.url, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert len(release.asked) == 1


def test_offline_mode_refuses(release, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="offline mode: unset HF_HUB_OFFLINE"):
        download_nih(tmp_path / "nih", mirror=release.url, **QUICK)
    assert (release.asked, (tmp_path / "nih").exists()) == ([], False)
    (tmp_path / ARCHIVE).write_bytes(release.files[ARCHIVE])  # by hand: no network needed
    assert download_nih(tmp_path, only=[ARCHIVE], **QUICK) == [ARCHIVE]
    assert (tmp_path / ARCHIVE).exists()


def test_what_is_in_the_way_is_named_and_left_alone(release, tmp_path):
    def refused(match, only):
        before = snapshot(tmp_path)
        with pytest.raises(DownloadError, match=match):
            download_nih(tmp_path, mirror=release.url, only=only, **QUICK)
        assert snapshot(tmp_path) == before

    (tmp_path / LIST).write_text("another list")
    refused(rf"{LIST} has 12 bytes, the published file has \d+: move it away", [LIST])
    (tmp_path / "images_001/images").mkdir(parents=True)
    refused("images_001 exists, but not from a finished download; move it away", [ARCHIVE])
    (tmp_path / "images_001/.done").write_text(json.dumps({"images": 4}))
    refused(r"images_001/images has 0 of the 4 images in images_001.tar.gz", [ARCHIVE])
    (tmp_path / "images").mkdir()
    (tmp_path / "images/00000001_000.png").touch()
    refused("already has images", None)
    assert release.asked == []


def test_bad_arguments(release, tmp_path):
    with pytest.raises(ValueError, match=r"images_01.tar.gz is not a file of the release; did you mean images_00\d"):
        download_nih(tmp_path, only=["images_01.tar.gz"])
    with pytest.raises(ValueError, match="a mirror is the http address of a folder"):
        download_nih(tmp_path, mirror="ftp://server/nih")
    for mirror in ("http://server:port/nih", "http://ser\x00ver/"):
        with pytest.raises(ValueError, match="is not a valid address"):
            download_nih(tmp_path, mirror=mirror)


def test_one_download_at_a_time(release, tmp_path):
    with filelock.FileLock(tmp_path / ".download.lock"), pytest.raises(DownloadError, match="another download"):
        download_nih(tmp_path, mirror=release.url, **QUICK)
    assert release.asked == []


def test_the_command(release, tmp_path, capsys):
    root = tmp_path / "nih"
    words = ["download", "nih", str(root), "--mirror", release.url]
    assert main([*words, "--only", ARCHIVE]) == 0
    assert "ready" not in capsys.readouterr().out
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"{root}: ready for --nih_root, with train 5, validation 1, test 2 images" in out
    assert "cite Wang et al." in out
    assert main(words) == 0
    assert "nothing was missing" in capsys.readouterr().out
    (root / LIST).write_text("another list")
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"hf-cxr download: {root / LIST} has 12 bytes")


def test_the_table_of_the_release():
    names = [file.name for file in download.NIH_FILES]
    assert names[4:] == [f"images_{number:03d}.tar.gz" for number in range(1, 13)]
    assert len({file.url for file in download.NIH_FILES}) == len({file.checksum for file in download.NIH_FILES}) == 16
    assert sum(file.size for file in download.NIH_FILES if file.is_archive) == 45_079_862_784
    for file in download.NIH_FILES:
        algorithm, digest = file.checksum.split(":")
        assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size


@pytest.mark.skipif("HF_CXR_NIH_ROOT" not in os.environ, reason="HF_CXR_NIH_ROOT names no NIH release")
def test_the_checksums_are_those_of_the_real_tables():
    for file in download.NIH_FILES[:4]:
        with open(os.path.join(os.environ["HF_CXR_NIH_ROOT"], file.name), "rb") as table:
            content = table.read()
        beginning, end = content[:200], content[200:]  # copies elsewhere have another name for one column
        content = beginning.replace(b"Patient Gender", b"Patient Sex") + end
        assert (len(content), "sha256:" + hashlib.sha256(content).hexdigest()) == (file.size, file.checksum)
