"""`MaskedImageTrainer`: the package's Trainer, for reconstructing masked patches in place of finding labels.

Sampler, pixels, steps, progress, checkpoints and resuming are `training.trainer.CXRTrainer`'s. Each override says why
it is there.

B = images, M = images of a set, N = the model's patches of an image.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import EvalPrediction

from hf_cxr.pretraining.loss import MaskedL1
from hf_cxr.pretraining.masks import EPOCH_OF_MEASURING, PatchMasks
from hf_cxr.training.trainer import CXRTrainer


class MaskedImageTrainer(CXRTrainer):
    """Pre-trains a `SwinForMaskedImageModeling` on batches of `processing.collate`; labels are not looked at.

    Args:
        masks: which patches of each row are masked.
        left_out: numbers of training rows whose images cannot be read: they stay in their places and count nothing.
        kwargs: `CXRTrainer`'s, without ``loss``.
    """

    shown_metrics = {}  # noqa: RUF012 - the loss is all that is measured

    def __init__(self, *args: Any, masks: PatchMasks, left_out: Collection[int] = (), **kwargs: Any):
        self.masks, self.left_out = masks, np.array(sorted(left_out), dtype=np.int64)
        super().__init__(*args, loss=MaskedL1(masks.patch_size), **kwargs)

    def count_items(self, batch: dict[str, Any]) -> torch.Tensor:
        # An item is a masked pixel, and each image that counts has as many.
        return torch.tensor(int(self._counts(batch["row"]).sum()) * self.masks.masked_pixels)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ):
        # The model's own loss is a mean over a micro-batch, and knows nothing of images that are left out.
        epoch = int(self.state.epoch or 0)
        pixel_values = self.pixels.augment(inputs["pixel_values"], inputs["row"], epoch)
        mask_BN = self._mask(inputs["row"], epoch)
        outputs = model(pixel_values=pixel_values, bool_masked_pos=mask_BN)
        counted_B = torch.from_numpy(self._counts(inputs["row"])).to(mask_BN.device)
        loss = self.loss(
            outputs.reconstruction, pixel_values, mask_BN & counted_B[:, None], num_items=num_items_in_batch
        )
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size  # data-parallel training averages gradients; here they must add up
        return (loss, outputs) if return_outputs else loss

    def _predicted(self, model: torch.nn.Module, dataloader: DataLoader) -> tuple[np.ndarray, ...]:
        # In place of logits and labels: the loss of each image, (M, 1), with a mask that is the same in each epoch.
        self.callback_handler.eval_dataloader = dataloader
        rows, losses = [], []
        with torch.no_grad(), self.accelerator.autocast():
            for inputs in dataloader:
                inputs = self._prepare_inputs(inputs)
                pixel_values = self.pixels(inputs["pixel_values"])
                mask_BN = self._mask(inputs["row"], EPOCH_OF_MEASURING)
                outputs = model(pixel_values=pixel_values, bool_masked_pos=mask_BN)
                rows.append(inputs["row"])
                losses.append(self.loss.of_each(outputs.reconstruction, pixel_values, mask_BN))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        loss_M1 = torch.cat(losses).float().cpu().numpy()[:, None]
        return np.concatenate(rows), loss_M1, np.zeros_like(loss_M1)

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        # Each image has as many masked pixels, so the mean over images is the mean over pixels.
        loss = float(np.mean(prediction.predictions, dtype=np.float64))
        if not np.isfinite(loss):
            raise ValueError(
                f"pre-training diverged: reconstructions are not finite after epoch {self.state.epoch or 0:g}; start "
                "again with a lower --learning_rate, or with --max_grad_norm 1"
            )
        return {"loss": loss}

    def _mask(self, row_B: np.ndarray, epoch: int) -> torch.Tensor:
        return torch.from_numpy(self.masks.draw(row_B, epoch)).to(self.args.device, non_blocking=True)

    def _counts(self, row_B: np.ndarray) -> np.ndarray:
        """Whether each row counts, (B,) bool."""
        return ~np.isin(row_B, self.left_out)
