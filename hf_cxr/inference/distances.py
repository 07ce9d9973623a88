"""`ShrunkGaussian`: how far a vector is from many others, by a Gaussian that few of them suffice for.

Values are standardised. Their covariance is shrunk towards a multiple of the identity by the amount that Ledoit and
Wolf estimate to be best, so it can be inverted however few vectors there are. Its first axes are kept; along all the
others together one variance is assumed (probabilistic PCA). A distance is then a squared Mahalanobis distance.

Source: Lee, Lee, Lee and Shin, NeurIPS 2018 (the distance of features to a fitted Gaussian as a score for unusual
images); Ledoit and Wolf, Journal of Multivariate Analysis 88 (2004); Tipping and Bishop, Journal of the Royal
Statistical Society B 61 (1999).

N = vectors, D = values of each, A = axes kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Stored = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ShrunkGaussian:
    """A fitted Gaussian; its arrays are float32, as they are stored, and distances are computed in float64.

    Attributes:
        mean_D, scale_D: of the values; the scale is positive.
        axis_AD: orthonormal.
        variance_A: along each axis, positive.
        rest: the variance along every other direction, shape (); 0 if there is none.
    """

    mean_D: Stored
    scale_D: Stored
    axis_AD: Stored
    variance_A: Stored
    rest: Stored

    @classmethod
    def fit(cls, value_ND: Array, *, axes: int | None = None, least_D: ArrayLike = 1e-6) -> "ShrunkGaussian":
        """From ordinary vectors.

        Args:
            value_ND: finite, at least two.
            axes: how many axes are kept; None for all.
            least_D: the least standard deviation that is assumed for each value, positive, so that a value that never
                varied does not make every new vector infinitely far.

        Raises:
            ValueError: fewer than two vectors, or one that is not finite.
        """
        from sklearn.covariance import LedoitWolf  # prediction does without it

        value_ND = np.asarray(value_ND, dtype=np.float64)
        if value_ND.ndim != 2 or len(value_ND) < 2 or not np.isfinite(value_ND).all():
            raise ValueError(f"a Gaussian needs at least two finite vectors; got {value_ND.shape}")
        mean_D, scale_D = value_ND.mean(axis=0), np.maximum(value_ND.std(axis=0), least_D)
        covariance = LedoitWolf(assume_centered=True).fit((value_ND - mean_D) / scale_D).covariance_
        variance_D, axis_DD = np.linalg.eigh(covariance)
        variance_D, axis_DD = np.maximum(variance_D[::-1], 1e-6), axis_DD.T[::-1]
        axes = min(axes or len(variance_D), len(variance_D))
        rest = variance_D[axes:].mean() if axes < len(variance_D) else 0.0
        parts = (mean_D, scale_D, axis_DD[:axes], variance_D[:axes], rest)
        return cls(*(np.array(part, np.float32, order="C") for part in parts))

    def distances(self, value_ND: NDArray[np.floating]) -> Array:
        """Squared Mahalanobis distances (N,) of vectors, not negative; infinite for one that is not finite."""
        scaled_ND = (np.asarray(value_ND, np.float64) - self.mean_D.astype(np.float64)) / self.scale_D
        finite_N = np.isfinite(scaled_ND).all(axis=1)
        scaled_ND = np.where(finite_N[:, None], scaled_ND, 0.0)
        along_NA = scaled_ND @ self.axis_AD.astype(np.float64).T
        distance_N = (along_NA**2 / self.variance_A).sum(axis=1)
        if self.rest > 0:
            rest_N = (scaled_ND**2).sum(axis=1) - (along_NA**2).sum(axis=1)
            distance_N = distance_N + np.maximum(rest_N, 0) / float(self.rest)
        return np.where(finite_N, distance_N, np.inf)

    def arrays(self) -> dict[str, Stored]:
        """By name, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> "ShrunkGaussian":
        """Read what `arrays` gave.

        Raises:
            ValueError: an array is missing, of another shape or type, or has values that cannot be.
        """
        names = [field.name for field in fields(cls)]
        if set(arrays) != set(names) or any(array.dtype != np.float32 for array in arrays.values()):
            raise ValueError(f"it must have the float32 arrays {', '.join(names)}")
        fitted = cls(**{name: np.asarray(arrays[name]) for name in names})
        axes, dimensions = fitted.axis_AD.shape if fitted.axis_AD.ndim == 2 else (0, 0)
        shapes = [(dimensions,), (dimensions,), (axes, dimensions), (axes,), ()]
        if not axes or [getattr(fitted, name).shape for name in names] != shapes:
            raise ValueError("its arrays do not fit together")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("one of its values is not a number")
        if not ((fitted.scale_D > 0).all() and (fitted.variance_A > 0).all() and fitted.rest >= 0):
            raise ValueError("a scale or a variance is not positive")
        return fitted
