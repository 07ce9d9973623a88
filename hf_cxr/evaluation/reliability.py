"""Reliability curves: of the images with a predicted probability of about p, is the finding present in a share p?

The known cells of a finding, sorted by probability, are cut into bins of the same number of images, as for the
expected calibration error: bins of equal width would put nearly every image of a rare finding into the first. The bins
are those of the full sample in every draw of patients: an interval says how well the share of positives in one fixed
group of images is known, and not that other data would have cut the bins elsewhere. Equal probabilities share a bin,
that of their middle rank, so there may be fewer bins than asked for. A bin's interval: `estimates.share_interval`.

Next to the curve:

| quantity               | definition                                                | of a calibrated model   |
|------------------------|-----------------------------------------------------------|-------------------------|
| difference             | mean probability minus prevalence                         | 0                       |
| expected_over_observed | mean probability divided by prevalence                    | 1                       |
| intercept              | a in P(present) = sigmoid(logit(p) + a)                   | 0                       |
| slope                  | b in P(present) = sigmoid(b logit(p) + a)                 | 1; below: too extreme   |

Source: Cox, Biometrika 45 (1958); Van Calster et al., Journal of Clinical Epidemiology 74 (2016). Intercept and slope
are not fitted again in each draw: one Newton step with the draw's weights is taken from the fit on the full sample
(Moulton and Zeger, Computational Statistics and Data Analysis 11, 1991), which costs one product of matrices.

N = images, C = findings, K = known cells of one finding, B = bins, M = patients, R = draws.

Refused: see `checks`; another number of patients than of images. Undefined, and named in ``reasons``: everything of a
finding without known cells; slope and intercept where the known cells hold one label only; the slope where the
probabilities are constant or separate the labels completely. For slope and intercept alone, probabilities are kept
1e-15 away from 0 and 1, where the logit is infinite.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured, patient_sums
from hf_cxr.evaluation.estimates import Estimate, Estimates, ratio, share_interval
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

LEAST_PROBABILITY = 1e-15
SUMMARY = ("mean_probability", "prevalence", "difference", "expected_over_observed", "intercept", "slope")


@dataclass(frozen=True, eq=False)
class ReliabilityCurve:
    """One finding, or all of them pooled.

    Attributes:
        mean_probability_B: mean predicted probability of each bin, rising.
        observed_B: share of positives in each bin, with its interval.
        images_B, positives_B, patients_B: counts in each bin, int64. Pooled, an image counts once for each finding.
        summary: an `Estimate` for each name in ``SUMMARY``; NaN where undefined.
        reasons: why a quantity is undefined, by its name.
    """

    mean_probability_B: Array
    observed_B: Estimates
    images_B: NDArray[np.int64]
    positives_B: NDArray[np.int64]
    patients_B: NDArray[np.int64]
    summary: dict[str, Estimate]
    reasons: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: a list of bins, and the summary."""
        return {
            "bins": [
                {
                    "mean_probability": float(self.mean_probability_B[number]),
                    "observed": self.observed_B.at(number).to_dict(),
                    "images": int(self.images_B[number]),
                    "positives": int(self.positives_B[number]),
                    "patients": int(self.patients_B[number]),
                }
                for number in range(len(self.images_B))
            ],
            **{name: estimate.to_dict() for name, estimate in self.summary.items()},
            "undefined": self.reasons,
        }


@dataclass(frozen=True, eq=False)
class Reliability:
    """The reliability curve of each finding, and of all cells pooled (micro).

    Attributes:
        label_names: C findings.
        curves: of each finding.
        pooled: of all known cells of all findings as if they were one finding.
        bins: asked for.
        confidence, resamples: of the intervals.
    """

    label_names: LabelSpace
    curves: tuple[ReliabilityCurve, ...]
    pooled: ReliabilityCurve
    bins: int
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the curves by finding, the pooled one, and how they were made."""
        curves = zip(self.label_names, self.curves, strict=True)
        return plain(
            {
                "bins": self.bins,
                "confidence": self.confidence,
                "resamples": self.resamples,
                "findings": {name: curve.to_dict() for name, curve in curves},
                "pooled": self.pooled.to_dict(),
            }
        )


@dataclass(frozen=True, eq=False)
class _Cells:
    """The known cells of one curve with their bins and the fits on the full sample."""

    prob_K: Array
    positive_K: Array
    patient_K: NDArray[np.int64]
    bin_K: NDArray[np.int64]
    n_bins: int
    intercept: float
    line: tuple[float, float]  # intercept and slope of the logistic model with both
    reasons: dict[str, str]


def measure_reliability(
    prob_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    *,
    label_names: Sequence[str],
    bins: int = 10,
    confidence: float = CONFIDENCE,
) -> Reliability:
    """Reliability curves with patient-clustered intervals.

    Args:
        prob_NC: in [0, 1].
        label_NC: 1, 0 or NaN.
        draws: of the patients of the N images.
        label_names: C findings.
        bins: of each finding, at least 1; pooled there are twice as many.
        confidence: of the intervals, in (0, 1).

    Raises:
        ValueError: see the module's first lines.
    """
    prob_NC, label_NC, names = check_measured(prob_NC, label_NC, draws, label_names, confidence)
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    patient_NC = np.broadcast_to(draws.patient_N[:, None], prob_NC.shape)
    columns = [*zip(prob_NC.T, label_NC.T, patient_NC.T, [bins] * len(names), strict=True)]
    columns.append((prob_NC.ravel(), label_NC.ravel(), patient_NC.ravel(), 2 * bins))
    cells = [_cells(*column) for column in columns]
    drawn = draws.sums(*(_sums(one, draws.n_patients) for one in cells))
    *curves, pooled = (_curve(one, draw_RX, confidence) for one, draw_RX in zip(cells, drawn, strict=True))
    return Reliability(names, tuple(curves), pooled, bins, confidence, draws.resamples)


def equal_mass_bins(score_K: ArrayLike, bins: int) -> NDArray[np.int64]:
    """The bin of each score, (K,) int64, numbered from 0 without gaps, with the same number of scores in each.

    Equal scores share a bin, that of their middle rank.

    >>> equal_mass_bins([0.1, 0.2, 0.3, 0.4], 2).tolist(), equal_mass_bins([0.5, 0.5, 0.5, 0.9], 2).tolist()
    ([0, 0, 1, 1], [0, 0, 0, 1])
    """
    _, group_K, count_G = np.unique(np.asarray(score_K), return_inverse=True, return_counts=True)
    middle_G = np.cumsum(count_G) - count_G / 2
    bin_G = (bins * middle_G / max(len(group_K), 1)).astype(np.int64)
    return np.unique(bin_G, return_inverse=True)[1][group_K]


def _cells(prob_N: Array, label_N: Array, patient_N: NDArray[np.int64], bins: int) -> _Cells:
    known_N = ~np.isnan(label_N)
    prob_K, positive_K = prob_N[known_N], label_N[known_N]
    bin_K = equal_mass_bins(prob_K, bins)
    z_K = logit(np.clip(prob_K, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    intercept, line, reasons = _fits(z_K, positive_K)
    n_bins = int(bin_K.max()) + 1 if len(bin_K) else 0
    return _Cells(prob_K, positive_K, patient_N[known_N], bin_K, n_bins, intercept, line, reasons)


def _fits(z_K: Array, positive_K: Array) -> tuple[float, tuple[float, float], dict[str, str]]:
    """Intercept alone, intercept and slope, and what is undefined."""
    nan = float("nan")
    if not len(z_K):
        return nan, (nan, nan), dict.fromkeys(SUMMARY, "no known label")
    if len(np.unique(positive_K)) < 2:
        reason = f"every known label is {positive_K[0]:g}"
        reasons = dict.fromkeys(("intercept", "slope"), reason)
        return nan, (nan, nan), reasons | ({"expected_over_observed": reason} if not positive_K[0] else {})
    share = positive_K.mean()
    level = logit(share)
    low, high = level - z_K.max() - 1, level - z_K.min() + 1
    intercept = float(brentq(lambda a: expit(z_K + a).mean() - share, low, high, xtol=1e-12, rtol=1e-14))
    present_K, absent_K = z_K[positive_K == 1], z_K[positive_K == 0]
    if np.ptp(z_K) == 0:
        return intercept, (nan, nan), {"slope": "the probability is constant"}
    if absent_K.max() <= present_K.min() or present_K.max() <= absent_K.min():
        return intercept, (nan, nan), {"slope": "the probabilities separate the labels completely"}
    from sklearn.linear_model import LogisticRegression  # here, because it takes longer to import than this package

    centre, scale = z_K.mean(), z_K.std()
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)  # C: no penalty
    fit.fit(((z_K - centre) / scale)[:, None], positive_K)
    slope = float(fit.coef_[0, 0]) / scale
    return intercept, (float(fit.intercept_[0]) - slope * centre, slope), {}


def _sums(cells: _Cells, n_patients: int) -> Array:
    """What a curve needs of each patient, (M, 2 B + 10)."""
    z_K = logit(np.clip(cells.prob_K, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    moved_K = expit(z_K + cells.intercept)
    line_K = expit(cells.line[0] + cells.line[1] * z_K)
    error_K, weight_K = cells.positive_K - line_K, line_K * (1 - line_K)
    per_cell = (
        *(cells.prob_K, cells.positive_K, np.ones_like(z_K)),
        *(cells.positive_K - moved_K, moved_K * (1 - moved_K)),
        *(error_K, error_K * z_K, weight_K, weight_K * z_K, weight_K * z_K**2),
    )
    slot_K = cells.patient_K * cells.n_bins + cells.bin_K
    binned = [
        np.bincount(slot_K, weights=value_K, minlength=n_patients * cells.n_bins).reshape(n_patients, cells.n_bins)
        for value_K in (cells.positive_K, np.ones_like(z_K))
    ]
    return np.hstack([*binned, patient_sums(np.stack(per_cell, axis=1), cells.patient_K, n_patients)])


def _curve(cells: _Cells, draw_RX: Array, confidence: float) -> ReliabilityCurve:
    n_bins = cells.n_bins
    counts_B = [np.bincount(cells.bin_K, weights=value_K, minlength=n_bins) for value_K in (cells.positive_K, None)]
    patients_B = np.array(
        [len(np.unique(cells.patient_K[cells.bin_K == number])) for number in range(n_bins)], dtype=np.int64
    )
    share_RB = ratio(draw_RX[:, :n_bins], draw_RX[:, n_bins : 2 * n_bins])
    observed_B = share_interval(
        ratio(*counts_B), share_RB, images_X=counts_B[1], patients_X=patients_B, confidence=confidence
    )
    prob_R, positive_R, known_R, *newton = draw_RX[:, 2 * n_bins :].T
    one_label_R = (positive_R == 0) | (positive_R == known_R)
    intercept_R, slope_R = _one_step(cells, newton)
    mean, share = (ratio(value_K.sum(), len(value_K)) for value_K in (cells.prob_K, cells.positive_K))
    mean_R, share_R = ratio(prob_R, known_R), ratio(positive_R, known_R)
    values = {
        "mean_probability": (mean, mean_R),
        "difference": (mean - share, mean_R - share_R),
        "expected_over_observed": (ratio(mean, share), ratio(mean_R, share_R)),
        "intercept": (cells.intercept, np.where(one_label_R, np.nan, intercept_R)),
        "slope": (cells.line[1], np.where(one_label_R, np.nan, slope_R)),
    }
    summary = {
        name: Estimates.of([value], draw_R[:, None], confidence).at(0) for name, (value, draw_R) in values.items()
    }
    sizes = {"images_X": [len(cells.prob_K)], "patients_X": [len(np.unique(cells.patient_K))]}
    summary["prevalence"] = share_interval([share], share_R[:, None], **sizes, confidence=confidence).at(0)
    return ReliabilityCurve(
        mean_probability_B=ratio(np.bincount(cells.bin_K, weights=cells.prob_K, minlength=n_bins), counts_B[1]),
        observed_B=observed_B,
        images_B=counts_B[1].astype(np.int64),
        positives_B=counts_B[0].astype(np.int64),
        patients_B=patients_B,
        summary={name: summary[name] for name in SUMMARY},
        reasons=cells.reasons,
    )


def _one_step(cells: _Cells, newton: Sequence[Array]) -> tuple[Array, Array]:
    """Intercept alone and slope in each draw, (R,): one Newton step with the draw's weights from the full sample's."""
    gradient_R, curvature_R, error_R, error_z_R, weight_R, weight_z_R, weight_zz_R = newton
    intercept_R = cells.intercept + ratio(gradient_R, curvature_R)
    step_R = ratio(weight_R * error_z_R - weight_z_R * error_R, weight_R * weight_zz_R - weight_z_R**2)
    return intercept_R, cells.line[1] + step_R
