"""Per-finding calibration: an affine map of the logit, fitted on validation and never on test.

    calibrated logit = slope_C * logit + intercept_C,    slope_C > 0

A positive slope keeps the order of the images, so AUC and average precision stay what they were. An affine map can be
folded exactly into the classifier's last layer, so a calibrated model needs no code of its own.

N = images, C = findings, D = input features of the last layer, K = known cells of one finding.

Refused: logits that are not finite, labels other than 0, 1 or NaN, shapes that differ. Never refused: a finding with
few positives, none, or no known cell. It gets a weaker map, and `Calibration.exceptions` says which and why.

Source: Platt, "Probabilistic outputs for support vector machines", 1999, with its smoothed targets, which make the
logistic regression of scikit-learn finite without a penalty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from hf_cxr.evaluation.metrics import Array, check_scores

Method = Literal["affine", "intercept", "identity"]

LEAST_SLOPE = 1e-3
"""Calibrated logits per standard deviation of the logit. A flatter fit counts as no slope at all: with an
intercept added in float32, it would round different scores to the same one."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The fitted map of each finding.

    Attributes:
        slope_C: float64, > 0.
        intercept_C: float64.
        method_C: "affine" (both fitted), "intercept" (slope 1) or "identity" (slope 1, intercept 0).
        names: the findings, in order.
        reason_C: why a finding does not have the affine map; empty where it does.
    """

    slope_C: Array
    intercept_C: Array
    method_C: tuple[Method, ...]
    names: tuple[str, ...]
    reason_C: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope_C", np.asarray(self.slope_C, dtype=np.float64))
        object.__setattr__(self, "intercept_C", np.asarray(self.intercept_C, dtype=np.float64))
        for field in ("method_C", "names", "reason_C"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        lengths = {field: len(getattr(self, field)) for field in self.__dataclass_fields__}
        if len(set(lengths.values())) != 1 or self.slope_C.ndim != 1 or self.intercept_C.ndim != 1:
            raise ValueError(f"a calibration needs one value a finding in every field; got lengths {lengths}")
        if not (np.isfinite(self.slope_C) & np.isfinite(self.intercept_C) & (self.slope_C > 0)).all():
            raise ValueError("a calibration needs finite intercepts and finite slopes above 0")
        unknown = set(self.method_C) - {"affine", "intercept", "identity"}
        if unknown:
            raise ValueError(f"unknown calibration method {unknown}; known: affine, intercept, identity")

    def apply(self, logit_NC: ArrayLike) -> Array:
        """Calibrated logits (N, C), float64 whatever the input, so that close scores stay apart."""
        logit_NC = np.asarray(logit_NC, dtype=np.float64)
        if logit_NC.ndim != 2 or logit_NC.shape[1] != len(self.names):
            raise ValueError(f"logits have shape {logit_NC.shape}; expected (N, {len(self.names)})")
        return logit_NC * self.slope_C + self.intercept_C

    def fold(self, weight_CD: ArrayLike, bias_C: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """Weight and bias of a linear layer whose logits are the calibrated ones of the given layer.

        Computed in float64 and returned in the dtype given: slope * weight, slope * bias + intercept.
        """
        weight_CD, bias_C = np.asarray(weight_CD), np.asarray(bias_C)
        if weight_CD.ndim != 2 or len(weight_CD) != len(self.names) or bias_C.shape != (len(self.names),):
            raise ValueError(
                f"weight has shape {weight_CD.shape} and bias {bias_C.shape}; "
                f"expected ({len(self.names)}, D) and ({len(self.names)},)"
            )
        folded_CD = self.slope_C[:, None] * weight_CD.astype(np.float64)
        folded_C = self.slope_C * bias_C.astype(np.float64) + self.intercept_C
        return folded_CD.astype(weight_CD.dtype), folded_C.astype(bias_C.dtype)

    def shift_prevalence(self, source_C: ArrayLike, target_C: ArrayLike) -> "Calibration":
        """The same map for a population in which findings are more or less frequent, but look the same.

        Adds logit(target) - logit(source) to the intercepts. Prevalences are in (0, 1). Source: Saerens, Latinne and
        Decaestecker, Neural Computation 14 (2002), equation 2.4.
        """
        source_C, target_C = np.asarray(source_C, dtype=np.float64), np.asarray(target_C, dtype=np.float64)
        for prevalence_C in (source_C, target_C):
            if prevalence_C.shape != self.slope_C.shape or not ((prevalence_C > 0) & (prevalence_C < 1)).all():
                raise ValueError(f"expected {len(self.names)} prevalences between 0 and 1; got {prevalence_C}")
        return replace(self, intercept_C=self.intercept_C + logit(target_C) - logit(source_C))

    @property
    def exceptions(self) -> dict[str, str]:
        """The findings without the affine map: the map that they have, and the reason."""
        return {
            name: f"{method}: {reason}"
            for name, method, reason in zip(self.names, self.method_C, self.reason_C, strict=True)
            if method != "affine"
        }

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` gives the same calibration back to the bit."""
        return {
            "names": list(self.names),
            "slope": self.slope_C.tolist(),
            "intercept": self.intercept_C.tolist(),
            "method": list(self.method_C),
            "reason": list(self.reason_C),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Read what `to_dict` gave. A missing key is a ValueError."""
        missing = {"names", "slope", "intercept", "method", "reason"} - set(values)
        if missing:
            raise ValueError(f"not a calibration: no {', '.join(sorted(missing))}")
        return cls(*(values[key] for key in ("slope", "intercept", "method", "names", "reason")))


def fit_calibration(
    logit_NC: ArrayLike,
    label_NC: ArrayLike,
    *,
    min_positives: int = 10,
    label_names: Sequence[str] | None = None,
) -> Calibration:
    """Fit every finding's map on its known cells, in float64.

    The targets are smoothed: (N+ + 1) / (N+ + 2) for positives, 1 / (N- + 2) for negatives. With them the fit is
    finite for separable data and without positives, and the mean fitted probability is within 1 / K of the
    prevalence.

    Args:
        logit_NC: finite; of a model that was not trained on these images.
        label_NC: 1, 0 or NaN.
        min_positives: with fewer positives, or fewer negatives, only the intercept is fitted; at least 1.
        label_names: C names; "finding_0", ... if left out.

    Returns:
        Per finding "affine"; "intercept" with few images on a side or a slope that is not above `LEAST_SLOPE` (a
        model that ranks the finding no better than chance); "identity" without a known cell.

    Raises:
        ValueError: shapes differ, a logit is not finite, or a label is not 0, 1 or NaN.
    """
    if min_positives < 1:
        raise ValueError(f"min_positives must be at least 1; got {min_positives}")
    logit_NC, label_NC = check_scores(logit_NC, label_NC)
    names = tuple(label_names or (f"finding_{column}" for column in range(logit_NC.shape[1])))
    fits = []
    for logit_N, label_N in zip(logit_NC.T, label_NC.T, strict=True):
        known_N = ~np.isnan(label_N)
        fits.append(_fit_finding(logit_N[known_N], label_N[known_N] == 1, min_positives))
    slope_C, intercept_C, method_C, reason_C = zip(*fits, strict=True) if fits else ((), (), (), ())
    return Calibration(slope_C, intercept_C, method_C, names, reason_C)


def _fit_finding(logit_K: Array, positive_K: NDArray[np.bool_], least: int) -> tuple[float, float, Method, str]:
    positives, negatives = int(positive_K.sum()), int((~positive_K).sum())
    if positives + negatives == 0:
        return 1.0, 0.0, "identity", "no known label"
    target_K = np.where(positive_K, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    if positives < least or negatives < least:
        reason = f"{positives} positives and {negatives} negatives, fewer than {least} on a side"
        return 1.0, _fit_intercept(logit_K, target_K), "intercept", reason
    centre, scale = logit_K.mean(), logit_K.std()
    if scale <= 1e-12 * np.abs(logit_K).max():
        return 1.0, _fit_intercept(logit_K, target_K), "intercept", "the logit is constant"
    slope, intercept = _fit_affine((logit_K - centre) / scale, target_K)
    if slope < LEAST_SLOPE:
        reason = f"the fitted slope is {slope / scale:.2g}, not above zero: the scores do not rank this finding"
        return 1.0, _fit_intercept(logit_K, target_K), "intercept", reason
    return slope / scale, intercept - slope * centre / scale, "affine", ""


def _fit_intercept(logit_K: Array, target_K: Array) -> float:
    """The b at which sum sigmoid(logit + b) = sum target: monotone in b, so a bracket always finds it."""
    mean = target_K.mean()
    level = np.log(mean / (1 - mean))
    low, high = level - logit_K.max() - 1, level - logit_K.min() + 1
    return float(brentq(lambda b: expit(logit_K + b).mean() - mean, low, high, xtol=1e-12, rtol=1e-14))


def _fit_affine(z_K: Array, target_K: Array) -> tuple[float, float]:
    """The a and b that minimise the cross-entropy of sigmoid(a z + b) to the targets, z of mean 0 and sd 1.

    A target t is a positive of weight t and a negative of weight 1 - t. Not by scipy.optimize: its `minimize`
    stops at gradients of 1e-6 to 1e-10 where this one reaches 1e-12, and `root` diverges if one logit is far from the
    rest.
    """
    from sklearn.linear_model import LogisticRegression  # here, because it takes longer to import than this package

    weight_2K = np.concatenate([target_K, 1 - target_K])
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)  # C: no penalty
    fit.fit(np.concatenate([z_K, z_K])[:, None], np.repeat([1, 0], len(z_K)), sample_weight=weight_2K)
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])
