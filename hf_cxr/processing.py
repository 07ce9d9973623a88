"""From 8-bit grey images to normalised batches: the evaluation image processor, its twin on the device, augmentation.

The image processor saved with a model *is* the evaluation preprocessing: resize to ``resize_size``, centre crop to
``image_size``, grey to three channels, mean and std. Training and evaluation here start from images that were
resized before (uint8, once) and do the rest on the device; `PixelProcessor` gives the processor's own values.

A saved processor is followed exactly or refused: `preprocessing_of` reads it, and `check_values` and `check_geometry`
run it once on an image of their own, so that an unexpected step is noticed before the first prediction.

B = images, S = resized side, D = cropped side, both in pixels.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.utils import is_torchvision_available

from hf_cxr.augmentation import Augmentation, Draws, change_levels
from hf_cxr.config import ModelArguments
from hf_cxr.saved_models import PROCESSOR, TIMM_CONFIG, model_folder, read_config, reading

logger = logging.getLogger(__name__)

MAX_SIDE = 4096  # pixels; no model takes half of it
MAX_VALUE = 1e5  # usual processors give about 3, one without rescaling 255
VALUE_TOLERANCE = 1e-4  # relative to the largest value that the model gets
CACHED_PIXELS = 2**17  # output pixels at a time on a CPU: their intermediate values stay in its second-level cache
GEOMETRY_TOLERANCE = 3.0  # grey levels on average: torchvision's resize differs from Pillow's by less than one


def build_image_processor(
    resize_size: int,
    image_size: int,
    *,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    resample: int = PILImageResampling.BICUBIC,
) -> BaseImageProcessor:
    """The evaluation preprocessing as a transformers image processor, with or without torchvision installed.

    It is DeiT's processor, which resizes, then crops the centre, then normalises in every release of transformers;
    ViT's, the default of many models, had no centre crop before version 5 and would silently leave it out.
    """
    if is_torchvision_available():
        from transformers import DeiTImageProcessor as Processor
    else:
        from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil as Processor
    return Processor(
        size={"height": resize_size, "width": resize_size},
        crop_size={"height": image_size, "width": image_size},
        resample=PILImageResampling(resample),
        do_convert_rgb=True,
        image_mean=list(mean),
        image_std=list(std),
    )


@dataclass(frozen=True)
class Preprocessing:
    """What an image processor does to an 8-bit image: resize to a square, crop its centre, then scale and shift.

    Attributes:
        resize_size: side of the square in pixels.
        image_size: side of the crop in pixels, at most ``resize_size``.
        resample: Pillow's number of the filter.
        rescale_factor: each grey level is multiplied by it, before mean and std.
        mean, std: of the three channels, after rescaling; 0 and 1 if the processor does not normalise.
    """

    resize_size: int
    image_size: int
    resample: int
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def preprocessing_of(processor: BaseImageProcessor) -> Preprocessing:
    """Read a processor.

    Raises:
        ValueError: it does not resize to a square, crops more than there is, or has an invalid size, filter, factor,
            mean or std.
    """
    if not processor.do_resize:
        raise _not_a_square(processor)
    resize_size = _square(processor, "size")
    cropped = _size_of(processor, "crop_size")
    if not getattr(processor, "do_center_crop", False) and cropped not in ({}, _size_of(processor, "size")):
        raise _not_a_square(processor)  # a crop size that is not used: the model was made for one of the two
    image_size = _square(processor, "crop_size") if cropped else resize_size
    if image_size > resize_size:
        raise ValueError(
            f"the image processor crops {image_size} pixels out of {resize_size} (crop_size and size in {PROCESSOR}); "
            "the crop must not be larger"
        )
    return Preprocessing(resize_size, image_size, _filter(processor), *_values(processor))


def image_processor_for(args: ModelArguments) -> BaseImageProcessor:
    """The evaluation preprocessing for a run: sizes from the arguments, values and filter from the checkpoint.

    Rescaling, mean, std (if it applies them) and filter are the checkpoint's, or those of the model that a backbone
    comes from; ``resize_size`` and ``image_size`` replace its resize and crop. A fresh model, or a local checkpoint
    without a processor, uses ImageNet's mean and std and the bicubic filter.

    Raises:
        ValueError: the checkpoint's processor cannot be read, or its values differ from what its settings say.
    """
    _check_side(args.resize_size, "resize_size")
    _check_side(args.image_size, "image_size")
    name = args.initial_model
    if name is None:
        return build_image_processor(args.resize_size, args.image_size)
    folder = model_folder(name, args.model_revision)
    of_timm = read_config(folder).get(TIMM_CONFIG)
    if of_timm is not None:
        return build_image_processor(args.resize_size, args.image_size, **_of_timm(of_timm))
    if Path(name).is_dir() and not (folder / PROCESSOR).is_file():
        return build_image_processor(args.resize_size, args.image_size)
    given = load_processor(name, args.model_revision)
    factor, mean, std = _values(given)
    resample = _filter(given)
    check_values(given)
    ratio = 255 * factor
    if not math.isclose(ratio, 1):  # (255 f x - mean) / std, with x from 0 to 1, in the form that is built here
        mean, std = (tuple(value / ratio for value in values) for values in (mean, std))
    if getattr(given, "do_resize", True) and not _is_square(given):
        logger.info(
            "the checkpoint's own resize (%s) is replaced: images of any shape become %d x %d pixels",
            _size_of(given, "size"),
            args.resize_size,
            args.resize_size,
        )
    return build_image_processor(args.resize_size, args.image_size, mean=mean, std=std, resample=resample)


def _of_timm(values: Any) -> dict[str, Any]:
    """Mean, std and filter of a checkpoint of timm, which are in its config.json; timm's own defaults are ImageNet's.

    Raises:
        ValueError: a value that cannot be.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{TIMM_CONFIG} in config.json is {values!r:.40}; it must be a mapping")
    mean, std = values.get("mean", IMAGENET_DEFAULT_MEAN), values.get("std", IMAGENET_DEFAULT_STD)
    for key, three in (("mean", mean), ("std", std)):
        if not isinstance(three, list | tuple) or len(three) != 3 or not all(map(_is_number, three)):
            raise ValueError(
                f"{key} of {TIMM_CONFIG} in config.json is {three!r:.40}; it must be three finite numbers"
            )
    if min(std) <= 0:
        raise ValueError(f"std of {TIMM_CONFIG} in config.json is {list(std)}; each must be above 0")
    name = str(values.get("interpolation", "bicubic"))
    if name.upper() not in Image.Resampling.__members__:
        known = ", ".join(sorted(Image.Resampling.__members__)).lower()
        raise ValueError(f"interpolation of {TIMM_CONFIG} in config.json is {name!r:.40}; it must be one of {known}")
    return {"mean": mean, "std": std, "resample": Image.Resampling[name.upper()]}


def load_processor(name: str | Path, revision: str = "main") -> BaseImageProcessor:
    """The image processor that was saved with a model.

    Args:
        name: Hub id or folder.
        revision: branch, tag or commit of a Hub id.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, or needs code of its own.
    """
    folder = model_folder(name, revision)
    if not (folder / PROCESSOR).is_file():
        raise FileNotFoundError(
            f"{name} has no {PROCESSOR}, so its preprocessing is not known; copy the one that it was trained with"
        )
    return reading(
        f"{PROCESSOR} of {name}",
        partial(AutoImageProcessor.from_pretrained, folder, trust_remote_code=False, local_files_only=True),
    )


def check_values(processor: BaseImageProcessor) -> None:
    """Run the processor on uniform grey images: it must do nothing to a value but scale and normalise it.

    Raises:
        ValueError: its values differ from what its settings say.
    """
    _check_sizes(processor)
    factor, mean, std = _values(processor)
    for level in (0, 100, 255):
        expected_C = (level * factor - np.array(mean)) / np.array(std)
        actual_CHW = _run(processor, np.full((64, 64), level, np.uint8))
        middle_C = actual_CHW[:, actual_CHW.shape[1] // 2, actual_CHW.shape[2] // 2]
        _check_close(middle_C, expected_C, processor)


def check_geometry(processor: BaseImageProcessor) -> None:
    """Run the processor on random images: it must do nothing to a shape but resize it and crop the centre.

    Raises:
        ValueError: `PixelProcessor` gives a different image.
    """
    _check_sizes(processor)
    pixels = PixelProcessor(processor)
    size, rng = pixels.resize_size, np.random.default_rng(0)
    exact = rng.integers(0, 256, (size, size), dtype=np.uint8)
    _check_close(_run(processor, exact), _on_device(pixels, exact), processor)
    uneven = rng.integers(0, 256, (size + 24, size + 9), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(uneven).resize((size, size), pixels.resample))
    actual, expected = _run(processor, uneven), _on_device(pixels, resized)
    level = pixels.scale.abs().max().item()
    if actual.shape != expected.shape or np.abs(actual - expected).mean() > GEOMETRY_TOLERANCE * level:
        raise _not_reproducible(processor)


def _on_device(pixels: "PixelProcessor", grey_HW: np.ndarray) -> np.ndarray:
    return pixels(torch.from_numpy(grey_HW.copy())[None, None])[0].numpy()


def _run(processor: BaseImageProcessor, grey_HW: np.ndarray) -> np.ndarray:
    """What the stock pipeline would feed its model for this image, (3, H, W) float32."""
    image = Image.fromarray(grey_HW).convert("RGB")
    values = reading("the image processor", lambda: processor(image, return_tensors="pt")["pixel_values"][0])
    return values.float().numpy()


def _check_close(actual: np.ndarray, expected: np.ndarray, processor: BaseImageProcessor) -> None:
    tolerance = VALUE_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if actual.shape != expected.shape or not np.abs(actual - expected).max() <= tolerance:
        raise _not_reproducible(processor)


def _not_reproducible(processor: BaseImageProcessor) -> ValueError:
    return ValueError(
        f"the image processor ({type(processor).__name__}) does more than resize to a square, crop the centre, scale "
        f"and normalise, so predictions would differ from the stock pipeline's; save another {PROCESSOR}"
    )


def _values(processor: BaseImageProcessor) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Rescale factor, mean and std as applied: 1, and 0 and 1, if the processor leaves them out."""
    factor, mean, std = 1.0, (0.0,) * 3, (1.0,) * 3
    if processor.do_rescale:
        factor = processor.rescale_factor
        if not _is_number(factor) or factor <= 0:
            raise ValueError(f"rescale_factor in {PROCESSOR} is {factor}; it must be a number above 0")
    if processor.do_normalize:
        mean, std = (_channels(processor, key) for key in ("image_mean", "image_std"))
        if getattr(processor, "include_top", False) is True:  # EfficientNet's divides by the std twice
            std = tuple(value * value for value in std)
        if min(std) <= 0:
            raise ValueError(f"image_std in {PROCESSOR} is {list(std)}; each must be above 0")
    largest = max(max(abs(255 * factor - m), abs(m)) / s for m, s in zip(mean, std, strict=True))
    if largest > MAX_VALUE:
        raise ValueError(
            f"{PROCESSOR} turns grey levels into values of up to {largest:.1e} (rescale_factor {factor}, image_mean "
            f"{list(mean)}, image_std {list(std)}); the largest that a model gets is {MAX_VALUE:.0e}"
        )
    return factor, mean, std


def _channels(processor: BaseImageProcessor, key: str) -> tuple[float, ...]:
    value = getattr(processor, key)
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    if len(values) != 3 or not all(map(_is_number, values)):
        raise ValueError(f"{key} in {PROCESSOR} is {value}; it must be three finite numbers, one per channel")
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _filter(processor: BaseImageProcessor) -> int:
    try:
        return int(Image.Resampling(int(processor.resample)))
    except (TypeError, ValueError) as error:
        known = ", ".join(f"{entry.value} {entry.name.lower()}" for entry in sorted(Image.Resampling))
        raise ValueError(f"resample in {PROCESSOR} is {processor.resample}; it must be one of {known}") from error


def _size_of(processor: BaseImageProcessor, key: str) -> dict[str, Any]:
    """The entries of a size that are set."""
    size = getattr(processor, key, None)
    return {name: side for name, side in dict(size or {}).items() if side is not None}


def _is_square(processor: BaseImageProcessor) -> bool:
    size = _size_of(processor, "size")
    return set(size) == {"height", "width"} and size["height"] == size["width"]


def _square(processor: BaseImageProcessor, key: str) -> int:
    size = _size_of(processor, key)
    if set(size) != {"height", "width"} or size["height"] != size["width"]:
        raise _not_a_square(processor)
    _check_side(size["height"], f"{key} in {PROCESSOR}")
    return size["height"]


def _not_a_square(processor: BaseImageProcessor) -> ValueError:
    return ValueError(
        "the image processor must resize to a square and crop its centre, or only resize to a square; this one does "
        f"not: do_resize {processor.do_resize}, size {_size_of(processor, 'size')}, do_center_crop "
        f"{getattr(processor, 'do_center_crop', None)}, crop_size {_size_of(processor, 'crop_size')}. "
        "Build it with build_image_processor()"
    )


def _check_sizes(processor: BaseImageProcessor) -> None:
    for key in ("size", "crop_size", "pad_size"):
        for name, side in _size_of(processor, key).items():
            _check_side(side, f"{key} {name} in {PROCESSOR}")


def _check_side(side: Any, name: str) -> None:
    if type(side) is not int or not 1 <= side <= MAX_SIDE:
        raise ValueError(f"{name} is {side}; it must be a whole number of pixels from 1 to {MAX_SIDE:,}")


class PixelProcessor(torch.nn.Module):
    """What the image processor does after its resize, for whole uint8 batches on their device; and augmentation.

    Args:
        processor: an image processor from `build_image_processor`, or one saved with a model of this package.
        seed: of the augmentation. The draws depend only on (seed, epoch, row), so they are the same on one process or
            many, in one micro-batch or several, with or without a resume.
        augmentation: fields of `Augmentation`, such as ``horizontal_flip=0.5``; by default nothing is varied.

    Raises:
        ValueError: see `preprocessing_of`.
    """

    def __init__(self, processor: BaseImageProcessor, *, seed: int = 0, **augmentation: Any):
        super().__init__()
        steps = preprocessing_of(processor)
        self.resize_size, self.image_size, self.resample = steps.resize_size, steps.image_size, steps.resample
        self.augmentation, self.seed = Augmentation(**augmentation), seed
        std = torch.tensor(steps.std)[None, :, None, None]
        self.register_buffer("scale", steps.rescale_factor / std)
        self.register_buffer("shift", -torch.tensor(steps.mean)[None, :, None, None] / std)
        side = self.image_size  # the centres of D pixels between -1 and 1
        self.register_buffer("axis", torch.linspace(-1, 1, side) * (side - 1) / side, persistent=False)

    def forward(self, pixel_B1SS: torch.Tensor) -> torch.Tensor:
        """Evaluation: (B, 1, S, S) uint8 to (B, 3, D, D) float32, the image processor's own values."""
        start = (self.resize_size - self.image_size) // 2
        stop = start + self.image_size
        crop_B1DD = pixel_B1SS[..., start:stop, start:stop]
        if crop_B1DD.device.type != "cpu":
            return (crop_B1DD.float() * self.scale).add_(self.shift)
        value_B3DD = self._new(len(crop_B1DD))
        for part in self._parts(len(crop_B1DD)):
            value_G1DD = crop_B1DD[part].float()
            for channel_GDD, scale, shift in self._each_channel(value_B3DD[part]):
                # Two roundings, product and sum, as everywhere: one operation for both would round once.
                torch.mul(value_G1DD[:, 0], scale, out=channel_GDD).add_(shift)
        return value_B3DD

    def augment(self, pixel_B1SS: torch.Tensor, row_B: np.ndarray, epoch: int) -> torch.Tensor:
        """Training: rotate, crop and flip in one bilinear resampling, and change levels; same shapes as `forward`.

        The one grey channel is resampled, and the three channels are written from it.

        Args:
            pixel_B1SS: uint8.
            row_B: int64 row numbers in the training set; they and the epoch determine the draws. They stay on the
                host, so that a step does not wait for the device.
            epoch: number of completed passes over the training set.
        """
        return self._drawn(pixel_B1SS, self.draw(row_B, epoch))

    def draw(self, row_B: Sequence[int] | np.ndarray, epoch: int) -> Draws:
        """What is done to these rows in this epoch."""
        return self.augmentation.draw(self.seed, epoch, np.asarray(row_B), self.image_size / self.resize_size)

    def view(self, pixel_B1SS: torch.Tensor, *, flip: bool = False, scale: float = 1.0) -> torch.Tensor:
        """Evaluation of another view of the same images: the mirror image, or a closer or wider crop.

        Args:
            pixel_B1SS: uint8.
            flip: left and right are exchanged.
            scale: above 1 the crop is smaller and the image in it larger. At 1 the values are those of `forward`, to
                the bit; else they are resampled. What is outside the image is black.
        """
        if scale == 1.0:
            value_B3DD = self(pixel_B1SS)
            return value_B3DD.flip(-1) if flip else value_B3DD
        images = len(pixel_B1SS)
        half = self.image_size / self.resize_size / scale
        box_B4 = np.tile([0.0, 0.0, half, half], (images, 1))
        return self._drawn(pixel_B1SS, Draws(np.full(images, flip), np.zeros(images), box_B4))

    def _drawn(self, pixel_B1SS: torch.Tensor, draws: Draws) -> torch.Tensor:
        """(B, 3, D, D) float32, resampled and changed as drawn."""
        device, level = pixel_B1SS.device, draws.levels()
        step_B32 = torch.from_numpy(draws.steps()).to(device, non_blocking=True)
        level_B6 = None if level is None else torch.from_numpy(level).to(device, non_blocking=True)
        # Autocast would sample at bfloat16 coordinates, which are as coarse as whole pixels.
        with torch.autocast(device.type, enabled=False):
            if device.type != "cpu":
                return torch.addcmul(self.shift, self._grey(pixel_B1SS, draws, step_B32, level_B6), self.scale)
            value_B3DD = self._new(len(pixel_B1SS))
            for part in self._parts(len(pixel_B1SS)):
                own_G6 = None if level_B6 is None else level_B6[part]
                value_G1DD = self._grey(pixel_B1SS[part], draws, step_B32[part], own_G6)
                for channel_GDD, scale, shift in self._each_channel(value_B3DD[part]):
                    torch.add(shift, value_G1DD[:, 0], alpha=scale, out=channel_GDD)
            return value_B3DD

    def _grey(
        self, pixel_B1SS: torch.Tensor, draws: Draws, step_B32: torch.Tensor, level_B6: torch.Tensor | None
    ) -> torch.Tensor:
        """Grey levels (B, 1, D, D) float32 at the coordinates of `F.affine_grid`, which are a sum of two lines.

        A matrix product of every pixel's coordinates, as there, takes longer than the sampling.
        """
        right_B2, down_B2, centre_B2 = (step[..., None, None] for step in step_B32.unbind(1))
        grid_B2DD = (right_B2 * self.axis + centre_B2) + down_B2 * self.axis[:, None]
        grey_B1DD = F.grid_sample(pixel_B1SS.float(), grid_B2DD.permute(0, 2, 3, 1), align_corners=False)
        return grey_B1DD if level_B6 is None else change_levels(grey_B1DD, draws, level_B6, self.axis)

    # On a CPU a batch passes through its caches a few images at a time, and one channel after the other: whole batches
    # of floats would go through the memory once for each operation.

    def _parts(self, images: int) -> Iterator[slice]:
        """The batch in parts of a few images, at least one for each thread."""
        step = max(torch.get_num_threads(), CACHED_PIXELS // self.image_size**2, 1)
        return (slice(start, start + step) for start in range(0, images, step))

    def _new(self, images: int) -> torch.Tensor:
        # NumPy asks the system for huge pages where an array is large, which torch does not: a fresh batch of 64
        # images is written four times as fast.
        return torch.from_numpy(np.empty((images, 3, self.image_size, self.image_size), np.float32))

    def _each_channel(self, value_G3DD: torch.Tensor) -> Iterator[tuple[torch.Tensor, float, torch.Tensor]]:
        """Each channel with its scale and shift."""
        return zip(value_G3DD.unbind(1), self.scale.flatten().tolist(), self.shift.flatten(), strict=True)


def collate(examples: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> Mapping[str, torch.Tensor | np.ndarray]:
    """Rows to a batch: tensors pixel_values (B, 1, S, S) uint8 and labels (B, C) float32 with NaN for unknown.

    The row numbers, "row" (B,) int64, are a NumPy array, which Accelerate leaves on the host. What a dataset gave as a
    whole batch is returned as it is.
    """
    if isinstance(examples, Mapping):
        return examples
    return {
        "pixel_values": torch.from_numpy(np.stack([example["pixels"] for example in examples])[:, None]),
        "labels": torch.tensor(np.array([example["labels"] for example in examples], dtype=np.float32)),
        "row": np.array([example["row"] for example in examples]),
    }
