"""From 8-bit grey images to normalised batches: the evaluation image processor, its twin on the device, augmentation.

The image processor saved with a model *is* the evaluation preprocessing: resize to ``resize_size``, centre crop to
``image_size``, grey to three channels, mean and std. Training and evaluation here start from images that were
resized already (uint8, once) and do the rest on the device; `PixelProcessor` gives the processor's own values.

B = images, S = resized side, D = cropped side, both in pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.utils import is_torchvision_available

from hf_cxr.config import ModelArguments


def build_image_processor(
    resize_size: int,
    image_size: int,
    *,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    resample: int = PILImageResampling.BICUBIC,
) -> BaseImageProcessor:
    """The evaluation preprocessing as a transformers image processor, with or without torchvision installed.

    DeiT's processor is used because resize, then centre crop, then normalise is what it does in every release of
    transformers; Swin's own default (ViT's) had no centre crop before version 5 and would drop it in silence.
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


def image_processor_for(args: ModelArguments) -> BaseImageProcessor:
    """The evaluation preprocessing for a run: sizes from the arguments, mean, std and filter from the checkpoint.

    A fresh model, or a local checkpoint without a processor, takes ImageNet's mean and std and the bicubic filter.
    """
    if args.model_name_or_path is None:
        return build_image_processor(args.resize_size, args.image_size)
    folder = Path(args.model_name_or_path)
    if folder.is_dir() and not (folder / "preprocessor_config.json").is_file():
        return build_image_processor(args.resize_size, args.image_size)
    given = AutoImageProcessor.from_pretrained(args.model_name_or_path, revision=args.model_revision)
    return build_image_processor(
        args.resize_size, args.image_size, mean=given.image_mean, std=given.image_std, resample=given.resample
    )


class PixelProcessor(torch.nn.Module):
    """What the image processor does after its resize, for whole uint8 batches on their device; and augmentation.

    Args:
        processor: an image processor from `build_image_processor`, or one saved with a model of this package.
        horizontal_flip: probability of a left-right flip in training.
        rotation_degrees: training angle is drawn evenly from -this to +this.
        seed: of the augmentation. What is drawn depends on (seed, epoch, row) alone, so it is the same on one
            process or many, in one micro-batch or several, straight through or resumed.

    Raises:
        ValueError: the processor has no resize or no centre crop.
    """

    def __init__(
        self,
        processor: BaseImageProcessor,
        *,
        horizontal_flip: float = 0.0,
        rotation_degrees: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        size, crop = dict(processor.size), dict(processor.crop_size or {})
        if not processor.do_resize or not processor.do_center_crop or size.get("height") != size.get("width"):
            raise ValueError(
                "the image processor must resize to a square and crop its centre; this one does not: "
                f"size {size}, do_center_crop {processor.do_center_crop}. Build it with build_image_processor()"
            )
        self.resize_size, self.image_size = size["height"], crop["height"]
        self.resample = int(processor.resample)
        self.horizontal_flip, self.rotation_degrees, self.seed = horizontal_flip, rotation_degrees, seed
        std = torch.tensor(processor.image_std)[None, :, None, None]
        self.register_buffer("scale", processor.rescale_factor / std)
        self.register_buffer("shift", -torch.tensor(processor.image_mean)[None, :, None, None] / std)

    def forward(self, pixel_B1SS: torch.Tensor) -> torch.Tensor:
        """Evaluation: (B, 1, S, S) uint8 to (B, 3, D, D) float32, the image processor's own values."""
        start = (self.resize_size - self.image_size) // 2
        stop = start + self.image_size
        return self._normalise(pixel_B1SS[..., start:stop, start:stop].float())

    def augment(self, pixel_B1SS: torch.Tensor, row_B: np.ndarray, epoch: int) -> torch.Tensor:
        """Training: rotate about the centre, flip and crop in one bilinear resampling; same shapes as `forward`.

        Args:
            pixel_B1SS: uint8.
            row_B: int64 row numbers in the training set; they and the epoch decide what is drawn. They stay on the
                host, so that a step does not wait for the device.
            epoch: number of completed passes over the training set.
        """
        flip_B, angle_B = self.draw(row_B, epoch)
        ratio = self.image_size / self.resize_size
        cos, sin = np.cos(angle_B) * ratio, np.sin(angle_B) * ratio
        theta = np.zeros((len(angle_B), 2, 3), dtype=np.float32)
        theta[:, 0, 0], theta[:, 0, 1] = np.where(flip_B, -cos, cos), -sin
        theta[:, 1, 0], theta[:, 1, 1] = np.where(flip_B, -sin, sin), cos
        shape = (len(angle_B), 1, self.image_size, self.image_size)
        theta = torch.from_numpy(theta).to(pixel_B1SS.device, non_blocking=True)
        # Autocast would sample at bfloat16 coordinates, which are whole pixels apart.
        with torch.autocast(pixel_B1SS.device.type, enabled=False):
            grid = F.affine_grid(theta, shape, align_corners=False)
            return self._normalise(F.grid_sample(pixel_B1SS.float(), grid, align_corners=False))

    def draw(self, row_B: Sequence[int] | np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Flips (B,) bool and angles (B,) float64 in radians for these rows in this epoch."""
        uniform_B2 = np.array([np.random.default_rng([self.seed, epoch, row]).random(2) for row in row_B])
        return uniform_B2[:, 0] < self.horizontal_flip, np.deg2rad((2 * uniform_B2[:, 1] - 1) * self.rotation_degrees)

    def _normalise(self, pixel_B1DD: torch.Tensor) -> torch.Tensor:
        return pixel_B1DD * self.scale + self.shift


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor | np.ndarray]:
    """Rows to a batch: tensors pixel_values (B, 1, S, S) uint8 and labels (B, C) float32 with NaN for unknown.

    The rows' numbers, "row" (B,) int64, are a NumPy array: Accelerate moves tensors to the device and leaves it here.
    """
    return {
        "pixel_values": torch.from_numpy(np.stack([example["pixels"] for example in examples])[:, None]),
        "labels": torch.tensor(np.array([example["labels"] for example in examples], dtype=np.float32)),
        "row": np.array([example["row"] for example in examples]),
    }
