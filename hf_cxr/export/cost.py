"""What 8-bit weights cost: figures of both models on the same labelled images, and size and speed.

The difference of AUC and of AP is paired: both models are measured in the same draws of patients.

N = images, C = findings.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.paired import Paired, measure_paired

ROUNDS = 5
"""Rounds of timing: each runs both models in turn on the same batch, and the middle ratio counts."""

NAMES = ("int8", "float32")


@dataclass(frozen=True, eq=False)
class Cost:
    """Of 8-bit weights next to float32.

    Attributes:
        paired: AUC and AP of int8 minus float32, with intervals over patients.
        split: which images, such as "test".
        probability: largest difference of a probability.
        calls_changed: share of images and findings that are on the other side of their threshold; NaN without one.
        size: bytes of the int8 file and of the float32 file.
        speed: float32's CPU time in times that of int8: above 1, int8 is faster; on this machine.
        way: "dynamic" or "static".
    """

    paired: Paired
    split: str
    probability: float
    calls_changed: float
    size: tuple[int, int]
    speed: float
    way: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "way": self.way,
            "split": self.split,
            "paired": self.paired.to_dict(),
            "largest_probability_difference": self.probability,
            "calls_changed": self.calls_changed,
            "bytes": dict(zip(NAMES, self.size, strict=True)),
            "speed_in_times_float32": self.speed,
        }


def measure_cost(
    int8_NC: NDArray[np.float32],
    float_NC: NDArray[np.float32],
    label_NC: ArrayLike,
    patient_ids_N: Sequence[str],
    *,
    label_names: Sequence[str],
    threshold_C: ArrayLike,
    split: str,
    size: tuple[int, int],
    speed: float,
    way: str,
    intervals: Intervals,
) -> Cost:
    """Compare two models' logits on the same labelled images.

    Args:
        int8_NC, float_NC: logits.
        label_NC: 1, 0 or NaN.
        patient_ids_N: of each image.
        threshold_C: in probability; NaN where a finding has none.
        split, size, speed, way: see `Cost`.
        intervals: how they are drawn.

    Raises:
        ValueError: see `evaluation.paired`.
    """
    probabilities = [expit(logit_NC.astype(np.float64)) for logit_NC in (int8_NC, float_NC)]
    paired = measure_paired(
        *probabilities, label_NC, patient_ids_N, label_names=label_names, names=NAMES, intervals=intervals
    )
    defined = ~np.isnan(np.asarray(threshold_C, dtype=np.float64))
    called = [prob_NC[:, defined] >= np.asarray(threshold_C)[defined] for prob_NC in probabilities]
    return Cost(
        paired=paired,
        split=split,
        probability=float(np.abs(probabilities[0] - probabilities[1]).max()),
        calls_changed=float(np.mean(called[0] != called[1])) if defined.any() else float("nan"),
        size=size,
        speed=speed,
        way=way,
    )


def speed_ratio(slow: Callable[[], Any], fast: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """CPU time of the first in times that of the second, the middle of several rounds; each runs once before."""
    slow(), fast()
    return float(np.median([_cpu_seconds(slow) / _cpu_seconds(fast) for _ in range(rounds)]))


def _cpu_seconds(work: Callable[[], Any]) -> float:
    start, runs = time.process_time(), 0
    while not runs or time.process_time() - start < 0.1:  # a small model takes less than the clock's steps
        work()
        runs += 1
    return (time.process_time() - start) / runs
