"""Controls: what a score reaches that has seen no image, and what the model reaches on labels that are not theirs.

    known = Known(view=test.view, age=test.age, sex=test.sex)
    controls = measure_controls(test.probabilities, test.labels, draws, known, fit=(labels, of_validation), rng=rng)
    controls.without_pixels["view, age and sex"].difference.macro        # model minus control, same draws of patients

Without pixels: a logistic regression for each finding on the view, the age and the sex alone. Its scores are measured
on the same images and in the same draws as the model's. What it reaches, a model can reach from the projection, the
bed, the markers and the body shape, without a look at the lungs. It is fitted on other patients: on validation if that
is given, else on the measured images themselves, cross-fitted so that no patient is scored by a fit that knows them.
Cross-fitting puts a control that knows nothing a little below 0.5, because a fold that holds more positives leaves
fewer to the fit.

Shuffled labels: the label rows of whole patients are dealt to other patients. The macro AUC then is that of chance
with this many patients and this prevalence, and the model's must lie beyond it.

Scores are without the intercept, on centred columns, so that those of different folds are comparable.

Where view, age and sex are all unknown, or have one value alone, there is no control, and ``reason`` says so.

Refused: columns of another length than the labels.

Sources: Zech et al., PLoS Medicine 15 (2018), and DeGrave, Janizek and Lee, Nature Machine Intelligence 3 (2021), on
shortcuts; Good, Permutation, Parametric and Bootstrap Tests (2005).

N = images, C = findings, F = columns of a design matrix, R = draws, S = shuffles, M = patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.bootstrap import Sample
from hf_cxr.evaluation.checks import Array, check_labels, check_scores
from hf_cxr.evaluation.draws import CONFIDENCE, PatientDraws, check_measured
from hf_cxr.evaluation.metric import Measured, by_finding
from hf_cxr.evaluation.metrics import macro
from hf_cxr.evaluation.same_draws import sample_metrics
from hf_cxr.labels import LabelSpace

LEAST_POSITIVES = 10
"""A finding with fewer positives, or fewer negatives, to fit on has no control."""

COLUMNS = ("view", "age", "sex")
FOLDS = 5
KEY = "auc"


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of each image besides its pixels; None for what is known of none.

    Attributes:
        view, sex: N values, None for unknown.
        age: (N,) years, NaN for unknown.
    """

    view: Sequence[str | None] | None = None
    age: ArrayLike | None = None
    sex: Sequence[str | None] | None = None

    def frame(self, n_images: int) -> pd.DataFrame:
        """The three as columns, unknown where None; ValueError for another length."""
        columns = {}
        for name in COLUMNS:
            values = getattr(self, name)
            if values is not None and len(values) != n_images:
                raise ValueError(f"{name} has {len(values)} values for {n_images} images")
            columns[name] = [None] * n_images if values is None else list(values)
        text = {name: pd.Series(columns[name], dtype=object) for name in ("view", "sex")}
        return pd.DataFrame(text | {"age": pd.to_numeric(pd.Series(columns["age"], dtype=object))})[list(COLUMNS)]


@dataclass(frozen=True, eq=False)
class Control:
    """A score without pixels next to the model's, over the same findings, images and draws.

    Attributes:
        control, model, difference: AUC of each, and model minus control.
        p_C, macro_p: two-sided, of the difference.
    """

    control: Measured
    model: Measured
    difference: Measured
    p_C: Array
    macro_p: float


@dataclass(frozen=True, eq=False)
class Shuffled:
    """The model's macro AUC on labels that were dealt to other patients.

    Attributes:
        value: on the true labels.
        draw_S: on each set of shuffled labels.
        mean, low, high: of the shuffles: mean and the central range of the confidence.
        p: share of shuffles at or above the model, with one added to numerator and denominator.
    """

    value: float
    draw_S: Array
    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, eq=False)
class Controls:
    """What the model's macro AUC must be read against.

    Attributes:
        without_pixels: what the score knew -> its figures. The first knew everything that is known.
        reason: why ``without_pixels`` is empty; "" if it is not.
        left_out: finding -> why it has no control.
        fitted_on: "validation", or "test, cross-fitted".
        shuffled: see `Shuffled`.
    """

    label_names: LabelSpace
    without_pixels: dict[str, Control]
    reason: str
    left_out: dict[str, str]
    fitted_on: str
    shuffled: Shuffled
    confidence: float
    resamples: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON, findings by name; NaN stays NaN here, `files.plain` makes it None."""
        names = self.label_names
        return {
            "label_names": list(names),
            "fitted_on": self.fitted_on,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "not_measured": self.reason or None,
            "left_out": self.left_out,
            "without_pixels": {
                name: {
                    **{part: getattr(one, part).to_dict(names) for part in ("control", "model", "difference")},
                    "p": by_finding(one.p_C, names),
                    "macro_p": one.macro_p,
                }
                for name, one in self.without_pixels.items()
            },
            "shuffled": {
                **{name: getattr(self.shuffled, name) for name in ("value", "mean", "low", "high", "p")},
                "shuffles": len(self.shuffled.draw_S),
            },
        }


def measure_controls(
    score_NC: ArrayLike,
    label_NC: ArrayLike,
    draws: PatientDraws,
    known: Known,
    *,
    label_names: Sequence[str],
    fit: tuple[ArrayLike, Known] | None = None,
    confidence: float = CONFIDENCE,
    shuffles: int = 200,
    rng: np.random.Generator,
) -> Controls:
    """Measure scores without pixels, and the model on shuffled labels.

    Args:
        score_NC: the model's; any finite numbers.
        label_NC: 1, 0 or NaN.
        draws: of the patients of these images.
        known: view, age and sex of these images.
        label_names: C names.
        fit: labels (N', C) and what is known of the images to fit on, of other patients; None to cross-fit.
        confidence: of intervals and of the range of the shuffles, in (0, 1).
        shuffles: S, at least 1.
        rng: deals the folds and the shuffled labels.

    Raises:
        ValueError: see the module's first lines; bad scores or labels (see `checks`).
    """
    score_NC, label_NC, names = check_measured(score_NC, label_NC, draws, label_names, confidence, check_scores)
    if shuffles < 1:
        raise ValueError(f"shuffles must be at least 1; got {shuffles}")
    fit_label_NC, fit_known = (label_NC, known) if fit is None else (check_labels(fit[0]), fit[1])
    if fit_label_NC.shape[1] != len(names):
        raise ValueError(f"the labels to fit on have {fit_label_NC.shape[1]} findings; expected {len(names)}")
    frame, fit_frame = known.frame(len(label_NC)), fit_known.frame(len(fit_label_NC))
    shared = [name for name in COLUMNS if min(one[name].nunique(dropna=False) for one in (frame, fit_frame)) > 1]
    left_out = _left_out(fit_label_NC, names)
    kept_C = np.array([name not in left_out for name in names])
    knowing = [shared] * bool(shared) + [[name] for name in shared] * (len(shared) > 1)
    scores = []
    for columns in knowing:
        fit_NF, design_NF = _design(fit_frame[columns], frame[columns])
        if fit is None:
            scores.append(_cross_fitted(design_NF, label_NC, kept_C, draws.patient_N, rng))
        else:
            scores.append(_fitted(fit_NF, fit_label_NC, kept_C, design_NF))
    label_kept_NC = np.where(kept_C, label_NC, np.nan)
    pairs = [(one_NC, label_kept_NC) for one_NC in (score_NC, *scores)] if shared else []
    model, *controls = (sample[KEY] for sample in sample_metrics(pairs, draws, [KEY])) if shared else (None,)
    return Controls(
        label_names=names,
        without_pixels={
            _and(columns): _compare(model, control, confidence)
            for columns, control in zip(knowing, controls, strict=True)
        },
        reason="" if shared else "view, age and sex are unknown, or have one value alone",
        left_out=left_out,
        fitted_on="validation" if fit is not None else "test, cross-fitted",
        shuffled=shuffle_labels(
            score_NC, label_NC, draws.patient_N, shuffles=shuffles, confidence=confidence, rng=rng
        ),
        confidence=confidence,
        resamples=draws.resamples,
    )


def shuffle_labels(
    score_NC: Array,
    label_NC: Array,
    patient_N: NDArray[np.int64],
    *,
    shuffles: int,
    confidence: float,
    rng: np.random.Generator,
) -> Shuffled:
    """The macro AUC of scores on labels dealt to other patients.

    The patients' blocks of label rows are put into a random order, one after another, and dealt to the images in the
    order of their patients. So every finding keeps its number of positives, and the images of one patient mostly get
    labels that belonged together. The arguments are taken as checked.
    """
    by_patient = np.argsort(patient_N, kind="stable")
    order_NC = np.argsort(score_NC, axis=0, kind="stable")
    sorted_NC = np.take_along_axis(score_NC, order_NC, axis=0)
    draw_S = np.empty(shuffles)
    for number in range(shuffles):
        place_M = rng.permutation(int(patient_N.max()) + 1)
        dealt_NC = np.empty_like(label_NC)
        dealt_NC[by_patient] = label_NC[np.argsort(place_M[patient_N], kind="stable")]
        draw_S[number] = macro(_auc_in_order(sorted_NC, np.take_along_axis(dealt_NC, order_NC, axis=0)))
    value = macro(_auc_in_order(sorted_NC, np.take_along_axis(label_NC, order_NC, axis=0)))
    low, high = np.quantile(draw_S, [(1 - confidence) / 2, (1 + confidence) / 2])
    p = (1 + int((draw_S >= value).sum())) / (shuffles + 1) if value == value else float("nan")
    return Shuffled(value, draw_S, float(draw_S.mean()), float(low), float(high), p)


def _auc_in_order(score_NC: Array, label_NC: Array) -> Array:
    """AUC of each column (C,), whose scores ascend: sorted once, where `metric.measure` sorts for every shuffle."""
    auc_C = np.full(score_NC.shape[1], np.nan)
    for column, (score_N, label_N) in enumerate(zip(score_NC.T, label_NC.T, strict=True)):
        positive_N, negative_N = label_N == 1, label_N == 0
        positives, negatives = int(positive_N.sum()), int(negative_N.sum())
        if positives and negatives:
            below_N = np.concatenate([[0], np.cumsum(negative_N)])  # negatives before each place
            first_P = np.searchsorted(score_N, score_N[positive_N], side="left")
            last_P = np.searchsorted(score_N, score_N[positive_N], side="right")
            auc_C[column] = (below_N[first_P] + below_N[last_P]).sum() / (2 * positives * negatives)
    return auc_C


def _left_out(label_NC: Array, names: LabelSpace) -> dict[str, str]:
    """The findings with too few positives or negatives to fit on."""
    left_out = {}
    for name, label_N in zip(names, label_NC.T, strict=True):
        for word, value in (("positives", 1), ("negatives", 0)):
            found = int((label_N == value).sum())
            if found < LEAST_POSITIVES:
                left_out[name] = f"{found} {word} to fit on, fewer than {LEAST_POSITIVES}"
    return left_out


def _design(fit_frame: pd.DataFrame, frame: pd.DataFrame) -> tuple[Array, Array]:
    """Centred design matrices (N', F) and (N, F): view and sex one-hot, unknown a separate value; age as a cubic
    spline of five knots, constant beyond the ages of the fit, an unknown age at the median with a column that says so.
    """
    from sklearn.compose import ColumnTransformer  # here, because it takes longer to import than this package
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

    parts = []
    for name in frame.columns:
        if name == "age":
            spline = SplineTransformer(n_knots=5, degree=3, extrapolation="constant", include_bias=False)
            parts.append((name, make_pipeline(SimpleImputer(strategy="median"), spline), [name]))
            parts.append(("age unknown", "passthrough", ["age unknown"]))
        else:
            parts.append((name, OneHotEncoder(handle_unknown="ignore", sparse_output=False), [name]))
    both = [fit_frame, frame]
    if "age" in frame:
        both = [one.assign(**{"age unknown": one["age"].isna().astype(float)}) for one in both]
    pipeline = make_pipeline(ColumnTransformer(parts), StandardScaler())
    return pipeline.fit_transform(both[0]), pipeline.transform(both[1])


def _fitted(fit_NF: Array, fit_label_NC: Array, kept_C: NDArray[np.bool_], design_NF: Array) -> Array:
    """Scores (N, C) of a logistic regression for each finding, 0 for those that are not kept."""
    from sklearn.linear_model import LogisticRegression

    score_NC = np.zeros((len(design_NF), len(kept_C)))
    for column in np.flatnonzero(kept_C):
        known_N = ~np.isnan(fit_label_NC[:, column])
        label_K = fit_label_NC[known_N, column]
        if len(np.unique(label_K)) == 2:
            fit = LogisticRegression(solver="newton-cholesky").fit(fit_NF[known_N], label_K)
            score_NC[:, column] = design_NF @ fit.coef_[0]
    return score_NC


def _cross_fitted(
    design_NF: Array,
    label_NC: Array,
    kept_C: NDArray[np.bool_],
    patient_N: NDArray[np.int64],
    rng: np.random.Generator,
) -> Array:
    """As `_fitted`, each patient's images scored by a fit on the patients of the other folds."""
    fold_M = rng.permutation(int(patient_N.max()) + 1) % FOLDS
    fold_N = fold_M[patient_N]
    score_NC = np.empty(label_NC.shape)
    for fold in range(FOLDS):
        held_N = fold_N == fold
        score_NC[held_N] = _fitted(design_NF[~held_N], label_NC[~held_N], kept_C, design_NF[held_N])
    return score_NC


def _compare(model: Sample, control: Sample, confidence: float) -> Control:
    difference = model - control
    return Control(
        *(one.measured(confidence) for one in (control, model, difference)),
        p_C=difference.p_C,
        macro_p=float(difference.macro.p_C[0]),
    )


def _and(names: Sequence[str]) -> str:
    """Names as an English list."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
