"""How often an input check reports ordinary images, and how often images that it should report. No torch.

    rates = measure_input_check(reported_N, patient_ids, {"inverted": OddKindReported("inverted", flag_N, patients_N)},
                                intervals=Intervals(resamples=10_000, confidence=0.95, seed=0))

Each is a share of images. Intervals draw clusters of images: patients, or single images without a patient. A share
of 0 or 1 has the interval of that many clusters, see `share_interval`.

N = images, R = draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.estimates import Estimate, ratio, share_interval


@dataclass(frozen=True, eq=False)
class OddKindReported:
    """What the check said of one kind of odd images.

    Attributes:
        title: of the kind, in print.
        reported_N: whether each image was reported, bool.
        cluster_N: what its images belong to: patients, or each to itself.
        named_N: whether the reason was the right one, bool; None for a kind without a reason of its own.
    """

    title: str
    reported_N: NDArray[np.bool_]
    cluster_N: Sequence[Any]
    named_N: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Share:
    """A share of images with its interval, and of how many images and clusters it is."""

    estimate: Estimate
    images: int
    clusters: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.estimate.to_dict() | {"images": self.images, "clusters": self.clusters}


@dataclass(frozen=True)
class InputCheckRates:
    """Figures of an input check on test.

    Attributes:
        false_alarms: the share of ordinary test images that it reports.
        kinds: key -> title, share reported, and share reported with the right reason, if the kind has one.
        confidence: of the intervals.
    """

    false_alarms: Share
    kinds: Mapping[str, tuple[str, Share, Share | None]]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "confidence": self.confidence,
            "false_alarms": self.false_alarms.to_dict(),
            "kinds": {
                key: {"title": title, **reported.to_dict(), "named": named and named.to_dict()}
                for key, (title, reported, named) in self.kinds.items()
            },
        }


def measure_input_check(
    reported_N: ArrayLike,
    patient_ids: Sequence[Any],
    kinds: Mapping[str, OddKindReported],
    *,
    intervals: Intervals,
) -> InputCheckRates:
    """Shares of images that were reported.

    Args:
        reported_N: whether each ordinary test image was reported.
        patient_ids: of these images.
        kinds: what the check said of other images, by key.
        intervals: how they are drawn.

    Raises:
        ValueError: fewer than two patients or clusters, or arrays of different lengths.
    """

    flags = {("", "reported"): (reported_N, patient_ids)}
    for key, kind in kinds.items():
        flags[key, "reported"] = (kind.reported_N, kind.cluster_N)
        if kind.named_N is not None:
            flags[key, "named"] = (kind.named_N, kind.cluster_N)
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # those of the same images share their draws
    for place, (_, cluster_N) in flags.items():
        alike.setdefault(tuple(map(str, cluster_N)), []).append(place)
    shares: dict[tuple[str, str], Share] = {}
    for cluster_N, places in alike.items():
        flag_NF = np.column_stack([flags[place][0] for place in places])
        found = shares_of_images(flag_NF, cluster_N, intervals=intervals)
        shares |= dict(zip(places, found, strict=True))
    return InputCheckRates(
        shares["", "reported"],
        {key: (kind.title, shares[key, "reported"], shares.get((key, "named"))) for key, kind in kinds.items()},
        intervals.confidence,
    )


def shares_of_images(flag_NF: ArrayLike, cluster_N: Sequence[Any], *, intervals: Intervals) -> list[Share]:
    """The share of each column's flags that are true, with an interval that draws clusters of images.

    Raises:
        ValueError: fewer than two clusters, or not as many as there are rows of flags.
    """
    flag_NF = np.asarray(flag_NF, dtype=np.float64)
    if flag_NF.ndim != 2 or len(flag_NF) != len(cluster_N):
        raise ValueError(f"there are flags of shape {flag_NF.shape} and {len(cluster_N)} clusters")
    draws = intervals.draws(list(cluster_N))
    flag_RF, image_R1 = draws.sums(draws.per_patient(flag_NF), draws.per_patient(np.ones((len(flag_NF), 1))))
    ends = share_interval(
        flag_NF.mean(axis=0),
        ratio(flag_RF, image_R1),
        images_X=len(flag_NF),
        patients_X=np.full(flag_NF.shape[1], draws.n_patients),
        confidence=intervals.confidence,
    )
    return [Share(ends.at(column), len(flag_NF), draws.n_patients) for column in range(flag_NF.shape[1])]
