"""`METRICS`, the table of metrics, and their kernels: one finding in, its value under R sets of row weights out.

    kernel(cells: WeightedCells) -> (R,) float64, NaN where the weighted cells do not define the metric

Adding a metric is one kernel and one line in `METRICS`, at the end of this file: evaluation and its JSON, tables,
report and intervals loop over this table; with ``headline`` the model card, validation during training, the choice of
the best checkpoint, comparison and ensemble do too.

    METRICS["ap"].measure(score_NC, label_NC)        # (C,), on the full sample
    report.measured["all"]["ap"].macro               # of `evaluate_predictions`, with intervals

A metric is one of three kinds. A "ranking" metric sees the order of the scores and not their values, so logits and
probabilities give the same. A "probability" metric reads the values, in [0, 1]. A "decision" metric counts what is
called positive at the finding's threshold.

R = sets of weights, K = known cells, G = groups of equal scores that hold a positive, E = groups of equal scores.
"""

from collections.abc import Sequence

import numpy as np

from hf_cxr.evaluation import decision
from hf_cxr.evaluation.cells import Ranking, WeightedCells, rank
from hf_cxr.evaluation.checks import Array
from hf_cxr.evaluation.metric import Kernel, Metric, on_full_sample

__all__ = ["METRICS", "Ranking", "WeightedCells", "headline_metrics", "metric_key", "on_full_sample", "rank"]

PARTIAL_RATE = 0.1
"""False positive rate up to which the partial AUC is measured."""

BINS = 15
"""Of the expected calibration error."""


def auc(cells: WeightedCells) -> Array:
    """Area under the ROC curve (Mann-Whitney form, ties count one half), (R,); NaN where a side has no weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        auc_R = cells.twice_pairs_R / (2 * cells.positives_R * cells.negatives_R)
    return np.where(cells.both_R, auc_R, np.nan)


def partial_auc(cells: WeightedCells) -> Array:
    """Area under the ROC curve up to a false positive rate of 0.1, scaled so that chance is 0.5 and the best 1, (R,).

    Source: McClish, Medical Decision Making 9 (1989), as in scikit-learn's ``roc_auc_score(max_fpr=0.1)``.
    """
    left_R = cells.left_of_limit(PARTIAL_RATE * cells.negatives_R)
    with np.errstate(invalid="ignore", divide="ignore"):
        area_R = left_R / (cells.positives_R * cells.negatives_R)
    chance = PARTIAL_RATE**2 / 2
    return np.where(cells.both_R, (1 + (area_R - chance) / (PARTIAL_RATE - chance)) / 2, np.nan)


def ap(cells: WeightedCells) -> Array:
    """Average precision, step-wise over thresholds, (R,); NaN where a side has no weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ap_R = cells.precisions_R / cells.positives_R
    return np.where(cells.both_R, ap_R, np.nan)


def ap_lift(cells: WeightedCells) -> Array:
    """Average precision over prevalence, (R,): how many times better than a scorer that knows nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return ap(cells) * cells.cells_R / cells.positives_R


def log_loss(cells: WeightedCells) -> Array:
    """Mean negative log-likelihood in nats, (R,); NaN where no cell has weight.

    Probabilities are clipped to 2.2e-16 from 0 and 1, as in scikit-learn, so that one certain error stays finite.
    """
    clip = np.finfo(np.float64).eps
    prob_K, label_K = np.clip(cells.ranking.score_K, clip, 1 - clip), cells.ranking.positive_K
    return _per_cell(cells, -np.where(label_K == 1, np.log(prob_K), np.log1p(-prob_K)))


def brier(cells: WeightedCells) -> Array:
    """Mean squared difference of probability and label, (R,); NaN where no cell has weight.

    Always giving the prevalence reaches prevalence x (1 - prevalence), so values of rare findings are small by nature.

    Source: Brier, Monthly Weather Review 78 (1950).
    """
    return _per_cell(cells, (cells.ranking.score_K - cells.ranking.positive_K) ** 2)


def brier_skill(cells: WeightedCells) -> Array:
    """1 minus Brier score over that of always giving the prevalence, (R,): 0 knows nothing, 1 is perfect.

    NaN where a side has no weight. The prevalence is that of the same images.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share_R = cells.positives_R / cells.cells_R
        return np.where(cells.both_R, 1 - brier(cells) / (share_R * (1 - share_R)), np.nan)


def ece(cells: WeightedCells, bins: int = BINS) -> Array:
    """Expected calibration error over bins of equal mass, (R,); see `metrics.expected_calibration_error`."""
    gap_RV = np.diff(cells.sums_to_edges(cells.ranking.score_K - cells.ranking.positive_K, bins), prepend=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(gap_RV).sum(axis=1) / cells.cells_R


def mean_probability_positives(cells: WeightedCells) -> Array:
    """Mean probability that the positives get, (R,); NaN where they have no weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return cells.total(cells.ranking.score_K * cells.ranking.positive_K) / cells.positives_R


def mean_probability_negatives(cells: WeightedCells) -> Array:
    """Mean probability that the negatives get, (R,); NaN where they have no weight."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return cells.total(cells.ranking.score_K * (1 - cells.ranking.positive_K)) / cells.negatives_R


def _per_cell(cells: WeightedCells, value_K: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return cells.total(value_K) / cells.cells_R


def at_threshold(formula: decision.Decision) -> Kernel:
    """The kernel of a formula of the four counts at the finding's threshold."""
    return lambda cells: formula(*cells.confusion)


def _probability(
    key: str,
    title: str,
    kernel: Kernel,
    higher: bool,
    range: tuple[float, float] = (0, 1),
    chance: float | None = None,
) -> Metric:
    return Metric(key, title, f"mean {title}", kernel, range, higher, chance, kind="probability")


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("auc", "AUC", "macro AUC", auc, chance=0.5, headline=True),
        Metric("ap", "AP", "mAP", ap, chance="prevalence", headline=True),
        Metric("partial_auc", "partial AUC", "macro partial AUC", partial_auc, chance=0.5),
        Metric("ap_lift", "AP lift", "mean AP lift", ap_lift, (0, np.inf), chance=1.0),
        _probability("log_loss", "log loss", log_loss, False, (0, np.inf)),
        _probability("brier", "Brier", brier, False),
        _probability("brier_skill", "Brier skill", brier_skill, True, (-np.inf, 1), 0.0),
        _probability("ece", "ECE", ece, False),
        _probability("mean_probability_positives", "probability of positives", mean_probability_positives, True),
        _probability("mean_probability_negatives", "probability of negatives", mean_probability_negatives, False),
        *(
            Metric(key, title, f"mean {title}", at_threshold(decision.DECISIONS[key]), kind="decision")
            for key, title in (
                ("sensitivity", "sensitivity"),
                ("specificity", "specificity"),
                ("ppv", "PPV"),
                ("npv", "NPV"),
                ("f1", "F1"),
                ("accuracy", "accuracy"),
            )
        ),
    )
}

# What earlier versions called them.
OLD_KEYS = {"macro_auc": "auc", "roc_auc": "auc", "mean_average_precision": "ap", "average_precision": "ap"}


def headline_metrics() -> dict[str, Metric]:
    """The metrics that every table of findings, the model card, validation during training and comparisons show."""
    return {key: metric for key, metric in METRICS.items() if metric.headline}


def metric_key(name: str, *, also: Sequence[str] = ()) -> str:
    """The key of a headline metric, or one of ``also``, from the key or the Trainer's ``eval_<key>``.

    Raises:
        ValueError: the name is unknown; the message gives the names to choose from, or the new name of an old one.

    >>> metric_key("eval_ap"), metric_key("loss", also=("loss",))
    ('ap', 'loss')
    """
    key = str(name).removeprefix("eval_")
    known = (*headline_metrics(), *also)
    if key in known:
        return key
    hint = f"its name is now {OLD_KEYS[key]}" if key in OLD_KEYS else f"choose from {', '.join(known)}"
    raise ValueError(f"{name} is not a metric: {hint}")
