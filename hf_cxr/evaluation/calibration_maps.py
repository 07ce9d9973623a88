"""Which map gives the best probabilities, by cross-validation: none, a temperature, an affine map or an isotonic one.

| key                     | map of the logit z                    | fitted on                                |
|-------------------------|---------------------------------------|------------------------------------------|
| none                    | z                                     |                                          |
| temperature             | z / T, one T for the model            | all known cells                          |
| temperature_per_finding | z / T                                 | the finding's known cells                |
| affine                  | a z + b: `calibration.fit_calibration` | the finding's known cells               |
| isotonic                | a rising step function                | the finding's known cells                |

Each map is fitted on all folds but one and judged on the one left out; folds are of patients, so no patient is on both
sides. Judged by log loss (nats per image), the proper score that the maps themselves minimise. The difference to the
affine map is taken image by image, and its interval over draws of patients; the maps are not fitted again in the
draws, so the interval is of these fitted maps.

Only a map that is affine in the logit (none, temperature, affine) can be folded into the model's last layer, after
which the stock pipeline gives the calibrated probabilities. A step function is no linear layer, and it would give
equal probabilities to images that the model ranks. So the affine map is what a model gets; this comparison says what
that costs.

Isotonic regression gives 0 to every image below the lowest positive. Its probabilities are clipped to
[1 / (K + 2), 1 - 1 / (K + 2)], K being the finding's known cells that it was fitted on: the share of positives when K
images have one label and one image of each label is added. Without the clip one positive among the images of
probability 0 makes the log loss infinite.

N = images, C = findings, K = known cells of one finding, F = folds, V = maps, R = draws.

Refused: see `checks`; fewer patients than folds. Left out, and named in `excluded`: a finding that has fewer than
``min_positives`` positives or negatives outside some fold: there the affine map is not fitted either.

Source: Platt 1999 (affine); Guo et al., ICML 2017 (temperature); Zadrozny and Elkan, KDD 2002 (isotonic).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from hf_cxr.evaluation.bootstrap import Sample
from hf_cxr.evaluation.calibration import fit_calibration
from hf_cxr.evaluation.checks import Array, check_scores
from hf_cxr.evaluation.comparison import holm
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured
from hf_cxr.evaluation.estimates import Estimate, Estimates, ratio
from hf_cxr.files import plain
from hf_cxr.labels import LabelSpace

BASELINE = "affine"
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-3, 1e3

Logits = Callable[[Array], Array]
"""Uncalibrated logits (N, C) to calibrated ones."""


@dataclass(frozen=True, eq=False)
class CalibrationMaps:
    """Cross-validated log loss of each map.

    Attributes:
        label_names: C findings.
        loss_VC: by map, mean log loss of each finding in nats, float64 (C,); NaN for a finding that is left out.
        loss: by map, its mean over the findings that are compared.
        difference_VC: by map, loss minus that of the affine map, (C,), with interval; negative is better.
        difference: by map, the same for the mean over findings.
        p: by map, two-sided p value of ``difference``, Holm's over the maps; 1 for the affine map itself.
        affine_folds_C: in how many folds the affine map had a slope, int64; otherwise it fell back to an intercept.
        excluded: finding -> why it is not compared.
        folds, confidence, resamples: how it was done.
    """

    label_names: LabelSpace
    loss_VC: dict[str, Array]
    loss: dict[str, float]
    difference_VC: dict[str, Estimates]
    difference: dict[str, Estimate]
    p: dict[str, float]
    affine_folds_C: NDArray[np.int64]
    excluded: dict[str, str]
    folds: int
    confidence: float
    resamples: int

    @property
    def best(self) -> str | None:
        """The map of least mean log loss; None where no finding is compared."""
        return min(self.loss, key=self.loss.__getitem__) if len(self.excluded) < len(self.label_names) else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: each map's mean and findings, the best, and what is left out."""
        maps = {
            key: {
                "log_loss": self.loss[key],
                "difference": self.difference[key].to_dict(),
                "p": self.p[key],
                "findings": {
                    name: {"log_loss": float(loss), "difference": self.difference_VC[key].at(column).to_dict()}
                    for column, (name, loss) in enumerate(zip(self.label_names, self.loss_VC[key], strict=True))
                    if name not in self.excluded
                },
            }
            for key in MAPS
        }
        without_slope = {
            name: self.folds - int(count)
            for name, count in zip(self.label_names, self.affine_folds_C, strict=True)
            if name not in self.excluded and count < self.folds
        }
        return plain(
            {
                "baseline": BASELINE,
                "best": self.best,
                "maps": maps,
                "folds_without_slope": without_slope,
                "excluded": self.excluded,
                "folds": self.folds,
                "confidence": self.confidence,
                "resamples": self.resamples,
            }
        )


def measure_calibration_maps(
    logit_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    *,
    label_names: Sequence[str],
    folds: int = 5,
    min_positives: int = 10,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> CalibrationMaps:
    """Mean log loss of each map on patients that it was not fitted on, with paired differences to the affine map.

    Args:
        logit_NC: uncalibrated, finite; of a model that was not trained on these images.
        label_NC: 1, 0 or NaN.
        draws: of the patients of the N images.
        label_names: C findings.
        folds: at least 2.
        min_positives: see the module's first lines; as in `fit_calibration`.
        confidence: of the intervals, in (0, 1).
        seed: which patients are in which fold.

    Raises:
        ValueError: see the module's first lines.
    """
    logit_NC, label_NC, names = check_measured(logit_NC, label_NC, draws, label_names, confidence, check_scores)
    if not 2 <= folds <= draws.n_patients:
        raise ValueError(f"folds must be between 2 and the number of patients, {draws.n_patients}; got {folds}")
    from sklearn.model_selection import GroupKFold  # here, because it takes longer to import than this package

    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(splitter.split(logit_NC, groups=draws.patient_N))
    excluded = _excluded([label_NC[fit_rows] for fit_rows, _ in parts], names, min_positives)
    kept = [column for column, name in enumerate(names) if name not in excluded]
    loss_VNC = {key: np.full(logit_NC.shape, np.nan) for key in MAPS}
    affine_folds_C = np.zeros(len(names), dtype=np.int64)
    for fit_rows, judged_rows in parts if kept else ():
        fit_on = logit_NC[np.ix_(fit_rows, kept)], label_NC[np.ix_(fit_rows, kept)]
        judged = np.ix_(judged_rows, kept)
        affine = fit_calibration(*fit_on, min_positives=min_positives)
        affine_folds_C[kept] += [method == "affine" for method in affine.method_C]
        maps = {key: affine.apply if fit is None else fit(*fit_on) for key, fit in MAPS.items()}
        for key, calibrated in maps.items():
            loss_VNC[key][judged] = log_loss_of(calibrated(logit_NC[judged]), label_NC[judged])
    return _compared(loss_VNC, draws, names, kept, affine_folds_C, excluded, folds, confidence)


def log_loss_of(logit_NC: Array, label_NC: Array) -> Array:
    """Log loss of each cell in nats, (N, C), from the logit: finite for any finite logit; NaN where unknown."""
    return np.logaddexp(0.0, logit_NC) - label_NC * logit_NC


# The maps: (K, C) logits and labels to a function of logits


def fit_nothing(logit_KC: Array, label_KC: Array) -> Logits:
    """The logit itself."""
    return lambda z_NC: z_NC


def fit_temperature(logit_KC: Array, label_KC: Array) -> Logits:
    """One temperature for all findings, that of the least log loss of all known cells."""
    known_KC = ~np.isnan(label_KC)
    temperature = least_loss_temperature(logit_KC[known_KC], label_KC[known_KC])
    return lambda z_NC: z_NC / temperature


def fit_temperatures(logit_KC: Array, label_KC: Array) -> Logits:
    """A temperature for each finding."""
    known_KC = ~np.isnan(label_KC)
    temperature_C = np.array(
        [
            least_loss_temperature(z_N[known_N], label_N[known_N])
            for z_N, label_N, known_N in zip(logit_KC.T, label_KC.T, known_KC.T, strict=True)
        ]
    )
    return lambda z_NC: z_NC / temperature_C


def fit_isotonic(logit_KC: Array, label_KC: Array) -> Logits:
    """Isotonic regression of each finding, clipped as the module's first lines say."""
    from sklearn.isotonic import IsotonicRegression

    fits = []
    for z_N, label_N in zip(logit_KC.T, label_KC.T, strict=True):
        known_N = ~np.isnan(label_N)
        least = 1 / (known_N.sum() + 2)
        # Clipped by y_min and y_max, which isotonic regression of 0 and 1 allows: clipping keeps it optimal.
        fit = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
        fits.append(fit.fit(z_N[known_N], label_N[known_N]))
    return lambda z_NC: logit(np.stack([fit.predict(z_N) for fit, z_N in zip(fits, z_NC.T, strict=True)], axis=1))


def least_loss_temperature(z_K: Array, label_K: Array) -> float:
    """The T that minimises the mean log loss of sigmoid(z / T), between 0.001 and 1,000.

    The loss is convex in 1 / T, so its slope has at most one zero. Outside the bounds the nearer bound is returned:
    the upper one for logits that rank no better than chance.
    """

    def slope(inverse: float) -> float:
        return float(np.mean(z_K * (expit(inverse * z_K) - label_K)))

    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if slope(low) >= 0:
        return MOST_TEMPERATURE
    if slope(high) <= 0:
        return LEAST_TEMPERATURE
    return 1 / brentq(slope, low, high, xtol=1e-12, rtol=1e-12)


MAPS: dict[str, Callable[[Array, Array], Logits] | None] = {
    "none": fit_nothing,
    "temperature": fit_temperature,
    "temperature_per_finding": fit_temperatures,
    BASELINE: None,  # `fit_calibration`, whose fallbacks are counted
    "isotonic": fit_isotonic,
}
"""Key -> the function that fits the map."""


def _excluded(label_parts: Sequence[Array], names: LabelSpace, least: int) -> dict[str, str]:
    few_C = np.min([np.minimum((part == 1).sum(axis=0), (part == 0).sum(axis=0)) for part in label_parts], axis=0)
    return {
        name: f"{count} images of one label to fit on in some fold; at least {least} are needed"
        for name, count in zip(names, few_C, strict=True)
        if count < least
    }


def _compared(loss_VNC, draws, names, kept, affine_folds_C, excluded, folds, confidence) -> CalibrationMaps:
    known_NC = ~np.isnan(loss_VNC[BASELINE])
    count_MC = draws.per_patient(known_NC)
    sums = [draws.per_patient(np.where(known_NC, loss, 0.0)) for loss in loss_VNC.values()]
    count_RC, *loss_VRC = draws.sums(count_MC, *sums)
    value_VC = {key: ratio(sum_MC.sum(axis=0), count_MC.sum(axis=0)) for key, sum_MC in zip(MAPS, sums, strict=True)}
    draw_VRC = {key: ratio(loss_RC, count_RC) for key, loss_RC in zip(MAPS, loss_VRC, strict=True)}
    sample = {key: Sample(value_VC[key], draw_VRC[key]) for key in MAPS}
    gap = {key: one - sample[BASELINE] for key, one in sample.items()}
    mean_gap = {key: one.mean(kept) for key, one in gap.items()}
    others = [key for key in MAPS if key != BASELINE]
    p = dict(zip(others, holm([float(mean_gap[key].p_C[0]) for key in others]), strict=True))
    return CalibrationMaps(
        label_names=names,
        loss_VC=value_VC,
        loss={key: float(one.mean(kept).value_C[0]) for key, one in sample.items()},
        difference_VC={key: one.estimates(confidence) for key, one in gap.items()},
        difference={key: one.average(confidence) for key, one in mean_gap.items()},
        p={key: p.get(key, 1.0) for key in MAPS},
        affine_folds_C=affine_folds_C,
        excluded=excluded,
        folds=folds,
        confidence=confidence,
        resamples=draws.resamples,
    )
