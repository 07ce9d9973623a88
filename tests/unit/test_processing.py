"""One preprocessing: the device's values are the image processor's; augmentation is drawn from (seed, epoch, row)."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from PIL import Image
from transformers import AutoImageProcessor

from hf_cxr.config import ModelArguments
from hf_cxr.data.images.grey import resize_grey
from hf_cxr.processing import (
    PixelProcessor,
    build_image_processor,
    check_geometry,
    collate,
    image_processor_for,
    load_processor,
)


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
    angle = pixels.draw([5], 2).angle[0]
    turned = pixels.augment(torch.from_numpy(spot)[None, None], np.array([5]), epoch=2)[0, 0]
    weight = turned - turned.min()
    y, x = torch.meshgrid(torch.arange(56.0), torch.arange(56.0), indexing="ij")
    right, down = (((axis * weight).sum() / weight.sum()).item() - 27.5 for axis in (x, y))
    assert abs(angle) > 0.02
    assert abs(np.hypot(right, down) - 14) < 0.5
    assert abs(np.arctan2(down, right) + angle) < 0.03


def test_draws_depend_on_seed_epoch_and_row_alone(processor):
    one, other = (PixelProcessor(processor, horizontal_flip=0.5, rotation_degrees=10, seed=s) for s in (1, 2))
    drawn, again = one.draw(range(400), 3), one.draw(range(399, -1, -1), 3)
    flips, angles = drawn.flip, drawn.angle
    assert (again.flip[::-1] == flips).all()
    assert (again.angle[::-1] == angles).all()
    assert not np.array_equal(one.draw(range(400), 4).angle, angles)
    assert not np.array_equal(other.draw(range(400), 3).angle, angles)
    assert 0.4 < flips.mean() < 0.6
    assert np.abs(np.rad2deg(angles)).max() <= 10
    assert np.abs(np.rad2deg(angles)).max() > 9


def test_draws_of_a_row_that_is_repeated_differ(processor):
    angles = PixelProcessor(processor, rotation_degrees=10).draw(np.array([3, 3 + 20, 3 + 40]), 0).angle
    assert len(set(angles.tolist())) == 3


LEVELS = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), ([0.5] * 3, [0.5] * 3), ([0] * 3, [1] * 3)]
)
def test_evaluation_is_two_operations_of_every_level_to_the_bit(mean, std):
    pixels = PixelProcessor(build_image_processor(36, 32, mean=mean, std=std))
    batch = LEVELS.repeat(7 * 36 * 36 // 256 + 1)[: 7 * 36 * 36].reshape(7, 1, 36, 36)
    expected = batch[..., 2:34, 2:34].float() * pixels.scale + pixels.shift
    assert torch.equal(pixels(batch), expected)
    assert len(expected.unique()) > 256 or mean[0] == mean[1]


def augmented_as_before(pixels, batch, rows, epoch):
    """What `PixelProcessor.augment` was: torch's grid, float images, and three channels in two operations."""
    drawn = pixels.draw(rows, epoch)
    flip_B, angle_B = drawn.flip, drawn.angle
    ratio = pixels.image_size / pixels.resize_size
    cos, sin = np.cos(angle_B) * ratio, np.sin(angle_B) * ratio
    theta = np.zeros((len(angle_B), 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = np.where(flip_B, -cos, cos), -sin
    theta[:, 1, 0], theta[:, 1, 1] = np.where(flip_B, -sin, sin), cos
    shape = (len(angle_B), 1, pixels.image_size, pixels.image_size)
    grid = functional.affine_grid(torch.from_numpy(theta), shape, align_corners=False)
    return functional.grid_sample(batch.float(), grid, align_corners=False) * pixels.scale + pixels.shift


@pytest.mark.parametrize(("size", "crop", "images"), [(64, 56, 3), (36, 32, 200), (33, 33, 5), (256, 224, 3)])
def test_augmentation_is_torchs_grid_but_for_rounding(size, crop, images):
    processor = build_image_processor(size, crop)
    pixels = PixelProcessor(processor, horizontal_flip=0.5, rotation_degrees=30, seed=7)
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(rng.integers(0, 256, (images, 1, size, size), dtype=np.uint8))
    rows = rng.integers(0, 10**6, images)
    actual, expected = pixels.augment(batch, rows, 4), augmented_as_before(pixels, batch, rows, 4)
    # A coordinate is a sum of two products below 2, in pixels S / 2 times that: two more roundings of 2^-23 move a
    # point by less than S * 2^-22 pixels, and over one pixel a level changes by at most 255 (in each direction).
    bound = 2 * size * 2**-22 * 255 * pixels.scale.max().item() + 2**-20
    assert (actual - expected).abs().max() <= bound
    assert actual.is_contiguous()
    assert actual.std() > 0.3


@pytest.mark.parametrize("threads", [1, 3])
def test_an_image_is_the_same_in_any_batch(processor, threads):
    pixels = PixelProcessor(processor, horizontal_flip=0.5, rotation_degrees=30)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (90, 1, 64, 64), dtype=np.uint8))
    rows, before = np.arange(90) * 7, torch.get_num_threads()
    together, evaluated = pixels.augment(batch, rows, 0), pixels(batch)
    try:
        torch.set_num_threads(threads)
        for part in (slice(0, 1), slice(3, 80), slice(89, 90)):
            assert torch.equal(pixels.augment(batch[part], rows[part], 0), together[part])
            assert torch.equal(pixels(batch[part]), evaluated[part])
    finally:
        torch.set_num_threads(before)


def test_batches_share_no_memory(processor):
    pixels = PixelProcessor(processor, rotation_degrees=30)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), dtype=np.uint8))
    first = pixels.augment(batch, np.array([0, 1]), 0)
    kept = first.clone()
    pixels.augment(batch, np.array([0, 1]), 1).zero_()
    assert torch.equal(first, kept)
    assert pixels.augment(batch[:0], np.zeros(0, np.int64), 0).shape == pixels(batch[:0]).shape == (0, 3, 56, 56)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("size", "crop", "images"), [(64, 56, 3), (256, 224, 32)])
def test_a_gpu_gives_the_cpus_values_and_is_not_waited_for(size, crop, images):
    pixels = PixelProcessor(build_image_processor(size, crop), horizontal_flip=0.5, rotation_degrees=30)
    rng = np.random.default_rng(0)
    batch, rows = torch.from_numpy(rng.integers(0, 256, (images, 1, size, size), dtype=np.uint8)), np.arange(images)
    expected = pixels.augment(batch, rows, 0), pixels(batch)
    pixels, there = pixels.cuda(), batch.pin_memory().cuda()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmented, evaluated = pixels.augment(there, rows, 0), pixels(there)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            within = pixels.augment(there, rows, 0)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    # Coordinates that differ by rounding; see the test of torch's grid.
    torch.testing.assert_close(augmented.cpu(), expected[0], atol=1e-3, rtol=0)
    assert torch.equal(within, augmented)
    assert torch.equal(evaluated.cpu(), expected[1])
    start = (size - crop) // 2
    before = there[..., start : start + crop, start : start + crop].float() * pixels.scale + pixels.shift
    assert torch.equal(evaluated, before)


def test_autocast_changes_nothing(processor):
    pixels = PixelProcessor(processor, rotation_degrees=30)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), dtype=np.uint8))
    plain = pixels.augment(batch, np.array([0, 1]), 0), pixels(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = pixels.augment(batch, np.array([0, 1]), 0), pixels(batch)
    assert all(map(torch.equal, plain, within))


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


SAVED = {"image_mean": [0.1, 0.5, 0.9], "image_std": [0.2, 0.25, 0.3], "resample": 2}


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint's processor with some settings of its own."""

    def write(**changes):
        build_image_processor(64, 56).save_pretrained(tmp_path)
        file = tmp_path / "preprocessor_config.json"
        values = json.loads(file.read_text()) | SAVED | changes
        file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
        (tmp_path / "config.json").write_text('{"model_type": "swin"}')
        return tmp_path

    return write


HONOURED = {
    "as it is": {},
    "no normalisation": {"do_normalize": False},
    "no rescaling": {"do_rescale": False},
    "neither": {"do_rescale": False, "do_normalize": False},
    "from -1 to 1": {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
    "one mean": {"image_mean": 0.3, "image_std": 0.6},
    "no conversion": {"do_convert_rgb": False},
    "sizes as numbers": {"size": 64, "crop_size": 56},
    "nearest": {"resample": 0},
    "ViT, which never crops": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 56, "width": 56},
        "crop_size": ...,
        "do_center_crop": ...,
    },
    "CLIP's class": {"image_processor_type": "CLIPImageProcessor"},
}


@pytest.mark.parametrize("changes", HONOURED.values(), ids=HONOURED)
def test_a_saved_processor_is_honoured_to_the_value(checkpoint, grey, changes):
    folder = checkpoint(**changes)
    given = load_processor(folder)
    check_geometry(given)
    rgb = Image.fromarray(grey).convert("RGB")
    stock = AutoImageProcessor.from_pretrained(folder)(rgb, return_tensors="pt")["pixel_values"].float()
    torch.testing.assert_close(on_device(grey, PixelProcessor(given)), stock, atol=1e-5, rtol=1e-5)
    # a run that starts from it keeps its values and its filter, at sizes of its own
    ours = image_processor_for(ModelArguments(model_name_or_path=str(folder), image_size=56, resize_size=64))
    if "ViT" not in changes.get("image_processor_type", ""):
        torch.testing.assert_close(ours(rgb, return_tensors="pt")["pixel_values"], stock, atol=1e-4, rtol=1e-5)
    assert ours.resample == given.resample


# The processors of the families' checkpoints on the Hub: class, size, and whatever is theirs.
FAMILIES = {
    "BitImageProcessor": {"size": {"shortest_edge": 64}},  # DINOv2, rad-dino
    "ConvNextImageProcessor": {"size": {"shortest_edge": 56}, "crop_pct": 0.875},
    "ViTImageProcessor": {"size": {"height": 56, "width": 56}, "resample": 2},  # ViT, Swin, MSN
    "BeitImageProcessor": {"size": {"height": 56, "width": 56}, "do_center_crop": False, "resample": 2},
    "DeiTImageProcessor": {},
    "PoolFormerImageProcessor": {"size": {"shortest_edge": 56}, "crop_pct": 0.9},
    "SegformerImageProcessor": {"size": {"height": 512, "width": 512}, "resample": 2},
    "EfficientNetImageProcessor": {"size": {"height": 56, "width": 56}, "resample": 0, "rescale_offset": False},
    "EfficientNetImageProcessor, std twice": {
        "image_processor_type": "EfficientNetImageProcessor",
        "image_std": [0.5, 0.4, 0.3],
        "rescale_offset": False,
        "include_top": True,
    },
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_processor_becomes_a_square_resize_and_a_crop_with_its_values_and_filter(checkpoint, name):
    changes = {"image_processor_type": name, **FAMILIES[name]}
    folder = checkpoint(**changes)
    ours = image_processor_for(ModelArguments(model_name_or_path=str(folder), image_size=56, resize_size=64))
    assert (ours.size["height"], ours.size["width"]) == (64, 64)
    assert (ours.crop_size["height"], ours.crop_size["width"]) == (56, 56)
    given = AutoImageProcessor.from_pretrained(folder)
    assert ours.resample == given.resample
    for level in (0, 77, 255):  # an image of one level has no geometry
        flat = Image.new("RGB", (70, 70), (level,) * 3)
        values = [made(flat, return_tensors="pt")["pixel_values"][0, :, 20, 20].float() for made in (ours, given)]
        torch.testing.assert_close(*values, atol=1e-4, rtol=1e-5)
    assert values[0].unique().numel() > 1  # the channels' values are their own
    check_geometry(ours)


PRETRAINED = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear", "crop_pct": 0.95}


def test_a_checkpoint_of_timm_has_its_values_in_its_config(tmp_path):
    def made(**changes):
        values = {"architecture": "densenet121", "pretrained_cfg": {**PRETRAINED, **changes}}
        (tmp_path / "config.json").write_text(json.dumps(values))
        return image_processor_for(ModelArguments(model_name_or_path=str(tmp_path), image_size=56, resize_size=64))

    ours = made()
    assert (list(ours.image_mean), list(ours.image_std)) == (PRETRAINED["mean"], PRETRAINED["std"])
    assert (ours.resample, ours.size["height"], ours.crop_size["height"]) == (Image.Resampling.BILINEAR, 64, 56)
    for key, value in (("mean", [0.5]), ("std", [1, 0, 1]), ("std", [1, 1, "1"]), ("interpolation", "random")):
        with pytest.raises(ValueError, match=f"{key} of pretrained_cfg in config.json") as caught:
            made(**{key: value})
        assert "\n" not in str(caught.value)


NAN, INFINITE = float("nan"), float("inf")
REFUSED_EVERYWHERE = {
    "std zero": ({"image_std": [0.0, 1, 1]}, "image_std"),
    "std negative": ({"image_std": [1, -0.5, 1]}, "image_std"),
    "std NaN": ({"image_std": [1, 1, NAN]}, "image_std"),
    "std so small": ({"image_std": [1e-30] * 3}, "values of up to"),
    "mean NaN": ({"image_mean": [NAN, 0, 0]}, "image_mean"),
    "mean infinite": ({"image_mean": [INFINITE, 0, 0]}, "image_mean"),
    "mean of one channel": ({"image_mean": [0.5]}, "image_mean"),
    "mean of text": ({"image_mean": ["a", "b", "c"]}, "image_mean"),
    "factor zero": ({"rescale_factor": 0}, "rescale_factor"),
    "factor NaN": ({"rescale_factor": NAN}, "rescale_factor"),
    "filter 9": ({"resample": 9}, "resample in .* is 9; it must be one of 0 nearest"),
    "filter by name": ({"resample": "bicubic"}, "resample"),
    "size zero": ({"size": {"height": 0, "width": 0}}, "is 0"),
    "size negative": ({"size": {"height": -1, "width": -1}}, "is -1"),
    "size absurd": ({"size": {"height": 10**7, "width": 10**7}}, "is 10000000"),
    "edge absurd": ({"size": {"shortest_edge": 10**7}}, "is 10000000"),
    "padding absurd": ({"do_pad": True, "pad_size": {"height": 10**6, "width": 10**6}}, "is 1000000"),
    "size of text": ({"size": "big"}, "preprocessor_config.json"),
    "values shifted": (
        {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True},
        "does more than",
    ),
    "class unknown": ({"image_processor_type": "NobodysImageProcessor"}, "cannot read preprocessor_config.json"),
    "class a number": ({"image_processor_type": 3}, "cannot read preprocessor_config.json"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED_EVERYWHERE.values(), ids=REFUSED_EVERYWHERE)
def test_a_processor_that_cannot_be_is_refused_in_training_and_after(checkpoint, changes, message):
    folder = checkpoint(**changes)
    arguments = ModelArguments(model_name_or_path=str(folder), image_size=56, resize_size=64)
    for read in (lambda: check_geometry(load_processor(folder)), lambda: image_processor_for(arguments)):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


REFUSED_AFTER = {
    "no resize": {"do_resize": False},
    "shortest edge": {"size": {"shortest_edge": 64}},
    "not a square": {"size": {"height": 64, "width": 70}},
    "crop not a square": {"crop_size": {"height": 56, "width": 50}},
    "crop larger": {"crop_size": {"height": 70, "width": 70}},
    "crop not made": {"do_center_crop": False},
    "ConvNext's crop_pct": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 56}},
    "BiT": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 64}},
}


@pytest.mark.parametrize("changes", REFUSED_AFTER.values(), ids=REFUSED_AFTER)
def test_another_geometry_is_refused_in_measuring_and_replaced_in_training(checkpoint, changes):
    folder = checkpoint(**changes)
    with pytest.raises(ValueError, match=r"the image processor (must resize to a square|crops 70 pixels out of 64)"):
        check_geometry(load_processor(folder))
    ours = image_processor_for(ModelArguments(model_name_or_path=str(folder), image_size=40, resize_size=48))
    assert list(ours.image_mean) == SAVED["image_mean"]
    assert (ours.size["height"], ours.crop_size["height"]) == (48, 40)


def test_padding_that_is_not_foreseen_is_seen(checkpoint):
    folder = checkpoint(do_pad=True, pad_size={"height": 64, "width": 64})
    with pytest.raises(ValueError, match="does more than resize"):
        check_geometry(load_processor(folder))


def test_a_trained_model_without_its_processor_is_refused(checkpoint):
    folder = checkpoint()
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config\.json"):
        load_processor(folder)


def test_sizes_that_no_machine_could_hold_are_refused():
    with pytest.raises(ValueError, match="resize_size is 10000000"):
        image_processor_for(ModelArguments(image_size=32, resize_size=10**7))


def test_collate_keeps_types_and_unknown_cells():
    row = {"pixels": np.zeros((8, 8), np.uint8), "labels": np.array([1, np.nan], np.float32), "row": 7}
    batch = collate([row, row])
    assert batch["pixel_values"].shape == (2, 1, 8, 8)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["labels"].dtype == torch.float32
    assert batch["labels"].isnan().tolist() == [[False, True]] * 2
    assert batch["row"].tolist() == [7, 7]


def test_collate_passes_a_ready_batch_on():
    batch = {"pixel_values": torch.zeros(2, 1, 8, 8), "labels": torch.zeros(2, 1), "row": np.arange(2)}
    assert collate(batch) is batch
