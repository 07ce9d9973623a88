"""Every image is checked before the first step, so that none is found unreadable after the last.

| check_images | what is read of a file that is not known yet            | found before the first step                |
|--------------|---------------------------------------------------------|--------------------------------------------|
| header       | its first and last bytes (`whole.py`); if these do not  | missing, empty, cut short, several frames, |
|              | show a whole image, all of it, decoded                  | another format, an impossible header       |
| full         | all of it, decoded                                      | the same, and damage between the ends      |

What is refused, and in which words, is always the decoder's own: the header check only spares the decoding of files
that look whole. A file with flipped bits between its ends passes it, and is named when it is first read in training,
validation or test; nothing that was trained is lost by that, see `run.preflight.image_errors_explained`.

`SoundFiles` remembers what was checked: an unchanged file costs one look at its size and time.

Several processes share the rows: each checks its part, and the caller puts the parts together.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_cxr.data.images.grey import ImageError, read_grey
from hf_cxr.data.images.sound_files import DARK, DECODED, HEADER, ROW, SoundFiles, state_of_bytes, states
from hf_cxr.data.images.waiting import FileLooks
from hf_cxr.data.images.whole import looks_whole

logger = logging.getLogger(__name__)

AT_ONCE = 4096  # rows whose paths and answers are in memory
DECODED_AT_ONCE = 64  # images of which the encoded bytes are in memory


@dataclass
class Inspection:
    """What the check found.

    Attributes:
        unreadable: by split, row number -> what is wrong.
        images: that were checked, or known from before.
        unused_bits: of these, DICOM images that come out far too dark; see `dicom.unused_bits`.
        sound: rows of what is new and sound, for `SoundFiles.add`.
    """

    unreadable: dict[str, dict[int, ImageError]] = field(default_factory=dict)
    images: int = 0
    unused_bits: int = 0
    sound: list[NDArray] = field(default_factory=list)

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
    full: bool = False,
    processes: int = 1,
    process: int = 0,
) -> Inspection:
    """Check this process's share of every split, but for what the memory holds.

    Splits of a prepared folder are passed over: their images were decoded when they were prepared.

    Args:
        splits: datasets of the schema; those without images are passed over.
        memory: of earlier inspections.
        full: decode every image that was not decoded before; by default, those alone that do not look whole.
        processes, process: how many share the rows, and which of them this is; only the first shows a bar.
    """
    memory = SoundFiles(None) if memory is None else memory
    found = Inspection()
    splits = {
        name: split
        for name, split in splits.items()
        if "image" in split.column_names and "perceptual_hash" not in split.column_names
    }
    shares = {name: _share(len(split), processes, process) for name, split in splits.items()}
    total = sum(map(len, shares.values()))
    bar = tqdm(total=total, desc="Checking images", disable=process > 0 or not total, unit="image")
    with FileLooks() as looks, ThreadPoolExecutor() as pool, bar:
        for name, split in splits.items():
            column = split.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))
            column = column.with_format("arrow")
            for start in range(shares[name].start, shares[name].stop, AT_ONCE):
                part = _Part(column[start : min(start + AT_ONCE, shares[name].stop)], looks, pool)
                part.inspect(memory, full=full)
                found.images += len(part.names)
                found.unused_bits += int(((part.flag_N & DARK) > 0).sum())
                found.sound += part.sound
                if part.errors:
                    found.unreadable.setdefault(name, {}).update({start + row: e for row, e in part.errors.items()})
                bar.update(len(part.names))
    return found


def _share(rows: int, processes: int, process: int) -> range:
    return range(rows * process // processes, rows * (process + 1) // processes)


class _Part:
    """Some rows of a split, N of them, and what is found out about them.

    Attributes:
        names: what an error calls them.
        flag_N: of `sound_files`, (N,); 0 for what is not known to be sound.
        errors: row -> what is wrong.
        sound: rows for the memory that it does not have.
    """

    def __init__(self, rows: pa.Table, looks: FileLooks, pool: ThreadPoolExecutor):
        # Chunks stay as they are: joining them would copy the images that are inside the rows.
        self.content_N, path_N = (pc.struct_field(rows["image"], part) for part in ("bytes", "path"))
        self.paths, ids = path_N.to_pylist(), rows["image_id"].to_pylist()
        self.names = [path or image_id for path, image_id in zip(self.paths, ids, strict=True)]
        self.looks, self.pool = looks, pool
        self.flag_N = np.zeros(len(self.paths), dtype=np.uint32)
        self.errors: dict[int, ImageError] = {}
        self.sound: list[NDArray] = []

    def inspect(self, memory: SoundFiles, *, full: bool) -> None:
        """Look at every row that the memory does not know, and decode where that does not suffice."""
        is_inside_N = np.asarray(self.content_N.is_valid())
        files, inside = np.flatnonzero(~is_inside_N), np.flatnonzero(is_inside_N)
        state_N = np.zeros(len(is_inside_N), dtype=ROW)
        # The states before the files are read, so that one that is written meanwhile is checked again.
        state_N[files] = states([self.paths[row] or "" for row in files], self.looks)
        self.flag_N[files] = memory.flags(state_N[files])
        enough = DECODED if full else HEADER | DECODED
        known_N = (self.flag_N & enough) > 0
        if not full:
            self._look(np.flatnonzero(~known_N))
        # An image inside its row is known by a digest of all its bytes: not computed where its ends suffice.
        unknown = inside[(self.flag_N[inside] & enough) == 0]
        for row in unknown:
            state_N[row] = state_of_bytes(self.content_N[row].as_buffer())
        self.flag_N[unknown] = memory.flags(state_N[unknown])
        known_N[unknown] = (self.flag_N[unknown] & enough) > 0
        self._decode(np.flatnonzero((self.flag_N & enough) == 0))
        is_new_N = ((self.flag_N & enough) > 0) & ~known_N & (state_N["size"] > 0)
        state_N["flags"] = self.flag_N
        if is_new_N.any():
            self.sound.append(state_N[is_new_N])

    def _look(self, rows: NDArray) -> None:
        sources = [(self._source(row), self.names[row]) for row in rows.tolist()]
        whole = np.array(self.looks.map(_looks_whole, sources), dtype=bool)
        self.flag_N[rows[whole]] |= HEADER

    def _decode(self, rows: NDArray) -> None:
        for start in range(0, len(rows), DECODED_AT_ONCE):
            some = rows[start : start + DECODED_AT_ONCE].tolist()
            sources = ((self._source(row), self.names[row]) for row in some)
            for row, (error, is_dark) in zip(some, self.pool.map(_decoding_error, sources), strict=True):
                if error is None:
                    self.flag_N[row] |= DECODED | HEADER | (DARK * is_dark)
                else:
                    self.errors[row] = error

    def _source(self, row: int) -> str | pa.Buffer | None:
        content = self.content_N[row]
        return content.as_buffer() if content.is_valid else self.paths[row]


def _looks_whole(source_and_name: tuple[str | pa.Buffer | None, str]) -> bool:
    source, name = source_and_name
    return source is not None and looks_whole(source, name=name)


def _decoding_error(source_and_name: tuple[str | pa.Buffer | None, str]) -> tuple[ImageError | None, bool]:
    """What is wrong with an image, and whether it comes out far too dark."""
    source, name = source_and_name
    remarks: list[str] = []
    try:
        read_grey(source.to_pybytes() if isinstance(source, pa.Buffer) else source, name=name, remarks=remarks)
    except ImageError as error:
        return error, False
    except MemoryError:
        return ImageError(name, "there is not enough memory to decode it"), False
    return None, bool(remarks)
