"""The same radiograph twice: byte for byte, or decoded, resized, compressed or brightened again.

A perceptual hash is 1,024 bits: the signs of the discrete cosine transform of the image, shrunk to 128 x 128 by area,
at vertical and horizontal frequencies 1 to 32 (frequency 0, where all chest radiographs agree, is left out). The first
256 bits are frequencies 1 to 16. Two images are near-identical if at most `NEAR_COARSE` of those and at most `NEAR` of
all bits differ. These few lines and not the package imagehash: its phash keeps frequency 0, and needs PyWavelets.

All chest radiographs look alike, so the limits were measured, on 2,774 images of ChestX-ray14 at 256 pixels, 48 of
them also as released at 1,024. Bits that differ, of the first 256 and of all 1,024:

| pair                                          | median    | 99 %     | extreme       | found |
|-----------------------------------------------|-----------|----------|---------------|-------|
| different patients, 3.8 million pairs         | 123 / 507 |          | min 54 / 342  | none  |
| same patient, another radiograph, 1,862 pairs | 122 / 505 |          | min 38 / 285  | none  |
| native 1,024 against 256 pixels, five filters | 3 / 22    |          | max 10 / 57   | all   |
| JPEG of quality 90, 75, 30                    | 4 / 34    | 11 / 72  | max 16 / 90   | all   |
| brightness, contrast up or down by a tenth    | 8 / 39    | 26 / 91  | max 37 / 124  | all   |
| 2 % cropped away, resized                     | 28 / 195  | 47 / 267 | max 58 / 323  | 95 %  |
| 4 % cropped away, resized                     | 45 / 307  | 69 / 402 | max 85 / 520  | 2 %   |
| left and right exchanged                      | 128 / 512 |          |               | none  |

(Where a row has several kinds, the worst.) The common hash of 64 bits is no use here: 2 bits differ between different
patients, up to 12 after a crop of 2 %. The release has 1,600 times as many pairs, which have not been compared: by the
fall of the distances' tail, some hundreds of them pass the first limit by chance, and few if any both. One true
duplicate was found: 00002658_001.png and 00002658_002.png, byte for byte one image under two follow-up numbers of one
patient.
Synthetic phantoms share their anatomy: 24 of 382,000 pairs of different ones were near.

Refuses: images that are not 8-bit grey, hashes of another length.

N = images, M = distinct (split, hash), W = 64-bit words of a hash.
"""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from PIL import Image
from scipy.fft import dctn
from tqdm.auto import tqdm

from hf_cxr.data.images.grey import ImageError, read_grey, resize_grey
from hf_cxr.data.near_hashes import BITS, visit_near
from hf_cxr.data.splits import read_column
from hf_cxr.words import plural

SIDE = 128  # pixels; the image is shrunk to SIDE x SIDE
FREQUENCIES, COARSE = 32, 16  # of which the first bits are those below COARSE
_HEX = re.compile(f"[0-9a-fA-F]{{{BITS // 4}}}")


@dataclass(frozen=True)
class Duplicate:
    """An image and an earlier one that it repeats: earlier in the order of the splits, then of the rows.

    Args:
        split, image_id: the image.
        other_split, other_image_id: the earlier one. Of several, a byte-identical one, else the nearest.
        kind: "identical" if the files have the same bytes, else "near".
        distance: bits of the perceptual hash that differ, 0 to 240.
    """

    split: str
    image_id: str
    other_split: str
    other_image_id: str
    kind: Literal["identical", "near"]
    distance: int

    def __str__(self) -> str:
        how = "is byte for byte" if self.kind == "identical" else f"is, but for {self.distance} of {BITS} bits,"
        return f"{self.image_id} ({self.split}) {how} {self.other_image_id} ({self.other_split})"


def perceptual_hash(image_HW: np.ndarray) -> str:
    """Hash a radiograph so that what looks the same differs in few bits; see the top of this module.

    Args:
        image_HW: (H, W) uint8 grey, of any size and shape; 2 ms at 1,024 x 1,024, less below.

    Returns:
        256 hexadecimal digits. An image of one grey value is all zeros.

    Raises:
        ValueError: not a 2-d uint8 array with pixels.

    >>> image = np.add.outer(np.arange(200), np.arange(200)).astype(np.uint8)
    >>> len(perceptual_hash(image)), perceptual_hash(image) == perceptual_hash(image // 2 + 9)
    (256, True)
    """
    if image_HW.ndim != 2 or image_HW.dtype != np.uint8 or not image_HW.size:
        raise ValueError(f"perceptual_hash takes (H, W) uint8; got {image_HW.shape} {image_HW.dtype}")
    small = resize_grey(image_HW, SIDE, int(Image.Resampling.BOX))
    frequency = dctn(small.astype(np.float64), norm="ortho")[1 : FREQUENCIES + 1, 1 : FREQUENCIES + 1]
    positive = frequency > 1e-6  # not 0: rounding gives a blank image coefficients of 1e-13
    is_fine = np.ones_like(positive)
    is_fine[:COARSE, :COARSE] = False
    return np.packbits(np.concatenate([positive[~is_fine], positive[is_fine]])).tobytes().hex()


def hash_images(splits: Mapping[str, datasets.Dataset]) -> dict[str, dict[str, list[str]]]:
    """Read every image of every split and hash file and pixels, with a progress bar.

    Args:
        splits: in the columns of `hf_cxr.data.schema`, with the image column.

    Returns:
        For each split the columns ``image_id``, ``file_sha256`` and ``perceptual_hash``, for `find_duplicates`.

    Raises:
        ValueError: some images can't be read; the message has their number and the first five with the reason.
    """
    hashed, unreadable = {}, []
    with ThreadPoolExecutor() as pool, tqdm(total=sum(map(len, splits.values())), desc="Hashing", unit="file") as bar:
        for name, split in splits.items():
            rows = split.select_columns(["image", "image_id"]).cast_column("image", datasets.Image(decode=False))
            columns = {"image_id": list(split["image_id"][:]), "file_sha256": [], "perceptual_hash": []}
            # Rows are read in the threads: map takes all of its arguments at once, and an image may be inside its row.
            results = pool.map(partial(_hash_row, rows), range(len(rows)))
            try:
                for result in results:
                    bar.update()
                    if isinstance(result, ImageError):
                        unreadable.append(result)
                        continue
                    columns["file_sha256"].append(result[0])
                    columns["perceptual_hash"].append(result[1])
            except BaseException:  # Ctrl-C does not wait for all the files that are left
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            hashed[name] = columns
    if unreadable:
        raise ValueError(
            f"{plural(len(unreadable), 'image file')} cannot be read: "
            + "; ".join(f"{error.name}: {error.reason}" for error in unreadable[:5])
            + ". Fetch them again, or remove them and continue with --missing_images skip"
        )
    return hashed


def find_duplicates(splits: Mapping[str, Any]) -> list[Duplicate]:
    """Find the images that repeat an earlier one, of their own split or of another.

    An image is named once for its own split and once for the other splits, however many it repeats, so that the
    answer is never longer than twice the rows. Not every pair is compared: see `near_hashes.py`.

    Args:
        splits: split name to something with the columns ``image_id``, ``file_sha256`` and ``perceptual_hash`` (a
            `datasets.Dataset`, a data frame, a dict of lists).

    Returns:
        Those across splits first, in the order of the rows.

    Raises:
        ValueError: a missing column or cell, or hashes that are not 256 hexadecimal digits.

    Measured in CPU time on one core, with hashes as alike as those of radiographs: see `docs/performance.md`.
    """
    names, rows = list(splits), _read(splits)
    if not rows.ids:
        return []
    node_N, first_M, words_MW = _nodes(rows)
    nearest = _nearest_earlier(words_MW, rows.split_N[first_M])
    first_with: dict[str, dict[int, int]] = {}  # file digest to the first row of each split that has it
    duplicates = []
    for row, (digest, split, node) in enumerate(
        zip(rows.digests, rows.split_N.tolist(), node_N.tolist(), strict=True)
    ):
        earlier = first_with.setdefault(digest, {})
        for across in (True, False):
            identical = [other for other_split, other in earlier.items() if (other_split != split) == across]
            distance, other = nearest[across][node]
            if identical:
                kind, distance, other = "identical", 0, identical[0]
            elif not across and row != first_M[node]:
                kind, distance, other = "near", 0, first_M[node]
            elif other >= 0:
                kind, other = "near", first_M[other]
            else:
                continue
            duplicates.append(
                Duplicate(
                    names[split], rows.ids[row], names[rows.split_N[other]], rows.ids[other], kind, int(distance)
                )
            )
        earlier.setdefault(split, row)
    return sorted(duplicates, key=lambda duplicate: duplicate.split == duplicate.other_split)


def check_no_duplicates(splits: Mapping[str, Any]) -> dict[str, int]:
    """Refuse splits that share a byte- or near-identical image.

    Args:
        splits: as for `find_duplicates`.

    Returns:
        For each split, how many images repeat an earlier one of the same split.

    Raises:
        ValueError: two splits share an image: how many, and the first five pairs; otherwise as `find_duplicates`.
    """
    duplicates = find_duplicates(splits)
    across = [duplicate for duplicate in duplicates if duplicate.split != duplicate.other_split]
    if across:
        raise ValueError(
            f"{plural(len(across), 'image is', 'images are')} also in another split: "
            f"{'; '.join(map(str, across[:5]))}. Figures from such splits are inflated: put "
            "both in one split, or leave one out"
        )
    within = [duplicate.split for duplicate in duplicates]
    return {name: within.count(name) for name in splits}


@dataclass(frozen=True)
class _Rows:
    """The columns of all splits, one after another."""

    ids: list[str]
    digests: list[str]
    hashes: list[str]
    split_N: np.ndarray


def _read(splits: Mapping[str, Any]) -> _Rows:
    ids, digests, hashes, split_N = [], [], [], []
    for number, (name, split) in enumerate(splits.items()):
        columns = [read_column(split, column, name) for column in ("image_id", "file_sha256", "perceptual_hash")]
        if len({*map(len, columns)}) > 1:
            raise ValueError(
                f"the columns of split {name!r} differ in length: {', '.join(map(str, map(len, columns)))}"
            )
        for values, column in zip((ids, digests, hashes), columns, strict=True):
            values.extend(column)
        split_N += [number] * len(columns[0])
        for image, text in zip(*columns[::2], strict=True):
            if not _HEX.fullmatch(text):
                raise ValueError(
                    f"perceptual_hash of {image} in {name!r} is not {BITS // 4} hexadecimal digits: {text[:20]!r}; "
                    "prepare the data set again"
                )
    return _Rows(ids, digests, hashes, np.array(split_N, dtype=np.int64))


def _nodes(rows: _Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's node, a distinct (split, hash), by split; each node's first row; its hash as (M, W) words."""
    bytes_NB = np.frombuffer(bytes.fromhex("".join(rows.hashes)), dtype=np.uint8).reshape(len(rows.ids), -1)
    split_NB = (
        rows.split_N.astype(">u8").view(np.uint8).reshape(len(rows.ids), -1)
    )  # big-endian: it sorts as it counts
    key_N = np.concatenate([split_NB, bytes_NB], axis=1)
    key_N = key_N.view(f"S{key_N.shape[1]}")[:, 0]
    _, first_M, node_N = np.unique(key_N, return_index=True, return_inverse=True)
    order_M = np.argsort(first_M)  # as the rows are, so that an earlier node is an earlier row
    first_M = first_M[order_M]
    return np.argsort(order_M)[node_N], first_M, np.ascontiguousarray(bytes_NB[first_M]).view(np.uint64)


def _nearest_earlier(words_MW: np.ndarray, split_M: np.ndarray) -> dict[bool, list[tuple[int, int]]]:
    """For each node the (distance, node) of the nearest earlier one that is near, (0, -1) if none is.

    Returns:
        Under True among the nodes of other splits, under False among those of the same.
    """
    nodes = len(words_MW)
    none = np.iinfo(np.int64).max
    best = {across: np.full(nodes, none) for across in (True, False)}  # distance * nodes + node: the least is nearest

    def note(i: np.ndarray, j: np.ndarray, distance: np.ndarray) -> None:
        for across, least_M in best.items():
            wanted = (split_M[i] != split_M[j]) == across
            np.minimum.at(least_M, j[wanted], distance[wanted] * nodes + i[wanted])

    visit_near(words_MW, note)
    return {
        across: [(0, -1) if key == none else divmod(key, nodes) for key in least_M.tolist()]
        for across, least_M in best.items()
    }


def _hash_row(rows: datasets.Dataset, number: int) -> tuple[str, str] | ImageError:
    row = rows[number]
    image = row["image"]
    name = image["path"] or row["image_id"]
    try:
        content = Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
        return hashlib.sha256(content).hexdigest(), perceptual_hash(read_grey(content, name=name))
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError(name, f"{type(error).__name__}: {error}")
