"""Images of one file found in another: by the whole id, by the end of its path, by file name, with or without suffix.

One rule holds for all images of a file: the most specific one by which the most images are found. A name that stands
for two images is refused and not resolved by luck.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_cxr.data.ids import similar_pairs

SUFFIX = re.compile(r"\.(png|jpe?g|dcm|dicom|tiff?|bmp|webp|gif|jp2|npy)$", re.IGNORECASE)
DEPTH = 6  # folders of a path that are compared at most


@dataclass(frozen=True)
class MatchedIds:
    """Which row of the second file each row of the first is.

    Attributes:
        rows_N: (N,) int64, the row in the second file, -1 for none.
        rule: in words, what of the ids was compared.
    """

    rows_N: NDArray[np.int64]
    rule: str


def match_ids(ids: Sequence[str], known: Sequence[str], *, names: tuple[str, str]) -> MatchedIds:
    """Find the images of one file in another.

    Args:
        ids: N unique ids.
        known: unique ids of the other file.
        names: of both files, for the message.

    Raises:
        ValueError: no image is found; or, by the rule that finds the most, a name stands for two images.

    >>> found = match_ids(["a/1.png", "a/2.png"], ["2", "1"], names=("scores", "labels"))
    >>> found.rows_N.tolist(), found.rule
    ([1, 0], 'file name without suffix')
    """
    best: tuple[int, str, list[str], list[str]] | None = None
    for rule, key in _rules():
        mine, theirs = [key(one) for one in ids], [key(one) for one in known]
        there = set(theirs)
        found = sum(one in there for one in mine)
        if best is None or found > best[0]:
            best = found, rule, mine, theirs
        if found == len(ids):
            break
    found, rule, mine, theirs = best
    if not found:
        raise ValueError(
            f"no image of {names[0]} ({len(ids):,} ids, such as {ids[0]}) is in {names[1]} ({len(known):,} ids, such "
            f"as {known[0]}){_hint(ids, known)}; use the same file names in both"
        )
    for name, keys, whole, others in ((names[0], mine, ids, theirs), (names[1], theirs, known, mine)):
        counts, wanted = Counter(keys), set(others)
        ambiguous = next((one for one in keys if counts[one] > 1 and one in wanted), None)
        if ambiguous is not None:
            same = [one for one, short in zip(whole, keys, strict=True) if short == ambiguous][:2]
            raise ValueError(
                f"{' and '.join(same)} of {name} are both {ambiguous!r} by {rule}, so the images of {names[0]} and "
                f"{names[1]} cannot be matched; write the same ids in both files"
            )
    row = {one: number for number, one in enumerate(theirs)}
    return MatchedIds(np.array([row.get(one, -1) for one in mine], dtype=np.int64), rule)


def unmatched(ids: Sequence[str], known: Sequence[str], most: int = 3) -> str:
    """Examples of ids that were not found, and what they may be."""
    return f"such as {', '.join(ids[:most])}{_hint(ids, known)}"


def _rules() -> list[tuple[str, Callable[[str], str]]]:
    paths = [
        (f"the last {depth} parts of the path", functools.partial(_end, depth=depth)) for depth in range(DEPTH, 1, -1)
    ]
    return [
        ("the whole id", str),
        *paths,
        ("file name", functools.partial(_end, depth=1)),
        ("file name without suffix", lambda one: SUFFIX.sub("", _end(one, depth=1))),
    ]


def _end(path: str, depth: int) -> str:
    return "/".join(path.replace("\\", "/").rsplit("/", depth)[-depth:])


def _hint(ids: Sequence[str], known: Sequence[str]) -> str:
    alike = similar_pairs(ids, known)
    if not alike:
        return ""
    return (
        f"; {len(alike):,} differ only in leading zeros, capital letters or the like, such as {' and '.join(alike[0])}"
    )
