"""Download ChestX-ray14 from the NIH: resumable, checked, unpacked as `load_nih` reads it.

    root/Data_Entry_2017_v2020.csv, train_val_list.txt, test_list.txt, BBox_List_2017.csv
    root/images_001/images/*.png ... images_012/images/*.png, each with a .done file next to images/

A table is done when its checksum is right. An archive is done when its folder exists, because the folder gets its name
only after every image has been written. What is done is not downloaded again. An unfinished archive is root/NAME.part,
with the version that the server reported in NAME.part.json; it is deleted once unpacked, unless it is to be kept. An
archive or a table that the user put into root is used if it is the published one, and never deleted.

One download into a folder at a time: it holds the folder's lock while it decides what is missing and until it is done.
After a kill at any moment the same call continues, and removes what was half unpacked.

pooch is not used: it starts a file of 4 GB again from its first byte after every interruption, and keeps nothing of a
download that failed. huggingface_hub's `http_get` resumes, but a login page overwrites what is there, and it would
join two versions of a file.

Refuses: a web page instead of a file, a size or checksum that differs from the published one, an archive with paths
outside its folder, links or devices, too little space, offline mode, a second download into the same folder.

Sources, and how certain each is:

- Links of the archives: `batch_download_zips.py` of the release. They answer GET, not HEAD, with a redirect to an
  address that is valid for a short time, so every attempt begins at the link. Sizes: as the server reports them.
- MD5 of the archives: the release's FAQ_CHESTXRAY.pdf, question 7.
- Links of the tables: the Box file numbers of the release's folder, in the form in which Box downloads one file of it.
- Size and SHA-256 of the tables: of the files at those links, as published elsewhere, and recomputed from another
  copy. Some copies of Data_Entry_2017_v2020.csv have "Patient Gender" for "Patient Sex" in the header and no other
  difference; they are refused.

Terms (FAQ, question 4): use is unrestricted; link to the NIH's download site, acknowledge the NIH Clinical Center, and
cite Wang et al., CVPR 2017.
"""

import difflib
import hashlib
import itertools
import logging
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import filelock
import httpx2
from huggingface_hub import constants
from tqdm.auto import tqdm

from hf_cxr.data.archives import MARKER, DownloadError, read_record, unpack, unpacking_folder
from hf_cxr.data.sources.nih import RELEASE
from hf_cxr.files import is_disk_full, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name, where it is, its size in bytes and its "algorithm:hexdigest", None if unknown."""

    name: str
    url: str
    size: int | None = None
    checksum: str | None = None

    @property
    def is_archive(self) -> bool:
        return self.name.endswith(".tar.gz")

    @property
    def folder(self) -> str:
        """The folder that an archive is unpacked to."""
        return self.name.removesuffix(".tar.gz")


_TABLE = "https://nihcc.app.box.com/index.php?rm=box_download_shared_file&vanity_name=ChestXray-NIHCC&file_id=f_"
_ARCHIVE = "https://nihcc.box.com/shared/static/"
# fmt: off
NIH_FILES = (
    RemoteFile("Data_Entry_2017_v2020.csv", f"{_TABLE}219760887468", 9_003_496,
               "sha256:c69a6daca3549af707ca9cacbdf9f9a7b6a9188e8c61157df653520bb72d8eb1"),
    RemoteFile("train_val_list.txt", f"{_TABLE}256056636701", 1_470_907,
               "sha256:61fbe896321c1c1c8b75f3e4f3a08e4fef6486d95ef8a667c31d4d60dca6cb81"),
    RemoteFile("test_list.txt", f"{_TABLE}256055473534", 435_131,
               "sha256:38ca5ef7f756092946f57c1a59faca882ed589a1ab1f72590b45dc06c6d5e1cc"),
    RemoteFile("BBox_List_2017.csv", f"{_TABLE}219760940956", 92_416,
               "sha256:0bbfea9d4c4e9771481b3023b1bc9f0df9dea924453b12986beb29b0c4d0c95b"),
    RemoteFile("images_001.tar.gz", f"{_ARCHIVE}vfk49d74nhbxq3nqjg0900w5nvkorp5c.gz", 2_008_470_987,
               "md5:fe8ed0a6961412fddcbb3603c11b3698"),
    RemoteFile("images_002.tar.gz", f"{_ARCHIVE}i28rlmbvmfjbl8p2n3ril0pptcmcu9d1.gz", 3_952_623_504,
               "md5:ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
    RemoteFile("images_003.tar.gz", f"{_ARCHIVE}f1t00wrtdk94satdfb9olcolqx20z2jp.gz", 3_929_234_850,
               "md5:2301d03bde4c246388bad3876965d574"),
    RemoteFile("images_004.tar.gz", f"{_ARCHIVE}0aowwzs5lhjrceb3qp67ahp0rd1l1etg.gz", 3_838_903_983,
               "md5:9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
    RemoteFile("images_005.tar.gz", f"{_ARCHIVE}v5e3goj22zr6h8tzualxfsqlqaygfbsn.gz", 3_935_496_531,
               "md5:1861f3cd0ef7734df8104f2b0309023b"),
    RemoteFile("images_006.tar.gz", f"{_ARCHIVE}asi7ikud9jwnkrnkj99jnpfkjdes7l6l.gz", 3_986_301_172,
               "md5:456b53a8b351afd92a35bc41444c58c8"),
    RemoteFile("images_007.tar.gz", f"{_ARCHIVE}jn1b4mw4n6lnh74ovmcjb8y48h8xj07n.gz", 4_016_328_426,
               "md5:1075121ea20a137b87f290d6a4a5965e"),
    RemoteFile("images_008.tar.gz", f"{_ARCHIVE}tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j.gz", 4_018_347_353,
               "md5:b61f34cec3aa69f295fbb593cbd9d443"),
    RemoteFile("images_009.tar.gz", f"{_ARCHIVE}upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj.gz", 4_111_327_929,
               "md5:442a3caa61ae9b64e61c561294d1e183"),
    RemoteFile("images_010.tar.gz", f"{_ARCHIVE}l6nilvfa9cg3s28tqv1qc1olm3gnz54p.gz", 4_181_556_296,
               "md5:09ec81c4c31e32858ad8cf965c494b74"),
    RemoteFile("images_011.tar.gz", f"{_ARCHIVE}hhq8fkdgvcari67vfhs7ppg2w6ni4jze.gz", 4_187_084_020,
               "md5:499aefc67207a5a97692424cf5dbeed5"),
    RemoteFile("images_012.tar.gz", f"{_ARCHIVE}ioqwiy20ihqwyr8pf4c24eazhh281pbu.gz", 2_914_187_733,
               "md5:dc9fda1757c2de0032b63347a7d2895c"),
)
# fmt: on

UNPACKED = 1.05  # bytes on the disk for each byte of an archive: PNG files hardly compress; the rest is block size
LONGEST_WAIT = 120.0  # seconds between two attempts
GZIP_SIGNATURE = b"\x1f\x8b"


class _TemporaryError(Exception):
    """The next attempt may succeed; ``wait`` is the seconds that the server asked for."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


def download_nih(
    root: str | os.PathLike,
    *,
    mirror: str | None = None,
    only: Sequence[str] | None = None,
    keep_archives: bool = False,
    timeout: float = 60.0,
    tries: int = 8,
    backoff: float = 2.0,
) -> list[str]:
    """Download the release's tables and images into a folder; call again to continue after an interruption.

    Args:
        root: the folder; created if it does not exist.
        mirror: base address of another server with files of the same names and content; by default the NIH's.
        only: names out of `NIH_FILES`; by default all.
        keep_archives: keep the archives next to the unpacked images: 45 GB more.
        timeout: seconds without a byte after which a connection counts as stalled.
        tries: attempts in a row without progress before giving up.
        backoff: seconds before the second of these attempts; doubled each time, at most 120.

    Returns:
        Names of what this call downloaded or unpacked; empty if nothing was missing.

    Raises:
        ValueError: an unknown name in ``only``; a mirror that is not an http address.
        DownloadError: offline mode, too little space, no connection, a wrong file, an unsafe archive, a file or folder
            in ``root`` that blocks a name, another download into it.
    """
    files = [replace(file, url=_address(file, mirror)) for file in _chosen(only)]
    root = Path(root)
    if os.path.lexists(root) and not root.is_dir():
        what = "a link to a folder that does not exist" if root.is_symlink() else "not a folder"
        raise DownloadError(f"{root} is {what}; give a folder")
    if only is None:
        _refuse_flat_images(root)
    missing = _missing(files, root)
    if not missing and not _leftovers(files, root):
        return []  # not even the lock: the folder may be on a read-only disk
    if constants.is_offline_mode() and any(_needs_network(file, root) for file in missing):
        raise DownloadError(
            f"cannot download the files missing in {root} ({missing[0].name}, ...) in offline mode: unset "
            f"HF_HUB_OFFLINE (and TRANSFORMERS_OFFLINE), or copy the files of {RELEASE} there"
        )
    _check_space(root, missing, keep_archives)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root), httpx2.Client(timeout=timeout, follow_redirects=True) as client:
            missing = _missing(files, root)  # another download may have ended since the check above
            _remove_leftovers(files, missing, root)
            for file in missing:
                logger.info("%s from %s", file.name, file.url)
                _get(client, file, root, keep_archives=keep_archives, tries=tries, backoff=backoff)
    except OSError as error:
        if is_disk_full(error):
            raise DownloadError(
                f"no space left in {root}; free disk space and run the same command again to continue"
            ) from error
        raise DownloadError(
            f"cannot write {error.filename or root}: {error.strerror or error}; fix that and run the same command "
            "again to continue"
        ) from error
    return [file.name for file in missing]


def _missing(files: Sequence[RemoteFile], root: Path) -> list[RemoteFile]:
    return [file for file in files if not _is_done(file, root)]


def _leftovers(files: Sequence[RemoteFile], root: Path) -> list[Path]:
    """What a killed download left: half unpacked folders, half written notes, parts of files that are done."""
    unpacking = [unpacking_folder(root, file.folder) for file in files if file.is_archive]
    notes = [path for file in files for path in root.glob(f".{_note(_part(file, root)).stem}-*.json")]
    parts = [part for file in files if (part := _part(file, root)).is_file() and _is_done(file, root)]
    return [path for path in (*unpacking, *notes, *parts) if path.exists()]


def _remove_leftovers(files: Sequence[RemoteFile], missing: Sequence[RemoteFile], root: Path) -> None:
    for path in _leftovers(files, root):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for file in set(files) - set(missing):
        _note(_part(file, root)).unlink(missing_ok=True)


def _chosen(only: Sequence[str] | None) -> list[RemoteFile]:
    by_name = {file.name: file for file in NIH_FILES}
    for name in only or ():
        if name not in by_name:
            nearest = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(by_name)}"
            raise ValueError(f"{name} is not a file of the release; {hint}")
    return [file for file in NIH_FILES if only is None or file.name in only]


def _address(file: RemoteFile, mirror: str | None) -> str:
    if mirror is None:
        return file.url
    if not re.match(r"https?://[^/]", mirror):
        raise ValueError(
            f"a mirror is the http address of a folder, such as https://server/ChestX-ray14; got {mirror}"
        )
    try:
        httpx2.URL(mirror)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise ValueError(f"--mirror {mirror} is not a valid address: {error}") from error
    return f"{mirror.rstrip('/')}/{file.name}"


def _refuse_flat_images(root: Path) -> None:
    if (root / "images").is_dir() and any((root / "images").glob("*.png")):
        raise DownloadError(
            f"{root}/images already has images, as from a release unpacked by hand; download into another folder, or "
            "name the missing files with --only"
        )


def _is_done(file: RemoteFile, root: Path) -> bool:
    """Whether a file needs nothing more. A different file in its place is an error: it may be the user's."""
    if not file.is_archive:
        path = root / file.name
        if path.exists():
            _check_content(path, file, f"move it away and run again to download the published one from {file.url}")
        return path.exists()
    folder = root / file.folder
    repair = f"move it away and run again, or name the other files with --only, without {file.name}"
    if folder.is_symlink() and not folder.exists():
        raise DownloadError(f"{folder} is a link to a folder that does not exist; {repair}")
    if not folder.exists():
        return False
    if not (folder / MARKER).is_file():
        raise DownloadError(f"{folder} exists, but not from a finished download; {repair}")
    expected = read_record(folder / MARKER).get("images")
    if not isinstance(expected, int):
        raise DownloadError(f"{folder / MARKER} is damaged: it does not have the number of images; {repair}")
    images = folder / "images"
    found = sum(name.endswith(".png") for name in os.listdir(images)) if images.is_dir() else 0
    if found != expected:
        raise DownloadError(f"{images} has {found} of the {expected} images in {file.name}; {repair}")
    return True


def _part(file: RemoteFile, root: Path) -> Path:
    return root / f"{file.name}.part"


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _needs_network(file: RemoteFile, root: Path) -> bool:
    return not (root / file.name).exists() and (file.size is None or _size(_part(file, root)) != file.size)


def _check_space(root: Path, missing: Sequence[RemoteFile], keep_archives: bool) -> None:
    """Refuse a disk without space for all that is missing, unpacked, and one archive at a time, or all if kept."""
    size = {file: file.size or 0 for file in missing}
    unpacked = sum(int(UNPACKED * size[file]) for file in missing if file.is_archive)
    to_fetch = [max(size[file] - _size(_part(file, root)), 0) for file in missing if not (root / file.name).exists()]
    needed = unpacked + (sum(to_fetch) if keep_archives else max(to_fetch, default=0))
    parent = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise DownloadError(
            f"{root} needs {needed / 1e9:.1f} GB ({unpacked / 1e9:.1f} GB of images, the remainder for archives"
            f"{'' if keep_archives else ', one at a time'}) and its disk has {free / 1e9:.1f} GB free; free disk "
            "space, choose another disk, or download a part of the release with --only"
        )


def _lock(root: Path) -> AbstractContextManager:
    """Held while downloading: no other process downloads into the folder meanwhile."""
    try:
        return filelock.FileLock(root / ".download.lock").acquire(timeout=0)
    except filelock.Timeout:
        raise DownloadError(f"another download into {root} is running; wait for it, or stop it") from None
    except NotImplementedError as error:
        raise DownloadError(f"{root} cannot be locked ({error}); download to a local disk") from error


def _get(
    client: httpx2.Client, file: RemoteFile, root: Path, *, keep_archives: bool, tries: int, backoff: float
) -> None:
    """Fetch, check, put into place."""
    final, part = root / file.name, _part(file, root)
    if final.exists():  # an archive that was kept, or that the user put there
        _check_content(final, file, f"move it away and run again to download the published one from {file.url}")
        unpack(final, root)
        return
    _fetch(client, file, part, tries=tries, backoff=backoff)
    try:
        _check_content(
            part, file, f"deleted; run again, or download {file.name} from {RELEASE} by hand and put it there"
        )
    except DownloadError:
        part.unlink()
        _note(part).unlink(missing_ok=True)
        raise
    _note(part).unlink(missing_ok=True)
    if keep_archives or not file.is_archive:
        os.replace(part, final)
    if file.is_archive:
        unpack(final if keep_archives else part, root, file.folder)
        part.unlink(missing_ok=True)


def _check_content(path: Path, file: RemoteFile, repair: str) -> None:
    """DownloadError unless the size and the checksum are the published ones, where these are known."""
    if file.size is not None and path.stat().st_size != file.size:
        raise DownloadError(
            f"{path} has {path.stat().st_size:,} bytes, the published file has {file.size:,}: {repair}"
        )
    if file.checksum is not None:
        algorithm, expected = file.checksum.split(":")
        with path.open("rb") as content:
            found = hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        if found != expected:
            raise DownloadError(f"{path} has the {algorithm} {found}, the published file has {expected}: {repair}")


def _fetch(client: httpx2.Client, file: RemoteFile, part: Path, *, tries: int, backoff: float) -> None:
    """Complete ``part``; a connection that stalls or breaks and a busy server are tried again."""
    if file.size is not None and _size(part) > file.size:
        part.unlink()
    failures, furthest = 0, _size(part)
    while file.size is None or _size(part) != file.size:
        try:
            _receive(client, file, part)
            return
        except (httpx2.RequestError, _TemporaryError) as error:
            # Only progress counts: a server that ignores Range and always breaks off would be tried for ever.
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            what = f"{file.url}: {str(error) or type(error).__name__}"
            if failures >= tries:
                raise DownloadError(
                    f"{what}; gave up after {tries} attempts at byte {_size(part):,}; check the network and run the "
                    "same command again to continue from there"
                ) from error
            wait = min(max(backoff * 2 ** (failures - 1), getattr(error, "wait", 0.0)), LONGEST_WAIT)
            logger.warning("%s at byte %d; trying again in %g s", what, _size(part), wait)
            time.sleep(wait)


def _receive(client: httpx2.Client, file: RemoteFile, part: Path) -> None:
    """One attempt: ask for what is missing and append it, or start again if the server sends the whole file."""
    offset, headers = _range_to_ask(file, part)
    with client.stream("GET", file.url, headers={"Accept-Encoding": "identity", **headers}) as answer:
        if answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{offset}":
            return  # the file was complete
        _check_status(answer, file, part)
        if answer.status_code != 206:
            offset = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink(missing_ok=True)
            raise _TemporaryError(f"asked for bytes from {offset}, got {answer.headers.get('Content-Range')}")
        length = answer.headers.get("Content-Length", "")
        left = int(length) if length.isdecimal() else None
        total = file.size if left is None else offset + left
        chunks = answer.iter_raw()
        first = next(chunks, b"")
        if not offset:
            _check_beginning(answer, first, file)
        if file.size not in (None, total):
            raise DownloadError(
                f"{file.url} has {total:,} bytes, the published {file.name} has {file.size:,}: not the same file; "
                f"download it from {RELEASE} by hand, or use another --mirror"
            )
        # Nothing was overwritten so far: a login page does not cost what is already downloaded.
        if not offset:
            part.unlink(missing_ok=True)
            validator = answer.headers.get("ETag", "W/")
            validator = answer.headers.get("Last-Modified") if validator.startswith("W/") else validator
            write_json(_note(part), {"url": file.url, "validator": validator})
        bar = tqdm(
            desc=file.name, initial=offset, total=total, unit="B", unit_scale=True, unit_divisor=1024, disable=None
        )
        with part.open("ab") as out, bar:
            for chunk in itertools.chain([first], chunks):
                if total is not None and out.tell() + len(chunk) > total:  # it could fill the disk
                    out.truncate(offset)  # nothing from such a server is kept
                    raise _TemporaryError(f"the server sends more than the {total:,} bytes of the file")
                out.write(chunk)
                out.flush()  # a kill loses nothing that has arrived
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise _TemporaryError(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _range_to_ask(file: RemoteFile, part: Path) -> tuple[int, dict[str, str]]:
    """The byte to resume from, and the headers for it: with If-Range, a server sends a changed file from its start."""
    offset, note = _size(part), _note(part)
    if not offset:
        return 0, {}
    known = read_record(note)
    validator = known.get("validator") if known.get("url") == file.url else None
    if not (isinstance(validator, str) and validator.isascii() and validator.isprintable()):  # a damaged note
        validator = None
    if validator is None and file.checksum is None:  # nothing could show that both halves are from one file
        return 0, {}
    return offset, {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})


def _check_status(answer: httpx2.Response, file: RemoteFile, part: Path) -> None:
    status = answer.status_code
    if status in (200, 206):
        return
    if status == 416:
        part.unlink(missing_ok=True)
        raise _TemporaryError("the server's file is shorter than what was downloaded; starting again")
    if status in (408, 429) or status >= 500:
        seconds = answer.headers.get("Retry-After", "")
        raise _TemporaryError(f"HTTP status {status}", wait=float(seconds) if seconds.isdecimal() else 0.0)
    raise DownloadError(
        f"{file.url} answers with HTTP status {status}; the link may have changed: download {file.name} from "
        f"{RELEASE} by hand, or use another --mirror"
    )


def _check_beginning(answer: httpx2.Response, first: bytes, file: RemoteFile) -> None:
    is_page = answer.headers.get("Content-Type", "").startswith("text/html") or first.lstrip()[:1] == b"<"
    if is_page or (file.is_archive and not GZIP_SIGNATURE.startswith(first[:2])):
        what = "a web page" if is_page else "a different kind of file"
        raise DownloadError(
            f"{file.url} sends {what} instead of {file.name}: it may need a login, or the link has changed; open it "
            f"in a browser, or download the file from {RELEASE} by hand"
        )


__all__ = ["NIH_FILES", "DownloadError", "RemoteFile", "download_nih", "unpack"]
