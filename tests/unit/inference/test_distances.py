"""`ShrunkGaussian` against scikit-learn's distance and an explicit covariance, and what it does not depend on."""

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.covariance import LedoitWolf

from hf_cxr.inference.distances import ShrunkGaussian

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)) + 5
NEW = VALUES[:40] * 1.3


def test_it_is_the_distance_of_scikit_learn():
    scaled = (VALUES - VALUES.mean(axis=0)) / VALUES.std(axis=0)
    fitted = LedoitWolf(assume_centered=True).fit(scaled)
    new = (NEW - VALUES.mean(axis=0)) / VALUES.std(axis=0)
    np.testing.assert_allclose(ShrunkGaussian.fit(VALUES).distances(NEW), fitted.mahalanobis(new), rtol=1e-4)


@pytest.mark.parametrize("axes", [1, 3, 5])
def test_fewer_axes_are_a_covariance_with_one_variance_along_the_rest(axes):
    fitted = ShrunkGaussian.fit(VALUES, axes=axes)
    axis = fitted.axis_AD.astype(float)
    rest = np.eye(6) - axis.T @ axis
    covariance = axis.T @ np.diag(fitted.variance_A.astype(float)) @ axis + float(fitted.rest) * rest
    scaled = (NEW - fitted.mean_D) / fitted.scale_D
    expected = np.einsum("nd,de,ne->n", scaled, np.linalg.inv(covariance), scaled)
    np.testing.assert_allclose(fitted.distances(NEW), expected, rtol=1e-4)


def test_units_shifts_and_the_order_of_values_do_not_matter():
    order, unit, shift = RNG.permutation(6), RNG.uniform(0.1, 10, 6), RNG.normal(size=6)
    moved = ShrunkGaussian.fit(VALUES[:, order] * unit + shift).distances(NEW[:, order] * unit + shift)
    np.testing.assert_allclose(moved, ShrunkGaussian.fit(VALUES).distances(NEW), rtol=1e-3)


def test_of_many_normal_vectors_it_is_chi_squared():
    fitted = ShrunkGaussian.fit(RNG.normal(size=(20_000, 4)))
    distance = fitted.distances(RNG.normal(size=(20_000, 4)))
    np.testing.assert_allclose(np.quantile(distance, (0.5, 0.95)), chi2(4).ppf((0.5, 0.95)), rtol=0.05)


def test_fewer_vectors_than_values_and_constant_values_give_finite_distances():
    few = np.concatenate([RNG.normal(size=(10, 50)), np.full((10, 2), 7.0)], axis=1)
    fitted = ShrunkGaussian.fit(few, axes=4, least_D=0.5)
    inside, moved = few[:1], few[:1] + np.eye(52)[-1:] * 20
    assert np.isfinite(fitted.distances(few)).all()
    assert fitted.distances(moved)[0] > fitted.distances(inside)[0] + 100


def test_what_is_not_finite_is_infinitely_far_and_cannot_be_fitted_on():
    broken = np.array([[np.nan, *[5.0] * 5], [np.inf, *[5.0] * 5]])
    assert np.isinf(ShrunkGaussian.fit(VALUES).distances(broken)).all()
    with pytest.raises(ValueError, match="two finite vectors"):
        ShrunkGaussian.fit(broken)
    with pytest.raises(ValueError, match="two finite vectors"):
        ShrunkGaussian.fit(VALUES[:1])


def test_arrays_give_it_back_and_damaged_ones_are_refused():
    fitted = ShrunkGaussian.fit(VALUES, axes=3)
    arrays = fitted.arrays()
    np.testing.assert_array_equal(ShrunkGaussian.from_arrays(arrays).distances(NEW), fitted.distances(NEW))
    damaged = [
        {key: value for key, value in arrays.items() if key != "rest"},
        arrays | {"mean_D": arrays["mean_D"].astype(np.float64)},
        arrays | {"mean_D": arrays["mean_D"][:-1]},
        arrays | {"variance_A": arrays["variance_A"] * 0},
        arrays | {"scale_D": arrays["scale_D"] * np.float32(np.nan)},
    ]
    for one in damaged:
        with pytest.raises(ValueError, match=r"arrays|positive|number"):
            ShrunkGaussian.from_arrays(one)
