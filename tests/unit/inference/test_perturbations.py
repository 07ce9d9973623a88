"""Each perturbation against what it says it does."""

import io

import numpy as np
import pytest
from PIL import Image

from hf_cxr.inference.perturbations import PERTURBATIONS, versions


def image(seed=0, side=64):
    """Smooth shapes with some fine detail, as a radiograph has."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    smooth = 110 + 70 * np.sin(5 * x) * np.cos(4 * y)
    return np.clip(smooth + rng.normal(scale=6, size=(side, side)), 0, 255).astype(np.uint8)


def distance(first, second):
    return np.abs(first.astype(float) - second).mean()


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_a_higher_level_is_further_from_the_clean_image_and_keeps_its_shape(kind):
    clean, perturbation = image(), PERTURBATIONS[kind]
    before = clean.copy()
    made = [perturbation.apply(clean, level, np.random.default_rng(1)) for level in perturbation.levels]
    assert all(worse.shape == clean.shape and worse.dtype == np.uint8 for worse in made)
    distances = [distance(clean, worse) for worse in made]
    assert distances == sorted(distances)
    assert 0 < distances[0] < distances[-1]
    np.testing.assert_array_equal(clean, before)


@pytest.mark.parametrize("kind", [kind for kind in PERTURBATIONS if kind != "jpeg"])
def test_level_0_is_the_clean_image(kind):
    clean = image()
    assert distance(clean, PERTURBATIONS[kind].apply(clean, 0, np.random.default_rng(0))) < 1e-9


def test_noise_has_its_standard_deviation():
    grey = np.full((128, 128), 120, np.uint8)
    worse = PERTURBATIONS["noise"].apply(grey, 8, np.random.default_rng(0))
    assert worse.std() == pytest.approx(8, rel=0.03)
    assert worse.mean() == pytest.approx(120, abs=0.3)


def test_contrast_keeps_the_mean_and_shrinks_the_spread():
    clean = image()
    worse = PERTURBATIONS["contrast"].apply(clean, 0.6, np.random.default_rng(0))
    assert worse.mean() == pytest.approx(clean.mean(), abs=0.3)
    assert worse.std() == pytest.approx(0.4 * clean.std(), rel=0.02)


def test_exposure_moves_grey_levels_one_way_each():
    clean, rng = image(), np.random.default_rng(0)
    assert PERTURBATIONS["underexposed"].apply(clean, 1, rng)[clean == 128].tolist()[:1] in ([64], [])
    assert (PERTURBATIONS["underexposed"].apply(clean, 1, rng) <= clean).all()
    assert (PERTURBATIONS["overexposed"].apply(clean, 1, rng) >= clean).all()


def test_a_rotation_turns_by_its_angle_to_both_sides():
    clean = np.zeros((65, 65), np.uint8)
    clean[10:14, 30:35] = 255
    sides = set()
    for seed in range(8):
        worse = PERTURBATIONS["rotation"].apply(clean, 24, np.random.default_rng(seed))
        y, x = (np.average(axis, weights=worse) - 32 for axis in np.mgrid[:65, :65])
        assert np.degrees(np.arctan2(abs(x), -y)) == pytest.approx(24, abs=1)
        sides.add(np.sign(x))
    assert sides == {-1, 1}


def test_lower_resolution_removes_what_is_finer_than_it():
    stripes = np.tile(np.uint8([0, 255]), (64, 32))
    assert PERTURBATIONS["resolution"].apply(stripes, 1, np.random.default_rng(0)).std() < 15
    broad = np.tile(np.repeat(np.uint8([0, 255]), 16), (64, 2))
    assert PERTURBATIONS["resolution"].apply(broad, 1, np.random.default_rng(0)).std() > 110


def test_versions_are_the_same_for_the_same_image_whatever_else_is_asked():
    clean = image()
    both = versions(clean, ("noise", "rotation"), (3, 7))
    assert both.shape == (9, 64, 64)
    np.testing.assert_array_equal(both[0], clean)
    np.testing.assert_array_equal(both[5:], versions(clean, ("rotation",), (3, 7))[1:])
    assert (both[1] != versions(clean, ("noise",), (3, 8))[1]).any()


def test_a_level_is_named_by_what_is_done_to_the_image():
    names = [one.name(level) for one in PERTURBATIONS.values() for level in one.levels]
    assert len(set(names)) == len(names)
    jpeg = PERTURBATIONS["jpeg"]
    assert [jpeg.name(level) for level in (25, 90)] == ["JPEG quality 75", "JPEG quality 10"]
    pixel_SS = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixel_SS).save(file, "JPEG", quality=10)  # the number in the name
    np.testing.assert_array_equal(jpeg.apply(pixel_SS, 90, np.random.default_rng(0)), np.asarray(Image.open(file)))
    contrast = PERTURBATIONS["contrast"]
    left = contrast.apply(pixel_SS, 0.8, np.random.default_rng(0)).std() / pixel_SS.std()
    assert contrast.name(0.8) == f"Contrast at {100 * left:.0f} %"
