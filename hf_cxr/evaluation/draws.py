"""Draws of patients: what every interval of this package is made of, and the intervals.

Images of one patient are not independent, so patients are drawn with replacement, never images; a patient that is
drawn twice counts twice with all their images. An image's weight is the number of times its patient was drawn.

    draws = PatientDraws.of(predictions.patient_ids, resamples=10_000, seed=0)
    hits_R, cells_R = draws.sums(draws.per_patient(hits_N), draws.per_patient(cells_N))
    low, high = percentile_interval(hits_R / cells_R, 0.95)

A mean, a share, or a mean over a subset is a ratio of two sums over images. The sums are taken once for each patient;
a draw is then one product of a row of weights and a matrix, whatever the number of images. What is no ratio of sums
takes its weights from `PatientDraws.blocks`.

All figures of one report are measured in the same draws, so differences between two of them are paired.

N = images, M = patients, R = resamples (draws), X = any further axes.

Refused: a missing patient id, fewer than two patients, fewer than two draws.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals; Field and Welsh, Journal
of the Royal Statistical Society B 69 (2007), resampling whole clusters; Efron, Journal of the American Statistical
Association 82 (1987), bias-corrected and accelerated (BCa) intervals.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.special import ndtr, ndtri  # the functions of scipy.stats.norm, without its second of imports

from hf_cxr.evaluation.checks import Array, check_probabilities
from hf_cxr.evaluation.engine import Engine
from hf_cxr.labels import LabelSpace

CELLS_AT_ONCE = 2**19
"""Weights of images at a time: 4 MiB, small enough for the processor's cache, which is what makes this quick."""

RESAMPLES, CONFIDENCE = 10_000, 0.95
"""By default: 10,000 draws put a 95 % limit within about 0.03 standard deviations of where more would put it."""

JACKKNIFE_GROUPS = 400
"""At most as many groups of patients are left out in turn for BCa; more change the acceleration by about 0.002."""

Interval = Literal["percentile", "bca"]
"""How an interval is made of the draws."""

INTERVAL: Interval = "percentile"
"""By default."""

INTERVALS: tuple[str, ...] = get_args(Interval)


def check_resamples(resamples: int) -> None:
    """Refuse fewer than two draws."""
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2; got {resamples}")


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is not in (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence}")


@dataclass(frozen=True)
class Intervals:
    """How the intervals of a set of figures are drawn.

    Attributes:
        resamples: draws of patients, at least 2.
        confidence: coverage, in (0, 1).
        seed: of the draws.
        kind: "percentile" or "bca" (bias-corrected and accelerated), of the metrics' intervals; those of differences
            and of all other analyses are percentile intervals.
    """

    resamples: int = RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = 0
    kind: Interval = INTERVAL

    def __post_init__(self) -> None:
        check_resamples(self.resamples)
        check_confidence(self.confidence)
        if self.kind not in INTERVALS:
            raise ValueError(f"the kind of intervals is {self.kind!r}; choose from {', '.join(INTERVALS)}")

    def draws(self, patient_ids: Sequence[Any]) -> "PatientDraws":
        """Draws of the patients of some images; see `PatientDraws.of`."""
        return PatientDraws.of(patient_ids, resamples=self.resamples, seed=self.seed)


DEFAULT_INTERVALS = Intervals()


@dataclass(frozen=True, eq=False)
class PatientDraws:
    """How often each patient was drawn, in each of R draws; the same draws at each iteration.

    The draws depend on the seed and the set of patients, not on the order of the images.

    Attributes:
        patient_N: the number of each image's patient, 0 to n_patients - 1, int64.
        n_patients: M.
        resamples: R.
        seed: of the draws.
    """

    patient_N: NDArray[np.int64]
    n_patients: int
    resamples: int
    seed: int | Sequence[int]

    def __post_init__(self) -> None:
        check_resamples(self.resamples)

    @classmethod
    def of(
        cls, patient_ids: Sequence[Any], *, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
    ) -> "PatientDraws":
        """From the patient id of each image.

        Raises:
            ValueError: an id is missing, there are fewer than two patients, or fewer than two draws.
        """
        patient_N, n_patients = number_patients(patient_ids, len(patient_ids))
        return cls(patient_N, n_patients, resamples, seed)

    def blocks(self, at_once: int | None = None) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """The draws, some at a time: which of the R, and how often each patient was drawn, (r, M) int64.

        Args:
            at_once: how many; the draws do not depend on it.
        """
        rng = np.random.default_rng(self.seed)
        return draw_blocks(self.patient_N, self.n_patients, self.resamples, rng, at_once=at_once)

    def per_image(self, weight_RM: NDArray[np.int64]) -> NDArray[np.int64]:
        """The weight of each image, (r, N)."""
        return np.take(weight_RM, self.patient_N, axis=1)

    def per_patient(self, value_NX: ArrayLike) -> Array:
        """The sum of an image's value over each patient's images, (M, X) float64, see `patient_sums`."""
        return patient_sums(value_NX, self.patient_N, self.n_patients)

    def sums(self, *sum_MX: Array) -> list[Array]:
        """Each of several arrays of sums per patient (M, X), under each draw: (R, X) float64. One pass."""
        out = [np.empty((self.resamples, *one_MX.shape[1:])) for one_MX in sum_MX]
        for rows, weight_RM in self.blocks():
            weight_RM = weight_RM.astype(np.float64)
            for draw_RX, one_MX in zip(out, sum_MX, strict=True):
                draw_RX[rows] = (weight_RM @ one_MX.reshape(len(one_MX), -1)).reshape(-1, *one_MX.shape[1:])
        return out

    def counts(self, bin_NC: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
        """How many images fall into each bin under each draw, (R, C, bins) int64.

        Quicker than `sums` of one column for each bin.

        Args:
            bin_NC: 0 to bins - 1, or -1 for an image that counts nowhere.
            bins: how many.
        """
        columns = [(self.patient_N[bin_N >= 0], bin_N[bin_N >= 0]) for bin_N in bin_NC.T]
        engine = Engine.choose(sum(len(bin_K) for _, bin_K in columns), self.resamples)
        count_RCV = np.empty((self.resamples, len(columns), bins), dtype=np.int64)

        def fill(rows: slice, weight_RM: NDArray[np.int64]) -> None:
            count_RCV[rows] = engine.counts(weight_RM, columns, bins)

        engine.each(fill, self.blocks(engine.at_once(len(self.patient_N), self.resamples)))
        return count_RCV


def patient_sums(value_NX: ArrayLike, patient_N: NDArray[np.int64], n_patients: int) -> Array:
    """The sum over each patient's images, (M, X) float64; a patient without an image here has sum 0.

    Args:
        value_NX: of each image; X is any shape.
        patient_N: the number of each image's patient, 0 to M - 1.
        n_patients: M.

    >>> patient_sums([1, 2, 4], np.array([0, 2, 2]), 3).tolist()
    [1.0, 0.0, 6.0]
    """
    value_NX = np.asarray(value_NX, dtype=np.float64)
    place = (patient_N, np.arange(len(patient_N)))
    of_patient_MN = csr_array((np.ones(len(patient_N)), place), shape=(n_patients, len(patient_N)))
    columns = value_NX.reshape(len(value_NX), int(np.prod(value_NX.shape[1:])))
    return (of_patient_MN @ columns).reshape(n_patients, *value_NX.shape[1:])


def draw_blocks(
    patient_N: NDArray[np.int64],
    n_patients: int,
    resamples: int,
    rng: np.random.Generator,
    *,
    at_once: int | None = None,
) -> Iterator[tuple[slice, NDArray[np.int64]]]:
    """As `PatientDraws.blocks`, from a random generator; the draws do not depend on how many are made ``at_once``."""
    if at_once is None:
        at_once = max(1, min(resamples, CELLS_AT_ONCE // max(1, len(patient_N))))
    for start in range(0, resamples, at_once):
        rows = slice(start, min(start + at_once, resamples))
        draws = [rng.integers(n_patients, size=n_patients) for _ in range(rows.start, rows.stop)]
        yield rows, np.stack([np.bincount(draw_M, minlength=n_patients) for draw_M in draws])


def left_out_blocks(patient_N: NDArray[np.int64], n_patients: int) -> Iterator[NDArray[np.int64]]:
    """The weights of the patients with each group of them left out in turn, (r, M) int64; for BCa.

    Each patient is a group, up to `JACKKNIFE_GROUPS`; of more patients, groups of equal size, formed at random.
    """
    groups = min(n_patients, JACKKNIFE_GROUPS)
    group_M = np.random.default_rng(0).permutation(n_patients) % groups
    at_once = max(1, min(groups, CELLS_AT_ONCE // max(1, len(patient_N))))
    for start in range(0, groups, at_once):
        left_out = np.arange(start, min(start + at_once, groups))
        yield (group_M[None, :] != left_out[:, None]).astype(np.int64)


def check_measured(
    score_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    label_names: Sequence[str],
    confidence: float,
    check: Callable[[ArrayLike, ArrayLike], tuple[Array, Array]] = check_probabilities,
) -> tuple[Array, Array, LabelSpace]:
    """What every ``measure_...`` function refuses: see `checks`, a confidence, and lengths that differ.

    Args:
        check: `check_scores` where any finite number is a score.

    Returns:
        Scores and labels, (N, C) float64, and the C names.
    """
    check_confidence(confidence)
    score_NC, label_NC = check(score_NC, label_NC)
    names = LabelSpace(label_names)
    if (len(draws.patient_N), len(names)) != score_NC.shape:
        raise ValueError(
            f"scores have shape {score_NC.shape}; expected {len(draws.patient_N)} images of the draws and "
            f"{len(names)} findings"
        )
    return score_NC, label_NC, names


def number_patients(patient_ids_N: Sequence[Any], n_images: int) -> tuple[NDArray[np.int64], int]:
    """Number every patient, in sorted order, so that the draws do not depend on the order of the rows.

    Returns:
        The number of each image's patient, and how many patients there are.
    """
    # tolist() turns numpy scalars into plain ones, which hash and compare alike.
    ids = np.asarray(patient_ids_N, dtype=object).tolist()
    if len(ids) != n_images:
        raise ValueError(f"{len(ids)} patient ids for {n_images} images")
    missing = [row for row, patient in enumerate(ids) if _is_missing(patient)]
    if missing:
        raise ValueError(
            f"{len(missing)} images have no patient id, the first at row {missing[0]}; "
            "intervals need every image's patient: give each image of an unknown patient a separate id"
        )
    number = {patient: code for code, patient in enumerate(sorted(set(ids), key=str))}
    if len(number) < 2:
        raise ValueError(f"intervals need at least two patients; got {len(number)}")
    return np.array([number[patient] for patient in ids], dtype=np.int64), len(number)


def _is_missing(patient: Any) -> bool:
    if patient is None or (isinstance(patient, str) and not patient):
        return True
    try:
        return bool(patient != patient)  # NaN and NaT are unequal to themselves
    except TypeError:  # pandas.NA: its comparisons have no truth value
        return True


def percentile_interval(draw_RX: Array, confidence: float) -> tuple[Array, Array]:
    """The percentile interval over the draws that are defined, low and high, each (X,); NaN where none is."""
    level_2 = [(1 - confidence) / 2, (1 + confidence) / 2]
    flat_XR = np.array(draw_RX.reshape(len(draw_RX), -1).T, order="C")  # a copy, which is sorted in part
    defined_X = (~np.isnan(flat_XR)).sum(axis=1)
    end_2X = np.full((2, len(flat_XR)), np.nan)
    complete_X = defined_X == len(draw_RX)
    for column in np.flatnonzero(~complete_X & (defined_X > 0)):
        draw_R = flat_XR[column]
        end_2X[:, column] = np.quantile(draw_R[~np.isnan(draw_R)], level_2)
    if complete_X.any():
        complete_XR = flat_XR if complete_X.all() else flat_XR[complete_X]
        end_2X[:, complete_X] = np.quantile(complete_XR, level_2, axis=1, overwrite_input=True)
    low_X, high_X = end_2X.reshape(2, *draw_RX.shape[1:])
    return low_X, high_X


def bca_interval(value_C: Array, draw_RC: Array, left_out_GC: Array, confidence: float) -> tuple[Array, Array]:
    """The bias-corrected and accelerated interval over the draws that are defined, low and high, each (C,).

    Unlike percentiles it stays in place when a metric's draws lie on one side of its value, or are skewed, as the AUC
    of a rare finding near 1 is. Draws equal to the value count one half on either side.

    Args:
        value_C: on the full sample.
        draw_RC: in each draw.
        left_out_GC: with each group of patients left out in turn, from the weights of `left_out_blocks`.
        confidence: in (0, 1).

    Returns:
        NaN where no draw is defined, and where every draw lies on one side of the value.

    Source: Efron (1987), equations 2.3 and 6.6 (the acceleration by the jackknife).
    """
    low_C, high_C = np.full((2, len(value_C)), np.nan)
    normal_2 = ndtri([(1 - confidence) / 2, (1 + confidence) / 2])
    for column, value in enumerate(value_C):
        draw_R = draw_RC[~np.isnan(draw_RC[:, column]), column]
        below = ((draw_R < value).sum() + (draw_R <= value).sum()) / (2 * max(1, len(draw_R)))
        if not 0 < below < 1:
            continue
        bias = ndtri(below)
        left_out_G = left_out_GC[~np.isnan(left_out_GC[:, column]), column]
        influence_G = left_out_G.mean() - left_out_G if len(left_out_G) else np.zeros(1)
        spread = (influence_G**2).sum() ** 1.5
        acceleration = (influence_G**3).sum() / (6 * spread) if spread > 0 else 0.0
        moved_2 = bias + normal_2
        low_C[column], high_C[column] = np.quantile(draw_R, ndtr(bias + moved_2 / (1 - acceleration * moved_2)))
    return low_C, high_C


def two_sided_p(draw_RC: Array) -> Array:
    """Twice the smaller share of draws on either side of zero, (C,); NaN where no draw is defined.

    Draws at zero count for both sides, and one is added to numerator and denominator: never below 2 / (R + 1).
    """
    defined_C = (~np.isnan(draw_RC)).sum(axis=0)
    smaller_C = np.minimum((draw_RC <= 0).sum(axis=0), (draw_RC >= 0).sum(axis=0))
    return np.where(defined_C > 0, np.minimum(1.0, 2 * (smaller_C + 1) / (defined_C + 1)), np.nan)
