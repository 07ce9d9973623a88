"""Splits that share no patient: cutting off one split, cutting several, checking them, and their fingerprint.

Refuses: patients or images shared by two splits, rows without a patient, more sides than patients. Ids are compared by
the rule of `ids.py`.

N = images, P = patients, C = findings, K = C + 1 (the findings, and "no finding"), S = distinct patient sizes.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from hf_cxr.data.ids import are_canonical, canonical_id, similar_ids
from hf_cxr.words import plural

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 100_000  # of the text that is hashed


def patient_split(
    label_NC: np.ndarray,
    patient_ids_N: Sequence[str],
    *,
    fraction: float | None = None,
    count: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Choose validation patients so that every finding keeps its prevalence and the number of images is exact.

    Iterative stratification (Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011) with
    patients in the place of examples: the finding with the fewest images left is dealt out first, each of its
    patients to the side that lacks the larger share of its quota. A few patients then move, those that do the
    stratification least harm, until the number of images is met. The result depends on the set of
    (patient, labels) rows and on the seed alone: not on row order, process, or a library's random stream.

    Args:
        label_NC: 1 present, 0 absent, NaN unknown. Only 1 counts: unknown is not positive, and not negative either.
        patient_ids_N: the patient of each row, as a string; all rows of a patient go to one side.
        fraction: share of the images to choose, above 0 and below 1; the target is round(fraction * N).
        count: the number of images to choose, from 1 to N - 1. Give this or ``fraction``, not both.
        seed: another seed, another choice of patients.

    Returns:
        N booleans, True for validation. It has exactly the wanted number of images if any set of whole patients
        has; otherwise the nearest number that one has, the lower of two, and a warning is logged.

    Raises:
        ValueError: shapes that do not match, a row without a patient, fewer than two patients, a size out of range.

    >>> labels = np.array([[1], [1], [0], [0], [1], [0]])
    >>> patient_split(labels, ["a", "a", "b", "c", "d", "e"], count=2, seed=0).sum()
    np.int64(2)
    """
    groups = _group(label_NC, patient_ids_N)
    chosen_P = _choose(groups, _target_size(int(groups.size_P.sum()), fraction, count), seed)
    return chosen_P[groups.patient_N]


def patient_fractions(
    label_NC: np.ndarray,
    patient_ids_N: Sequence[str],
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
) -> np.ndarray:
    """Deal the rows to several named splits at once, by patient, stratified on findings.

    Cut in two as `patient_split` does, and each side again. Within a finding, patients with many images of it are
    dealt first here, and one with more than a small side's whole quota goes to the other.

    Args:
        label_NC: as for `patient_split`.
        patient_ids_N: as for `patient_split`.
        fractions: split name to its share of the images, each above 0, together 1.
        seed: another seed, another choice of patients.

    Returns:
        N names. Each split has the size nearest to its share that whole patients allow; a warning is logged where
        that is not the share itself, rounded.

    Raises:
        ValueError: shares that are not above 0 or do not sum to 1; patients too few, or too unequal for a row in each
            split; otherwise as for `patient_split`.

    >>> labels = np.array([[1], [1], [0], [0], [1], [0]])
    >>> sides = patient_fractions(labels, list("abcdef"), {"train": 0.5, "validation": 1 / 6, "test": 1 / 3})
    >>> [int((sides == name).sum()) for name in ("train", "validation", "test")]
    [3, 1, 2]
    """
    shares = list(fractions.values())
    if len(shares) < 2 or not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6):  # written so that NaN fails too
        raise ValueError(f"fractions must be two or more above 0 that sum to 1; got {dict(fractions)}")
    groups = _group(label_NC, patient_ids_N)
    names = sorted(fractions, key=lambda name: fractions[name])
    part_P = _deal(groups, [fractions[name] for name in names], seed)
    return np.array(names)[part_P[groups.patient_N]]


def patient_folds(label_NC: np.ndarray, patient_ids_N: Sequence[str], *, folds: int, seed: int = 0) -> np.ndarray:
    """Number each row's fold, so that no patient is in two and every finding is spread evenly.

    Dealt as by `patient_fractions`, in equal shares. On the tables of ChestX-ray14 (112,120 images of 30,805 patients,
    5 folds, seed 0) every fold has 22,424 images, and a finding's prevalence in a fold is off its prevalence in all by
    at most 0.3 %, of Hernia (227 images) 1.3 %, in 1 s. For comparison: iterative-stratification's
    MultilabelStratifiedKFold on patients' label unions, which knows no patient sizes, up to 18 %; scikit-learn's
    StratifiedGroupKFold, which knows no multi-labels, up to 17 % on label sets and 3.8 % on the rarest finding.

    Args:
        label_NC: as for `patient_split`.
        patient_ids_N: as for `patient_split`.
        folds: from 2 to the number of patients.
        seed: another seed, other folds.

    Returns:
        N integers from 0 to folds - 1, in folds of equal size as far as whole patients allow; a warning is logged
        where they do not.

    Raises:
        ValueError: fewer than 2 folds or more than patients, or patients that are too unequal for a row in each fold;
            otherwise as for `patient_split`.

    >>> sorted(patient_folds(np.array([[1], [1], [0], [0]]), ["a", "b", "c", "d"], folds=2).tolist())
    [0, 0, 1, 1]
    """
    groups = _group(label_NC, patient_ids_N)
    patients = len(groups.patients)
    if not 2 <= folds <= patients:
        raise ValueError(f"folds is {folds}; it must be from 2 to the number of patients, {patients}")
    if folds == patients:
        return np.argsort(_shuffled(groups.patients, seed))[groups.patient_N]
    return _deal(groups, [1 / folds] * folds, seed)[groups.patient_N]


@dataclass(frozen=True)
class _Groups:
    """The rows as patients: names, the patient of each row, images in each group, images."""

    patients: np.ndarray
    patient_N: np.ndarray
    count_PK: np.ndarray
    size_P: np.ndarray

    def take(self, chosen: np.ndarray) -> "_Groups":
        """Some of the patients; the rows are left out."""
        return _Groups(self.patients[chosen], np.empty(0, int), self.count_PK[chosen], self.size_P[chosen])


def _group(label_NC: np.ndarray, patient_ids_N: Sequence[str]) -> _Groups:
    label_NC = np.asarray(label_NC)
    ids = _present_ids(patient_ids_N, "patient_id", "the rows to split")
    if label_NC.ndim != 2 or len(label_NC) != len(ids):
        raise ValueError(f"labels of shape {label_NC.shape} for {len(ids)} patient ids; expected ({len(ids)}, C)")
    patients, patient_N = np.unique(ids, return_inverse=True)
    if len(patients) < 2:
        raise ValueError(
            f"a split by patient needs at least two patients; got {len(patients)} in {plural(len(ids), 'row')}"
        )
    positive_NC = label_NC == 1
    group_NK = np.concatenate([positive_NC, ~positive_NC.any(axis=1, keepdims=True)], axis=1)
    count_PK = np.stack([np.bincount(patient_N, weights=group_N) for group_N in group_NK.T], axis=1)
    return _Groups(patients, patient_N, count_PK, np.bincount(patient_N))


def _deal(groups: _Groups, shares: Sequence[float], seed: int) -> np.ndarray:
    """(P,) the part of each patient, from 0: cut in two between the shares in the middle, then each side again."""
    part_P = np.zeros(len(groups.patients), dtype=np.int64)
    if len(shares) == 1:
        return part_P
    if len(part_P) < len(shares):
        sizes = ", ".join(map(str, np.sort(groups.size_P)[::-1][:5]))
        raise ValueError(
            f"{plural(len(part_P), 'patient')}, the largest with {sizes} images: too few for {len(shares)} parts; "
            "ask for fewer parts"
        )
    rows, middle = int(groups.size_P.sum()), len(shares) // 2
    target = round(sum(shares[:middle]) / sum(shares) * rows)
    chosen_P = _choose(groups, min(max(target, 1), rows - 1), seed, largest_first=True)
    part_P[chosen_P] = _deal(groups.take(chosen_P), shares[:middle], seed)
    part_P[~chosen_P] = middle + _deal(groups.take(~chosen_P), shares[middle:], seed)
    return part_P


def _choose(groups: _Groups, target: int, seed: int, *, largest_first: bool = False) -> np.ndarray:
    """P booleans: stratified patients with ``target`` images, or the nearest number."""
    quota_K = target / groups.size_P.sum() * groups.count_PK.sum(axis=0)
    order_P = _shuffled(groups.patients, seed)
    chosen_P = _stratify(groups.count_PK, quota_K, order_P, largest_first)
    _meet_size(chosen_P, groups.size_P, groups.count_PK, quota_K, order_P, target)
    return chosen_P


def _target_size(rows: int, fraction: float | None, count: int | None) -> int:
    if (fraction is None) == (count is None):
        raise ValueError("give either fraction or count")
    target = round(fraction * rows) if count is None else int(count)
    if not 0 < target < rows:
        raise ValueError(
            f"fraction={fraction}, count={count} asks for {target} of {rows} images; at least 1 must be on each side"
        )
    return target


def _shuffled(patients: np.ndarray, seed: int) -> np.ndarray:
    """Patient numbers in an order that a hash of (seed, id) gives: the same everywhere, whatever the row order."""
    keys = [hashlib.sha256(f"{seed}:{patient}".encode()).digest() for patient in patients]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def _stratify(count_PK: np.ndarray, quota_K: np.ndarray, order_P: np.ndarray, largest_first: bool) -> np.ndarray:
    """P booleans: the chosen patients, their images per group near ``quota_K``."""
    share_K = np.stack([quota_K, count_PK.sum(axis=0) - quota_K])  # row 0: chosen, row 1: the rest
    share_K = np.where(share_K > 0, share_K, 1.0)
    lack_K = share_K.copy()
    chosen_P = np.zeros(len(count_PK), dtype=bool)
    free_P = np.ones(len(count_PK), dtype=bool)
    # Every image is in at least one group, so once no group has images left, no patient is free.
    while free_P.any():
        left_K = count_PK[free_P].sum(axis=0)
        group = np.argmin(np.where(left_K > 0, left_K, np.inf))
        patients = order_P[(free_P & (count_PK[:, group] > 0))[order_P]]
        if largest_first:
            patients = patients[np.argsort(-count_PK[patients, group], kind="stable")]
        for patient in patients:
            side = int(lack_K[0, group] / share_K[0, group] <= lack_K[1, group] / share_K[1, group])
            if largest_first and count_PK[patient, group] > share_K[0, group]:
                side = 1  # more than the whole quota: it waits for a larger part
            chosen_P[patient] = side == 0
            lack_K[side] -= count_PK[patient]
        free_P &= count_PK[:, group] == 0
    return chosen_P


def _meet_size(chosen_P, size_P, count_PK, quota_K, order_P, target: int) -> None:
    """Move patients between the sides, in place, until the chosen ones have ``target`` images, or nearly."""
    size_S, available_S = np.unique(size_P, return_counts=True)
    current_S = np.array([(chosen_P & (size_P == size)).sum() for size in size_S])
    wanted_S = _nearest_sizes(size_S, available_S, current_S, target)
    scale_K = np.where(quota_K > 0, quota_K, 1.0)
    error_K = (count_PK[chosen_P].sum(axis=0) - quota_K) / scale_K
    for size, surplus in zip(size_S, wanted_S - current_S, strict=True):
        for _ in range(abs(surplus)):
            candidates = order_P[((size_P == size) & (chosen_P == (surplus < 0)))[order_P]]
            error_MK = error_K + np.sign(surplus) * count_PK[candidates] / scale_K
            best = np.argmin((error_MK**2).sum(axis=1))
            error_K = error_MK[best]
            chosen_P[candidates[best]] = surplus > 0
    reached = size_P[chosen_P].sum()
    if reached != target:
        logger.warning("no set of whole patients has exactly %d images; took the nearest, %d", target, reached)


def _nearest_sizes(size_S, available_S, current_S, target: int) -> np.ndarray:
    """How many patients of each size to choose: images sum to ``target``, or the nearest sum that patients have.

    A bounded subset sum. Bit b of ``reachable[s]`` says that b images can be made of the s smallest sizes. Going
    back from the largest size, each keeps its current number if the smaller ones can make up the rest, so that
    what has to move is mostly patients with few images.
    """
    reachable = [1]
    for size, available in zip(size_S.tolist(), available_S.tolist(), strict=True):
        sums, step = reachable[-1], 1
        while available > 0:
            step = min(step, available)
            sums |= sums << (step * size)
            available, step = available - step, 2 * step
        reachable.append(sums)
    total = int((size_S * available_S).sum())
    rest = next(number for number in _outward(target, 1, total - 1) if reachable[-1] >> number & 1)
    wanted_S = np.zeros_like(current_S)
    for s in reversed(range(len(size_S))):
        size = int(size_S[s])
        fits = (
            number
            for number in _outward(int(current_S[s]), 0, int(available_S[s]))
            if rest >= number * size and reachable[s] >> (rest - number * size) & 1
        )
        wanted_S[s] = next(fits)
        rest -= int(wanted_S[s]) * size
    return wanted_S


def _outward(start: int, low: int, high: int) -> Iterator[int]:
    """The integers from ``low`` to ``high``, nearest to ``start`` first, the lower of two first."""
    for distance in range(high - low + abs(start - low) + 1):
        for number in dict.fromkeys((start - distance, start + distance)):
            if low <= number <= high:
                yield number


def check_patients_disjoint(splits: Mapping[str, Any]) -> None:
    """Refuse splits that share a patient or an image; of ids that are merely alike, see `near_shared_patients`.

    Args:
        splits: a `datasets.DatasetDict`, or any mapping of split name to something with the columns
            ``patient_id`` and ``image_id`` (a data frame, a dict of lists).

    Raises:
        ValueError: two splits share patients or images (which two, how many, examples), or a row has no patient
            or no image id.
    """
    problems = []
    for column, noun in (("patient_id", "patient"), ("image_id", "image")):
        values = {name: set(read_column(split, column, name)) for name, split in splits.items()}
        for first, second in combinations(values, 2):
            shared = sorted(values[first] & values[second])
            if shared:
                problems.append(
                    f"{first} and {second} share {plural(len(shared), noun)}, such as {', '.join(shared[:3])}"
                )
    if problems:
        raise ValueError(
            "; ".join(problems)
            + ". Figures from such splits are inflated: split the images by patient, with hf-cxr split --out"
        )


def near_shared_patients(splits: Mapping[str, Any], *, examples: int = 3) -> list[str]:
    """Evidence against the claim that no patient is in two splits: ids that differ only in their spelling.

    00001003 and 1003 may be two patients, but more likely are one whose zeros a spreadsheet removed. A report that
    calls the splits disjoint must repeat these sentences.

    Args:
        splits: as for `check_patients_disjoint`.
        examples: how many pairs of ids a sentence shows; 0 for what is published.

    Returns:
        A sentence for every two splits with such ids, with number and examples (`ids.similar_ids`); mostly none.
    """
    return _near_shared(splits, "patient_id", "patient", examples)


def near_shared_images(splits: Mapping[str, Any]) -> list[str]:
    """The same for image ids."""
    return _near_shared(splits, "image_id", "image", 3)


def warn_of_near_shared(splits: Mapping[str, Any]) -> None:
    """Log a warning, in one line, if two splits have patient or image ids that differ only in their spelling."""
    for column, noun in (("patient_id", "patient"), ("image_id", "image")):
        sentences = _near_shared(splits, column, noun, 3)
        if sentences:
            logger.warning(
                "%s. If they are the same %ss, figures are inflated: spell each %s the same way in all files",
                *("; ".join(sentences), noun, noun),
            )


def _near_shared(splits: Mapping[str, Any], column: str, noun: str, examples: int) -> list[str]:
    ids = {name: read_column(split, column, name) for name, split in splits.items()}
    return similar_ids(ids, noun, examples=examples)


def with_canonical_ids(splits: datasets.DatasetDict) -> datasets.DatasetDict:
    """The splits with every id in its one spelling, for data that were stored before they were read by that rule."""
    changed = {}
    for name, split in splits.items():
        for column in ("image_id", "patient_id"):
            ids = read_column(split, column, name)
            if ids != split[column][:]:
                order, feature = split.column_names, split.features[column]
                split = split.remove_columns(column).add_column(column, ids, feature=feature).select_columns(order)
        changed[name] = split
    return datasets.DatasetDict(changed)


def split_fingerprint(splits: Mapping[str, Any]) -> str:
    """The name of a split: SHA-256, 64 hexadecimal digits, over the sorted (split, image_id, patient_id) rows.

    Row order, columns other than these, and the pixels do not matter; which image is in which split does.

    Args:
        splits: as for `check_patients_disjoint`.

    Raises:
        ValueError: a row has no patient or no image id.
    """
    digest = hashlib.sha256(b"[")
    separator = b""
    for name in sorted(splits):
        rows = [
            pa.array(read_column(splits[name], column, name), pa.string()) for column in ("image_id", "patient_id")
        ]
        for text in _json_rows(json.dumps(name), *rows):
            digest.update(separator + text)
            separator = b", "
    digest.update(b"]")
    return digest.hexdigest()


def _json_rows(name: str, image_N: pa.Array, patient_N: pa.Array) -> Iterator[bytes]:
    """The sorted rows of a split as ``json.dumps`` writes them in a list, some at a time, without the brackets."""
    if not pc.all(pc.less(image_N[:-1], image_N[1:])).as_py():
        order = pc.sort_indices(
            pa.table({"image": image_N, "patient": patient_N}),
            sort_keys=[("image", "ascending"), ("patient", "ascending")],
        )
        image_N, patient_N = image_N.take(order), patient_N.take(order)
    for start in range(0, len(image_N), ROWS_AT_ONCE):
        some = [ids[start : start + ROWS_AT_ONCE] for ids in (image_N, patient_N)]
        plain = all(pc.all(pc.match_substring_regex(ids, r"^[ !#-\[\]-~]*$")).as_py() for ids in some)
        if plain:
            images, patients = some
        else:
            images, patients = (pa.array([json.dumps(text)[1:-1] for text in ids.to_pylist()]) for ids in some)
        rows = pc.binary_join_element_wise(f'[{name}, "', images, '", "', patients, '"]', "")
        yield ", ".join(rows.to_pylist()).encode()


def read_column(split: Any, column: str, split_name: str) -> list[str]:
    """A column of ids in their one spelling, from a `datasets.Dataset` or anything with ``keys`` and ``[column]``.

    Raises:
        ValueError: the column is missing, or a cell is None, NaN or blank.
    """
    if isinstance(split, datasets.Dataset):
        names, read = split.column_names, lambda: split.select_columns([column]).with_format("arrow")[:][column]
    else:
        names, read = list(split.keys()), lambda: split[column]
    if column not in names:
        raise ValueError(f"split {split_name!r} has no column {column!r}; it has: {', '.join(map(str, names))}")
    return _present_ids(read(), column, split_name)


def _present_ids(values: Sequence[Any], column: str, where: str) -> list[str]:
    """The ids in their one spelling, none of them None, NaN or blank."""
    text_N = _as_text(values)
    if text_N is not None and are_canonical(text_N):
        return text_N.to_pylist()
    values = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    try:
        ids = [canonical_id(value) for value in values]
    except ValueError as error:
        raise ValueError(f"{column} of {where!r}: {error}; give ids as text or whole numbers") from error
    missing = [row for row, identifier in enumerate(ids) if not identifier]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(values)} rows of {where!r} have no {column}, such as row {missing[0]}; "
            "without it, a patient or image could be in two splits unnoticed: fill it in or drop these rows"
        )
    return ids


def _as_text(values: Any) -> pa.Array | pa.ChunkedArray | None:
    """A column that is text already, for Arrow; None for any other."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values if pa.types.is_string(values.type) else None
    if isinstance(values, pd.Series):
        is_text = isinstance(values.dtype, pd.StringDtype)
        return pa.array(values, pa.string(), from_pandas=True) if is_text else None
    if isinstance(values, list) and set(map(type, values)) == {str}:
        try:
            return pa.array(values, pa.string())
        except UnicodeEncodeError:  # half a character
            return None
    return None
