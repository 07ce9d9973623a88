"""One preprocessing: the device's values are the image processor's; augmentation is drawn from (seed, epoch, row)."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from hf_cxr.config import ModelArguments
from hf_cxr.data.images import resize_grey
from hf_cxr.processing import PixelProcessor, build_image_processor, collate, image_processor_for


@pytest.fixture
def processor():
    return build_image_processor(64, 56, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (90, 70), dtype=np.uint8)


def on_device(grey, pixels):
    resized = resize_grey(grey, pixels.resize_size, pixels.resample)
    return pixels(torch.from_numpy(resized)[None, None])


def test_device_values_are_the_image_processors(processor, grey):
    expected = processor(Image.fromarray(grey), return_tensors="pt")["pixel_values"]
    actual = on_device(grey, PixelProcessor(processor))
    assert actual.shape == (1, 3, 56, 56)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert actual.std() > 0.1


def test_saved_and_loaded_processor_is_the_same(processor, grey, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    rgb = Image.fromarray(grey).convert("RGB")
    torch.testing.assert_close(
        loaded(rgb, return_tensors="pt")["pixel_values"], on_device(grey, PixelProcessor(processor)), atol=1e-5, rtol=0
    )
    assert "DeiTImageProcessor" in (tmp_path / "preprocessor_config.json").read_text()


def test_no_augmentation_is_the_evaluation_preprocessing(processor, grey):
    pixels = PixelProcessor(processor)
    batch = torch.from_numpy(resize_grey(grey, 64, pixels.resample))[None, None]
    still = pixels.augment(batch, np.array([3]), epoch=0)
    torch.testing.assert_close(still, pixels(batch), atol=2e-3, rtol=0)  # grid coordinates are float32
    turned = PixelProcessor(processor, rotation_degrees=30).augment(batch, np.array([3]), epoch=0)
    assert (turned - still).abs().mean() > 0.05


def test_flip_is_left_right(processor, grey):
    batch = torch.from_numpy(resize_grey(grey, 64, 3))[None, None]
    flipped = PixelProcessor(processor, horizontal_flip=1.0).augment(batch, np.array([0]), epoch=0)
    torch.testing.assert_close(flipped, PixelProcessor(processor)(batch).flip(-1), atol=2e-3, rtol=0)


def test_rotation_turns_about_the_centre_by_the_drawn_angle(processor):
    spot = np.zeros((64, 64), np.uint8)
    spot[30:34, 44:48] = 255  # right of the centre
    pixels = PixelProcessor(processor, rotation_degrees=20)
    angle = pixels.draw([5], 2)[1][0]
    turned = pixels.augment(torch.from_numpy(spot)[None, None], np.array([5]), epoch=2)[0, 0]
    weight = turned - turned.min()
    y, x = torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing="ij")
    right, down = (((axis * weight).sum() / weight.sum()).item() - 27.5 for axis in (x, y))
    assert abs(angle) > 0.02
    assert abs(np.hypot(right, down) - 14) < 0.5
    assert abs(np.arctan2(down, right) + angle) < 0.03


def test_draws_depend_on_seed_epoch_and_row_alone(processor):
    one, other = (PixelProcessor(processor, horizontal_flip=0.5, rotation_degrees=10, seed=s) for s in (1, 2))
    flips, angles = one.draw(range(400), 3)
    again_flips, again_angles = one.draw(range(399, -1, -1), 3)
    assert (again_flips[::-1] == flips).all()
    assert (again_angles[::-1] == angles).all()
    assert not np.array_equal(one.draw(range(400), 4)[1], angles)
    assert not np.array_equal(other.draw(range(400), 3)[1], angles)
    assert 0.4 < flips.mean() < 0.6
    assert np.abs(np.rad2deg(angles)).max() <= 10
    assert np.abs(np.rad2deg(angles)).max() > 9


def test_checkpoint_without_a_processor_takes_imagenets(tmp_path, processor):
    (tmp_path / "config.json").write_text("{}")
    arguments = ModelArguments(model_name_or_path=str(tmp_path), image_size=56)
    assert image_processor_for(arguments).image_mean == pytest.approx([0.485, 0.456, 0.406])
    processor.save_pretrained(tmp_path)
    assert list(image_processor_for(arguments).image_mean) == [0.4, 0.5, 0.6]


def test_processor_without_crop_is_refused(processor):
    processor.do_center_crop = False
    with pytest.raises(ValueError, match="must resize to a square and crop its centre"):
        PixelProcessor(processor)


def test_collate_keeps_types_and_unknown_cells():
    row = {"pixels": np.zeros((8, 8), np.uint8), "labels": np.array([1, np.nan], np.float32), "row": 7}
    batch = collate([row, row])
    assert batch["pixel_values"].shape == (2, 1, 8, 8)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].isnan().tolist() == [[False, True]] * 2
    assert batch["row"].tolist() == [7, 7]
