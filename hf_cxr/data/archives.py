"""Unpack an archive of the release: all of its images or no folder, and nothing outside that folder.

Refuses: a damaged archive, a path outside the folder, links, devices, an image twice, files that are not PNG files,
more bytes than the images can have. Python's `extractall(filter="data")` keeps links and does not see the last three,
so members are written one by one; its filter is called for each.
"""

import gzip
import logging
import os
import re
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from hf_cxr.data.ids import NIH_ID
from hf_cxr.data.sources.nih import RELEASE
from hf_cxr.files import PNG_SIGNATURE, read_json, write_json
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

LARGEST_IMAGE = 64 * 2**20  # bytes; the release's images are near 0.4 MB
IMAGE_MEMBER = re.compile(r"(?:\./)?images/(" + NIH_ID + r"\.png)")
MARKER = ".done"


class DownloadError(RuntimeError):
    """A download that failed, or whose content is wrong; the message says what to do."""


def read_record(path: Path) -> dict:
    """A small JSON file of ours; empty if it is missing or damaged."""
    try:
        return read_json(path, repair="download again")
    except (OSError, ValueError):
        return {}


def unpack(archive: str | os.PathLike, root: str | os.PathLike, folder: str | None = None) -> int:
    """Unpack the images of one of the release's archives to ``root/folder/images``: all of them, or no folder at all.

    Only regular PNG files with names such as images/00000001_000.png are written, under that name. Files with other
    names are skipped with a warning.

    Args:
        archive: a tar.gz file.
        root: where the folder will be.
        folder: its name; by default the archive's, images_001 for images_001.tar.gz.

    Returns:
        The number of images.

    Raises:
        DownloadError: the archive is damaged, or contains a path outside the folder, a link, a device, an image
            twice, no image, or more bytes than images can have.
    """
    archive, root = Path(archive), Path(root)
    folder = archive.name.removesuffix(".tar.gz") if folder is None else folder
    beside = unpacking_folder(root, folder)
    if beside.exists():
        shutil.rmtree(beside)  # from a run that was killed
    (beside / "images").mkdir(parents=True)
    try:
        count = _write_images(archive, beside)
        write_json(beside / MARKER, {"archive": f"{folder}.tar.gz", "images": count})
        if hasattr(os, "sync"):
            os.sync()  # the images are on the disk before the folder has its name; a sync of each takes an hour
        beside.rename(root / folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(
            f"{archive} cannot be unpacked: {error}. No image was kept; delete the file and run again, or download it "
            f"from {RELEASE} by hand"
        ) from error
    finally:
        if beside.exists():
            shutil.rmtree(beside)
    return count


def unpacking_folder(root: Path, folder: str) -> Path:
    """Where an archive is unpacked until it is complete."""
    return root / f".{folder}.unpacking"


def _write_images(archive: Path, beside: Path) -> int:
    """Write the images of an archive to ``beside``; returns their number."""
    count, skipped, room = 0, [], 4 * archive.stat().st_size + LARGEST_IMAGE
    bar = tqdm(desc=f"unpacking {archive.name}", total=archive.stat().st_size, unit="B", unit_scale=True, disable=None)
    with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode="r:gz") as tar, bar:
        for member in tar:
            bar.update(packed.tell() - bar.n)
            _check_member(member, beside)
            if member.isdir():
                continue
            match = IMAGE_MEMBER.fullmatch(member.name)
            if match is None:
                skipped.append(member.name)
                continue
            room -= member.size
            if member.size > LARGEST_IMAGE or room < 0:
                raise tarfile.TarError(f"with {member.name} it is larger than the release's images can be")
            _write_image(tar.extractfile(member), beside / "images" / match[1])
            count += 1
    if skipped:
        logger.warning("%s: %s skipped, such as %s", archive, plural(len(skipped), "file"), ", ".join(skipped[:3]))
    if not count:
        raise tarfile.TarError("it has no file such as images/00000001_000.png")
    return count


def _check_member(member: tarfile.TarInfo, beside: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise tarfile.TarError(f"{member.name} is a path outside the folder")
    if not (member.isreg() or member.isdir()):
        raise tarfile.TarError(f"{member.name} is a link or a device; the release has only regular files")
    if hasattr(tarfile, "data_filter"):  # Python's own check, from 3.11.4 on
        tarfile.data_filter(member, str(beside))


def _write_image(content, path: Path) -> None:
    beginning = content.read(len(PNG_SIGNATURE))
    if beginning != PNG_SIGNATURE:
        raise tarfile.TarError(f"{path.name} is not a PNG file")
    try:
        with path.open("xb") as out:
            out.write(beginning)
            shutil.copyfileobj(content, out)
    except FileExistsError:
        raise tarfile.TarError(f"it contains {path.name} twice") from None
