"""Every image is decoded once before the first step, so that none is found unreadable after the last.

A header, a length and a checksum tell less than the decoder does: a JPEG that is cut short has a sound header. One
decoding of everything, without the resize, is the price, and is paid once: `SoundFiles` remembers which files could
be read, by path, size and time of change, for all runs of this user. What could not be read is not remembered, because
a decoder may be installed or a disk mounted before the next try.

Several processes share the rows: each decodes its part, and the caller puts the parts together.
"""

import functools
import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import datasets
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hf_cxr.data.images.decoded import stored
from hf_cxr.data.images.grey import RULE, ImageError, read_grey
from hf_cxr.files import replacing

logger = logging.getLogger(__name__)

AT_ONCE = 64  # images of which the encoded bytes are in memory
DIGEST = 16  # bytes
MOST = 4_000_000  # digests in the memory: 64 MB on disk


@dataclass
class Inspection:
    """What decoding found.

    Attributes:
        unreadable: by split, row number -> what is wrong.
        images: that were decoded, or known from before.
        unused_bits: of these, DICOM images that come out far too dark; see `dicom.unused_bits`.
        sound: digests of what is new and could be read, for `SoundFiles.add`.
    """

    unreadable: dict[str, dict[int, ImageError]] = field(default_factory=dict)
    images: int = 0
    unused_bits: int = 0
    sound: list[bytes] = field(default_factory=list)

    def add(self, other: "Inspection") -> None:
        """Add another process's part."""
        for name, errors in other.unreadable.items():
            self.unreadable.setdefault(name, {}).update(errors)
        self.images += other.images
        self.unused_bits += other.unused_bits
        self.sound += other.sound

    @property
    def count(self) -> int:
        """How many images cannot be read."""
        return sum(map(len, self.unreadable.values()))

    def in_words(self, most: int = 5) -> str:
        """The number of unreadable images, and the first with path and reason; in the order of splits and rows."""
        errors = [errors[row] for errors in self.unreadable.values() for row in sorted(errors)]
        return f"{self.count:,} of {self.images:,} image files cannot be read: " + "; ".join(
            f"{error.name}: {error.reason}" for error in errors[:most]
        )

    def warn(self) -> None:
        """Log, once, what was read and may not be what was meant."""
        if self.unused_bits:
            warn_of_unused_bits(self.unused_bits, self.images)


def warn_of_unused_bits(count: int, images: int) -> None:
    """Log that DICOM images come out far too dark, with their number."""
    logger.warning(
        "%s of %s images come out at least four times too dark (MONOCHROME1: too bright): their BitsStored is more "
        "bits than their pixels use, and they have no window. They are read as stated. Correct BitsStored, or add "
        "WindowCenter and WindowWidth, if the detector's range is known",
        f"{count:,}",
        f"{images:,}",
    )


class SoundFiles:
    """The memory: digests of the images that could be read, in one file that any number of processes may share.

    A digest covers path, size, time of change, and the versions of what decodes. A memory that cannot be read or
    written costs time and nothing else.

    Args:
        path: of the file; None remembers nothing.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self._known = frozenset(self._read())

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._known

    def add(self, digests: Iterable[bytes]) -> None:
        """Write more digests, beside those that another process may have written since."""
        new = [digest for digest in dict.fromkeys(digests) if digest not in self._known]
        if self.path is None or not new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock", timeout=30):
                known = dict.fromkeys(self._read())
                with replacing(self.path) as beside:
                    beside.write_bytes(b"".join(list(known | dict.fromkeys(new))[-MOST:]))
        except (OSError, Timeout) as error:
            logger.info("could not save the list of images that were checked: %s", error)
            return
        self._known |= frozenset(new)

    def _read(self) -> Iterator[bytes]:
        try:
            content = self.path.read_bytes() if self.path else b""
        except OSError:
            content = b""
        if len(content) % DIGEST:  # not what `add` wrote
            content = b""
        yield from (content[start : start + DIGEST] for start in range(0, len(content), DIGEST))


def refusal(found: Inspection) -> str:
    """The error about images that cannot be read, and what to do."""
    return (
        f"{found.in_words()}. Fetch them again, or leave them out, counted, with --unreadable_images skip (or remove "
        "them and use --missing_images skip)"
    )


def inspect_images(
    splits: Mapping[str, datasets.Dataset],
    memory: SoundFiles | None = None,
    *,
    processes: int = 1,
    process: int = 0,
) -> Inspection:
    """Decode this process's share of every split, but for what the memory holds.

    Splits of a prepared folder are passed over: their images were decoded when they were prepared.

    Args:
        splits: datasets of the schema; those without images are passed over.
        memory: of earlier inspections.
        processes, process: how many share the rows, and which of them this is; only the first shows a bar.
    """
    memory = memory or SoundFiles(None)
    found = Inspection()
    splits = {
        name: split
        for name, split in splits.items()
        if "image" in split.column_names and "perceptual_hash" not in split.column_names
    }
    shares = {name: _share(len(split), processes, process) for name, split in splits.items()}
    total = sum(map(len, shares.values()))
    bar = tqdm(total=total, desc="Checking images", disable=process > 0 or not total, unit="image")
    with ThreadPoolExecutor() as pool, bar:
        for name, split in splits.items():
            column = split.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))
            for start in range(shares[name].start, shares[name].stop, AT_ONCE):
                rows = range(start, min(start + AT_ONCE, shares[name].stop))
                part = column[rows.start : rows.stop]
                answers = pool.map(_inspect, part["image"], part["image_id"], itertools.repeat(memory))
                for row, (error, is_dark, digests) in zip(rows, answers, strict=True):
                    found.images += 1
                    found.unused_bits += is_dark
                    found.sound += digests
                    if error is not None:
                        found.unreadable.setdefault(name, {})[row] = error
                bar.update(len(rows))
    return found


def _share(rows: int, processes: int, process: int) -> range:
    return range(rows * process // processes, rows * (process + 1) // processes)


def _inspect(image: Mapping, image_id: str, memory: SoundFiles) -> tuple[ImageError | None, bool, list[bytes]]:
    """What is wrong with an image, whether it comes out far too dark, and the digests that are new."""
    source, name = stored(image), image["path"] or image_id
    digest = _digest(source)
    if digest in memory:
        return None, _marked(digest) in memory, []
    remarks: list[str] = []
    try:
        read_grey(source, name=name, remarks=remarks)
    except ImageError as error:
        return error, False, []
    except MemoryError:
        return ImageError(name, "there is not enough memory to decode it"), False, []
    # The state before the decoding, so that a file that is written meanwhile is decoded again.
    digests = [digest, _marked(digest)] if remarks else [digest]
    return None, bool(remarks), digests if digest else []


def _digest(source: bytes | str | None) -> bytes:
    """How the memory identifies an image; empty if the file cannot be read, which decoding will explain."""
    if isinstance(source, bytes):
        state: tuple = ("bytes", hashlib.blake2b(source).hexdigest())
    else:
        try:
            status = os.stat(source)
        except (OSError, TypeError, ValueError):
            return b""
        state = (os.path.realpath(source), status.st_size, status.st_mtime_ns)
    text = repr((*state, RULE, _versions())).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=DIGEST).digest()


def _marked(digest: bytes) -> bytes:
    """The digest of the remark that an image comes out far too dark."""
    return hashlib.blake2b(digest, digest_size=DIGEST, person=b"unused bits").digest()


@functools.cache
def _versions() -> tuple[str, ...]:
    return tuple(_version(name) for name in ("hf-cxr", "pillow", "pydicom"))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
