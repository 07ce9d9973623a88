"""How near an exported file is to the classifier that it was made from, on images; a file that is not is refused.

B = images in a batch, N = images, C = findings.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_cxr.export.runtime import batches

TOLERANCE = 1e-4
"""Largest difference of a logit and of a probability from the same pixels, in float32."""

RESIZED_TOLERANCE = 1e-3
"""Largest difference of a probability where the file resizes the image itself: a few grey levels are one apart."""


@dataclass(frozen=True)
class Parity:
    """The largest differences between two programs that were given the same.

    Attributes:
        images: how many.
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
    parts = list(batches(len(given)))
    found_NC = np.concatenate([logits_of(given[part]) for part in parts])
    return compare_logits(found_NC, expected_NC, on, largest_batch=max(part.stop - part.start for part in parts))


def compare_logits(found_NC: NDArray, expected_NC: NDArray, on: str, *, largest_batch: int) -> Parity:
    """The largest differences of two matrices of logits."""
    found_NC, expected_NC = found_NC.astype(np.float64), expected_NC.astype(np.float64)
    return Parity(
        images=len(found_NC),
        largest_batch=largest_batch,
        logit=float(np.abs(found_NC - expected_NC).max()),
        probability=float(np.abs(expit(found_NC) - expit(expected_NC)).max()),
        on=on,
    )
