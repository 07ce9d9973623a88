"""How near an exported file is to the classifier that it was made from, on images; a file that is not is refused.

B = images in a batch, N = images, C = findings.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_cxr.export.runtime import BATCHES, batches

TOLERANCE = 1e-4
"""Largest difference of a logit and of a probability from the same pixels, in float32."""

RESIZED_TOLERANCE = 1e-2
"""Largest difference of a probability where the file resizes the image itself: up to one pixel in a hundred is one
grey level off, which moves a probability by some 1e-3. Another filter, or none, moves it by 0.1 and more."""


@dataclass(frozen=True)
class Parity:
    """The largest differences between two programs that were given the same.

    Attributes:
        images: how many different ones.
        largest_batch: of the batches; the others are 1, 2 and odd sizes.
        logit, probability: the largest absolute difference over images and findings.
        on: what the images are, in words.
    """

    images: int
    largest_batch: int
    logit: float
    probability: float
    on: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def check(self, what: str, tolerance: float = TOLERANCE, *, logits: bool = True) -> None:
        """Refuse differences above a tolerance, or that are not numbers.

        Args:
            what: the file, in words.
            tolerance: of the probability.
            logits: whether it is that of the logit too.

        Raises:
            ValueError: with both differences.
        """
        largest = max(self.probability, self.logit) if logits else self.probability
        if not largest <= tolerance:
            raise ValueError(
                f"{what} differs from the model by up to {self.probability:.1e} in probability and {self.logit:.1e} "
                f"in the logit on {self.on}, and {tolerance:.0e} is the most that is accepted; it was not kept"
            )


def measure_parity(
    logits_of: Callable[[NDArray], NDArray[np.float32]], given: NDArray, expected_NC: NDArray[np.float32], on: str
) -> Parity:
    """Run a file on images in batches of several sizes, and compare.

    Args:
        logits_of: a batch of ``given`` to logits (B, C).
        given: (N, ...) what the file takes, such as normalised images.
        expected_NC: the classifier's logits.
        on: what the images are, in words.
    """
    row_M = np.arange(max(len(given), sum(BATCHES))) % len(given)  # a few images are given again in larger batches
    found_MC = np.concatenate([logits_of(given[row_M[part]]) for part in batches(len(row_M))])
    return compare_logits(found_MC, expected_NC[row_M], on, images=len(given), largest_batch=max(BATCHES))


def compare_logits(found_NC: NDArray, expected_NC: NDArray, on: str, *, images: int, largest_batch: int) -> Parity:
    """The largest differences of two matrices of logits; the rest is as in `Parity`."""
    found_NC, expected_NC = found_NC.astype(np.float64), expected_NC.astype(np.float64)
    return Parity(
        images=images,
        largest_batch=largest_batch,
        logit=float(np.abs(found_NC - expected_NC).max()),
        probability=float(np.abs(expit(found_NC) - expit(expected_NC)).max()),
        on=on,
    )
