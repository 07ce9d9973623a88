"""Augmentation: each lever alone against a slow reference; the draws of one lever do not move those of another."""

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image, ImageEnhance

from hf_cxr.augmentation import Augmentation, Draws, boxes, change_levels
from hf_cxr.config import ModelArguments
from hf_cxr.processing import PixelProcessor, build_image_processor

SIZE, CROP = 64, 56
ALL_ON = {
    "horizontal_flip": 0.5,
    "rotation_degrees": 20.0,
    "random_resized_crop": (0.5, 1.0),
    "brightness": 0.3,
    "contrast": 0.4,
    "erasing": 0.7,
}


def pixels_of(**levers):
    """Grey levels in, grey levels out."""
    processor = build_image_processor(SIZE, CROP, mean=[0.0] * 3, std=[1 / 255] * 3)
    return PixelProcessor(processor, seed=5, **levers)


@pytest.fixture
def batch():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (12, 1, SIZE, SIZE), dtype=np.uint8))


def augmented_before(pixels, batch, rows, epoch):
    """`augment` as it was with flips and rotations alone: its operations, in its order."""
    drawn, ratio = pixels.draw(rows, epoch), pixels.image_size / pixels.resize_size
    cos, sin = np.cos(drawn.angle) * ratio, np.sin(drawn.angle) * ratio
    right = [np.where(drawn.flip, -cos, cos), np.where(drawn.flip, -sin, sin)]
    step_B22 = torch.from_numpy(np.array([right, [-sin, cos]], dtype=np.float32).transpose(2, 0, 1))
    right_B21D = step_B22[:, 0, :, None, None] * pixels.axis
    grid_B2DD = right_B21D + step_B22[:, 1, :, None, None] * pixels.axis[:, None]
    grey = functional.grid_sample(batch.float(), grid_B2DD.permute(0, 2, 3, 1), align_corners=False)
    scales, shifts = pixels.scale.flatten().tolist(), pixels.shift.flatten()
    return torch.cat([torch.add(shift, grey, alpha=scale) for scale, shift in zip(scales, shifts, strict=True)], 1)


@pytest.mark.parametrize("levers", [{}, {"horizontal_flip": 0.5, "rotation_degrees": 25.0}], ids=["none", "both"])
def test_without_the_new_levers_every_bit_is_as_before(batch, levers):
    pixels, rows = PixelProcessor(build_image_processor(SIZE, CROP), seed=3, **levers), np.arange(12) * 31
    assert torch.equal(pixels.augment(batch, rows, 4), augmented_before(pixels, batch, rows, 4))


def test_a_lever_leaves_the_draws_of_the_rest_as_they_are():
    rows = np.arange(50)
    everything = pixels_of(**ALL_ON).draw(rows, 2)
    for key in ALL_ON:
        without = pixels_of(**{name: value for name, value in ALL_ON.items() if name != key}).draw(rows, 2)
        fields = {"horizontal_flip": "flip", "rotation_degrees": "angle", "random_resized_crop": "box"}
        own = fields.get(key, {"erasing": "erased"}.get(key, key))
        for name in ("flip", "angle", "box", "brightness", "contrast", "erased"):
            same = np.array_equal(getattr(without, name), getattr(everything, name))
            assert same == (name != own), (key, name)


def test_the_draws_of_all_levers_are_independent():
    drawn = pixels_of(**ALL_ON).draw(np.arange(20_000), 0)
    inside = drawn.erased[:, 2] > 0
    columns = [drawn.flip, drawn.angle, *drawn.box.T[:2], drawn.box[:, 2] * drawn.box[:, 3], drawn.brightness]
    correlation = np.corrcoef([*columns, drawn.contrast, inside])
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.04
    assert inside.mean() == pytest.approx(0.7, abs=0.02)
    for factor, most in ((drawn.brightness, 0.3), (drawn.contrast, 0.4)):
        assert 1 - most <= factor.min() < 1 - 0.99 * most
        assert 1 + 0.99 * most < factor.max() <= 1 + most


@pytest.mark.parametrize(
    ("area", "aspect"), [((0.2, 0.9), (0.75, 4 / 3)), ((0.02, 0.33), (0.3, 1 / 0.3)), ((1, 1), (0.5, 2))]
)
def test_a_box_has_its_area_and_shape_and_lies_inside(area, aspect):
    box = boxes(np.random.default_rng(1).random((5000, 4)), area, aspect)
    centre, half = box[:, :2], box[:, 2:]
    assert (np.abs(centre) + half <= 1 + 1e-12).all()
    share, ratio = half.prod(1), half[:, 0] / half[:, 1]
    assert area[0] - 1e-9 <= share.min() <= share.max() <= area[1] + 1e-9
    assert share.mean() == pytest.approx(sum(area) / 2, abs=0.02)
    assert aspect[0] - 1e-9 <= ratio.min() <= ratio.max() <= aspect[1] + 1e-9
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.03)  # as often wide as high
    if area[1] < 1:
        reach = (1 - half) + 1e-12
        assert (np.abs(centre) / reach).max() > 0.99
        assert np.abs((centre / reach).mean(0)).max() < 0.05


def test_a_crop_is_the_resize_of_its_box(batch):
    pixels = pixels_of(random_resized_crop=(0.3, 0.8), horizontal_flip=0.5)
    rows = np.arange(12)
    drawn, actual = pixels.draw(rows, 1), pixels.augment(batch, rows, 1)[:, 0]
    place = (np.arange(CROP) + 0.5) / CROP * 2 - 1
    for image, (x, y, wide, high), flip, got in zip(
        batch[:, 0].double().numpy(), drawn.box, drawn.flip, actual, strict=True
    ):
        columns = ((x + wide * place + 1) * SIZE - 1) / 2
        rows_of = ((y + high * place + 1) * SIZE - 1) / 2
        expected = bilinear(image, rows_of, columns[::-1] if flip else columns)
        np.testing.assert_allclose(got.numpy(), expected, atol=0.02)
    assert 0 < drawn.flip.sum() < 12


def bilinear(image, rows, columns):
    """Float64, one axis after the other, black outside."""

    def weights(places):
        matrix = np.zeros((len(places), SIZE))
        for line, place in enumerate(places):
            low = int(np.floor(place))
            for pixel, weight in ((low, 1 - place + low), (low + 1, place - low)):
                if 0 <= pixel < SIZE:
                    matrix[line, pixel] += weight
        return matrix

    return weights(rows) @ image @ weights(columns).T


def test_a_crop_of_the_whole_image_without_margin_changes_nothing(batch):
    processor = build_image_processor(SIZE, SIZE)
    pixels = PixelProcessor(processor, random_resized_crop=(1, 1))
    torch.testing.assert_close(pixels.augment(batch, np.arange(12), 0), pixels(batch), atol=2e-3, rtol=0)


def test_a_rotated_crop_is_a_crop_of_the_rotated_image():
    """A spot goes where the rotation takes it, and from there to its place in the box."""
    spot = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    spot[..., 38:42, 20:24] = 255
    where = np.array([(22 / SIZE) * 2 - 1, (40 / SIZE) * 2 - 1])  # (x, y)
    angle, (x, y, wide, high) = 0.3, (-0.1, 0.05, 0.8, 0.7)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.array([[cos, sin], [-sin, cos]]) @ where  # output = inverse of the map to the input
    expected = (turned - [x, y]) / [wide, high]
    draws = Draws(np.array([False]), np.array([angle]), np.array([[x, y, wide, high]]))
    seen = pixels_of()._drawn(spot, draws)[0, 0].double()
    place = torch.from_numpy((np.arange(CROP) + 0.5) / CROP * 2 - 1)
    found = [(seen.sum(axis) * place).sum() / seen.sum() for axis in (0, 1)]
    np.testing.assert_allclose(found, expected, atol=0.02)


AXIS = torch.from_numpy(((np.arange(CROP) + 0.5) / CROP * 2 - 1).astype(np.float32))


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("kind", ["Brightness", "Contrast"])
def test_brightness_and_contrast_are_pillows(kind, factor):
    """torchvision's adjust functions of a PIL image are these; they round to whole levels and truncate the mean."""
    grey = np.random.default_rng(2).integers(0, 256, (CROP, CROP), dtype=np.uint8)
    expected = np.asarray(getattr(ImageEnhance, kind)(Image.fromarray(grey)).enhance(factor), dtype=float)
    draws = Draws(np.array([False]), np.zeros(1), np.zeros((1, 4)), **{kind.lower(): np.array([factor])})
    levels, pixels = torch.from_numpy(draws.levels()), torch.from_numpy(grey.astype(np.float32))[None, None]
    actual = change_levels(pixels, draws, levels, AXIS)[0, 0].numpy()
    assert np.abs(actual - expected).max() <= 1.01 + abs(1 - factor)
    exact = grey * factor if kind == "Brightness" else (grey - grey.mean()) * factor + grey.mean()
    np.testing.assert_allclose(actual, np.clip(exact, 0, 255), atol=1e-3)


def test_erasing_fills_its_box_with_the_mean_and_leaves_the_rest(batch):
    pixels, rows = pixels_of(erasing=0.5), np.arange(12)
    plain, drawn = pixels_of().augment(batch, rows, 0), pixels.draw(rows, 0)
    actual = pixels.augment(batch, rows, 0)
    count = 0
    for before, after, (x, y, wide, high) in zip(plain[:, 0].numpy(), actual[:, 0].numpy(), drawn.erased, strict=True):
        columns, lines = (np.abs(AXIS.numpy() - centre) <= half for centre, half in ((x, wide), (y, high)))
        inside = lines[:, None] & columns
        np.testing.assert_array_equal(after[~inside], before[~inside])
        np.testing.assert_allclose(after[inside], before.mean(), atol=1e-3)
        count += inside.any()
    assert 2 <= count <= 10


@pytest.mark.parametrize("threads", [1, 3])
def test_all_levers_give_an_image_the_same_pixels_in_any_batch(batch, threads):
    pixels, rows, before = pixels_of(**ALL_ON), np.arange(12) * 9, torch.get_num_threads()
    together = pixels.augment(batch, rows, 0)
    try:
        torch.set_num_threads(threads)
        for part in (slice(0, 1), slice(2, 11)):
            assert torch.equal(pixels.augment(batch[part], rows[part], 0), together[part])
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(pixels.augment(batch, rows, 1), together)
    assert 0 <= together.min() < together.max() <= 255.001


def test_a_view_at_scale_one_is_the_evaluation_to_the_bit(batch):
    pixels = PixelProcessor(build_image_processor(SIZE, CROP))
    assert torch.equal(pixels.view(batch), pixels(batch))
    assert torch.equal(pixels.view(batch, flip=True), pixels(batch).flip(-1))


def test_a_closer_view_is_the_resize_of_a_smaller_crop(batch):
    side = CROP / SIZE / 1.1
    place = ((np.arange(CROP) + 0.5) / CROP * 2 - 1) * side
    lines = ((place + 1) * SIZE - 1) / 2
    for flip in (False, True):
        actual = pixels_of().view(batch, flip=flip, scale=1.1)[:, 0]
        expected = bilinear(batch[0, 0].double().numpy(), lines, lines[::-1] if flip else lines)
        np.testing.assert_allclose(actual[0].numpy(), expected, atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_cpus_pixels_and_is_not_waited_for(batch):
    pixels, rows = pixels_of(**ALL_ON), np.arange(12)
    expected = pixels.augment(batch, rows, 0)
    pixels, there = pixels.cuda(), batch.pin_memory().cuda()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        actual = pixels.augment(there, rows, 0)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    # A pixel whose centre is on the edge of an erased box may fall to the other side.
    assert ((actual.cpu() - expected).abs() > 0.3).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"brightness": 1.5}, "brightness is 1.5; it must be between 0 .off. and 1"),
        ({"erasing": -0.1}, "erasing is -0.1"),
        ({"random_resized_crop": [0.5]}, "random_resized_crop is 0.5; it must be two numbers"),
        ({"random_resized_crop": [0.9, 0.5]}, "random_resized_crop is 0.9 0.5"),
        ({"random_resized_crop": [0.0, 1.0]}, "random_resized_crop is 0 1"),
        ({"random_resized_crop": [0.5, 1.2]}, "up to 1"),
        ({"crop_aspect": [0.75, 1.3]}, "crop_aspect goes with random_resized_crop"),
        ({"erasing_area": [0.1, 0.2]}, "erasing_area goes with erasing"),
    ],
)
def test_what_cannot_be_is_refused_by_key(keys, message):
    with pytest.raises(ValueError, match=message):
        ModelArguments(**keys)


def test_arguments_and_augmentation_have_the_same_keys():
    args = ModelArguments(random_resized_crop=[0.5, 1.0], crop_aspect=[0.8, 1.25], brightness=0.2)
    assert Augmentation.of(args) == Augmentation(0.5, 10.0, [0.5, 1.0], [0.8, 1.25], 0.2)
