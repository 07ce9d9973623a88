"""How a threshold is chosen for one finding: the table `RULES`.

An image is called positive where its probability is at least the threshold. There is no threshold that is right for
every purpose: each rule says what it aims at.

A chosen threshold is halfway between two neighbouring probabilities, with 0 and 1 as the ends. Neighbours that float32
cannot keep apart (closer than `RESOLUTION` times the larger) count as equal, so that no threshold lies between them.
Every score is therefore far enough from the threshold for a program that computes the sigmoid in float32 to make the
calls that were measured in float64. (The Bayes threshold, which depends on no score, may be arbitrarily near one.)

K = known cells of one finding, T = thresholds that may be chosen, R = draws of patients.

Sources: Youden, Cancer 3 (1950); Lipton, Elkan and Naryanaswamy, ECML PKDD 2014 (F1); Elkan, IJCAI 2001, equation 2
(the Bayes threshold of two costs).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_cxr.evaluation.checks import Array

RESOLUTION = 2.0**-20
"""Probabilities closer than this times the larger are taken as equal: 16 times the spacing of float32."""


@dataclass(frozen=True, eq=False)
class Cuts:
    """The thresholds that may be chosen for one finding, fewest calls first, and the counts at each.

    Attributes:
        threshold_T: descending.
        tp_T, fp_T: positives and negatives that are called, int64.
        positives, negatives: known cells, each at least 1.
    """

    threshold_T: Array
    tp_T: NDArray[np.int64]
    fp_T: NDArray[np.int64]
    positives: int
    negatives: int


def _youden(cuts: Cuts, target: None) -> int:
    return int(np.argmax(cuts.tp_T * cuts.negatives - cuts.fp_T * cuts.positives))  # integers: ties are exact


def _f1(cuts: Cuts, target: None) -> int:
    return int(np.argmax(2 * cuts.tp_T / (cuts.positives + cuts.tp_T + cuts.fp_T)))


def _sensitivity(cuts: Cuts, target: float) -> int | None:
    reached = np.flatnonzero(cuts.tp_T / cuts.positives >= target)
    if not len(reached):
        return None
    return int(np.flatnonzero(cuts.fp_T == cuts.fp_T[reached[0]])[-1])  # the most positives at no further cost


def _specificity(cuts: Cuts, target: float) -> int | None:
    reached = np.flatnonzero((cuts.negatives - cuts.fp_T) / cuts.negatives >= target)
    if not len(reached):
        return None
    return int(np.flatnonzero(cuts.tp_T == cuts.tp_T[reached[-1]])[0])  # no false positive that gains nothing


def _cost(cuts: Cuts, target: float) -> int:
    return int(np.argmin(target * (cuts.positives - cuts.tp_T) + cuts.fp_T))


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen.

    Attributes:
        words: what it aims at; ``{target}`` is filled in.
        choose: the number of the chosen cut, or None if none reaches the target; None for the Bayes threshold, which
            needs no data.
        target: what the target is, in words; None for a rule without one.
        is_share: the target is above 0 and at most 1; else it is a ratio above 0.
    """

    words: str
    choose: Callable[[Cuts, Any], int | None] | None
    target: str | None = None
    is_share: bool = False


RULES: dict[str, Rule] = {
    "youden": Rule("the highest sensitivity + specificity (Youden's J)", _youden),
    "f1": Rule("the highest F1", _f1),
    "sensitivity": Rule(
        "the fewest false positives at a sensitivity of at least {target}",
        _sensitivity,
        "the sensitivity to reach, such as 0.9",
        is_share=True,
    ),
    "specificity": Rule(
        "the highest sensitivity at a specificity of at least {target}",
        _specificity,
        "the specificity to reach, such as 0.9",
        is_share=True,
    ),
    "cost": Rule(
        "the lowest cost on validation, where a missed positive costs as much as {target} false positives",
        _cost,
        "how many false positives a missed positive costs, such as 10",
    ),
    "bayes": Rule(
        "the lowest expected cost of calibrated probabilities, where a missed positive costs as much as {target} "
        "false positives",
        None,
        "how many false positives a missed positive costs, such as 10",
    ),
}
"""The rules, by name. Among equally good thresholds, that of the fewest calls is taken; ``sensitivity`` takes, among
those of the fewest false positives, the one that finds most."""

DEFAULT_RULE = "f1"
"""The rule of a run that names none."""


def check_rule(rule: str, target: float | None) -> None:
    """Refuse an unknown rule, and a target that it does not take.

    Raises:
        ValueError: the message says what is expected.
    """
    if rule not in RULES:
        raise ValueError(f"{rule!r} is not a rule for operating points: choose from {', '.join(RULES)}")
    words, most = RULES[rule].target, 1 if RULES[rule].is_share else math.inf
    if words is None:
        if target is not None:
            raise ValueError(f"the rule {rule} for operating points takes no target; got {target!r}")
    elif target is None:
        raise ValueError(f"the rule {rule} for operating points needs a target: {words}")
    elif not (is_number(target) and 0 < target <= most and target < math.inf):
        limits = "above 0 and at most 1" if most == 1 else "a number above 0"
        raise ValueError(f"the target of the rule {rule} is {words}; got {target!r}, expected {limits}")


def describe_rule(rule: str, target: float | None) -> str:
    """What a rule aims at, in words.

    >>> describe_rule("sensitivity", 0.9)
    'the fewest false positives at a sensitivity of at least 0.9'
    """
    return RULES[rule].words.format(target=None if target is None else f"{target:g}")


def choose_threshold(prob_K: Array, positive_K: NDArray[np.bool_], rule: str, target: float | None) -> float | None:
    """The threshold of one finding, by a rule that `check_rule` has passed.

    Args:
        prob_K: in [0, 1].
        positive_K: the labels, with at least one positive and one negative.
        rule, target: see `RULES`.

    Returns:
        None if no threshold reaches the target.
    """
    choose = RULES[rule].choose
    if choose is None:
        return 1 / (1 + target)
    cuts = cuts_of(prob_K, positive_K)
    chosen = choose(cuts, target)
    return None if chosen is None else float(cuts.threshold_T[chosen])


def redrawn_thresholds(
    prob_K: Array, positive_K: NDArray[np.bool_], weight_RK: NDArray[np.int64], rule: str, target: float | None
) -> Array:
    """The threshold that the rule would choose if each cell were there as often as its weight, (R,).

    The thresholds that may be chosen are those of the full sample. NaN where a draw has no positive or no negative,
    or no threshold reaches the target.

    Args:
        prob_K, positive_K, rule, target: as for `choose_threshold`.
        weight_RK: of each cell in each draw.
    """
    choose = RULES[rule].choose
    if choose is None:
        return np.full(len(weight_RK), 1 / (1 + target))
    order_K, allowed_T, threshold_T = _places(prob_K)
    threshold_R = np.full(len(weight_RK), np.nan)
    for draw, weight_K in enumerate(weight_RK):
        cuts = _counted(positive_K[order_K], weight_K[order_K], allowed_T, threshold_T)
        chosen = choose(cuts, target) if cuts.positives and cuts.negatives else None
        if chosen is not None:
            threshold_R[draw] = threshold_T[chosen]
    return threshold_R


def cuts_of(prob_K: Array, positive_K: NDArray[np.bool_]) -> Cuts:
    """Every threshold between neighbouring scores that float32 keeps apart, and below the least one."""
    order_K, allowed_T, threshold_T = _places(prob_K)
    return _counted(positive_K[order_K], np.ones(len(prob_K), np.int64), allowed_T, threshold_T)


def _places(prob_K: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The cells in descending order, before how many of them a cut may be, and the threshold of each cut."""
    order_K = np.argsort(-prob_K, kind="stable")
    score_K = prob_K[order_K]
    upper, lower = np.append(1.0, score_K), np.append(score_K, 0.0)  # a cut before each cell, and one at the end
    allowed = upper - lower > RESOLUTION * upper
    allowed[-1] = True  # everything is called
    return order_K, np.flatnonzero(allowed), ((upper + lower) / 2)[allowed]


def _counted(
    positive_K: NDArray[np.bool_], weight_K: NDArray[np.int64], allowed_T: NDArray[np.int64], threshold_T: Array
) -> Cuts:
    """The counts at each cut, from cells in descending order."""
    tp, called = (np.append(0, np.cumsum(weight)) for weight in (weight_K * positive_K, weight_K))
    return Cuts(threshold_T, tp[allowed_T], (called - tp)[allowed_T], int(tp[-1]), int(called[-1] - tp[-1]))


def is_number(value: Any) -> bool:
    """Whether a value from outside is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
