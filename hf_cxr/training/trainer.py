"""`CXRTrainer`: transformers' Trainer for multi-label images.

The loss, the sampler and the pixel processing are passed in. Each override says why it is there.

B = images, C = findings, S = resized side in pixels.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, IterableDataset, Sampler
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import (
    EvalLoopOutput,
    IntervalStrategy,
    SaveStrategy,
    denumpify_detensorize,
    rotate_checkpoints,
)

from hf_cxr import processes
from hf_cxr.evaluation import modern_figures
from hf_cxr.models.batch_norm import batch_norms, check_batch_norm, frozen_parts, synchronised
from hf_cxr.processing import PixelProcessor, collate
from hf_cxr.training.checkpoints import CHECKSUMS, best_checkpoint, check_whole, seal
from hf_cxr.training.layer_rates import LayerRates
from hf_cxr.training.mixup import Mixup
from hf_cxr.training.progress import LossMean, StepClock, TrainingBar, TrainingTable


class CXRTrainer(Trainer):
    """Fine-tunes a multi-label classifier on batches of `processing.collate`.

    Args:
        loss: module with ``loss(logits (B, C), targets (B, C), num_items=None) -> scalar``: the sum over items (for
            most losses, known cells) divided by ``num_items``, by default their own number; with
            ``count_items(targets)``; and with ``additive``: whether the losses of a step's micro-batches add up.
        pixels: turns uint8 batches into the model's input, with ``augment`` in training.
        sampler: draws training rows; has ``set_epoch``. None for a stream, which has its own order.
        decay_all_parameters: weight decay on biases and norms too, as `torch.optim.Adam(model.parameters())` does.
        average: a callback that keeps averaged weights, see `callbacks.WeightAverage`: what is evaluated and saved.
        interpolation: mixes labels and features of draws, see `feature_oversampling.FeatureOversampling`.
        rates: different learning rates for layers and head, see `layer_rates.LayerRates`; None is one rate for all.
        mixup: mixes each training image with a partner, see `mixup.Mixup`; it made the sampler and the training set.
        compute_metrics: as the Trainer's; the loss over the whole set is added to its values.
        kwargs: the Trainer's own.
    """

    # compute_loss divides by the number of items in the whole optimizer step, over all accumulation steps and
    # processes. The Trainer must not divide again.
    loss_is_scaled_for_ga = True

    shown_metrics: Mapping[str, str] | None = None
    """Validation figures of the table, key -> title; None: the headline metrics."""

    def __init__(
        self,
        *args: Any,
        loss: torch.nn.Module,
        pixels: PixelProcessor,
        sampler: Sampler[int] | None = None,
        decay_all_parameters: bool = False,
        average: TrainerCallback | None = None,
        interpolation: Any = None,
        rates: LayerRates | None = None,
        mixup: Mixup | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **kwargs: Any,
    ):
        self.loss, self.pixels, self.sampler, self.decay_all_parameters = loss, pixels, sampler, decay_all_parameters
        self.average, self.interpolation, self._metrics_of_set = average, interpolation, compute_metrics
        self.rates, self.mixup = rates, mixup
        kwargs.setdefault("data_collator", collate)
        with warnings.catch_warnings():
            # The Trainer's own smoothing is for one label per image; here the loss smooths, see `MultiLabelLoss`.
            warnings.filterwarnings("ignore", message="Label smoothing is not compatible with multi-label")
            super().__init__(*args, compute_metrics=self._compute_metrics, **kwargs)
        if not loss.additive and (self.args.gradient_accumulation_steps > 1 or self.args.world_size > 1):
            raise ValueError(
                f"{type(loss).__name__}: the loss of a cell depends on other images of its batch, so the gradients "
                "depend on how a step is split up; use 1 process and gradient_accumulation_steps 1, not "
                f"{self.args.world_size} and {self.args.gradient_accumulation_steps}"
            )
        check_batch_norm(
            self.model,
            images=self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            accumulation=self.args.gradient_accumulation_steps,
            processes=self.args.world_size,
            device=self.args.device.type,
            sharded=self.is_fsdp_enabled or self.is_deepspeed_enabled,
        )
        if self.args.world_size > 1 and batch_norms(self.model):
            self.model = self.model_wrapped = synchronised(self.model)
        if rates is not None:
            self._check_rates()
        if mixup is not None:
            loss.check_soft_targets(f"mixup_alpha is {mixup.alpha:g}")
        self.loss.to(self.args.device)
        self.pixels.to(self.args.device)
        # From pinned memory (the Trainer's default) a batch is copied while the device computes. Accelerate's default,
        # a copy that blocks, would let each step wait until the device has done all steps before it.
        is_pinned = self.args.dataloader_pin_memory and self.args.device.type == "cuda"
        self.accelerator.dataloader_config.non_blocking = is_pinned
        self.clock, self.losses = StepClock(), LossMean(self._mean_of_processes)
        self._parameters, self._steps_in_epoch = None, None
        self._show_progress()
        if sampler is not None:
            self.add_callback(_SamplerEpoch(sampler))
        if average is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError(
                    "ema_decay does not work with FSDP or DeepSpeed: an average needs all weights on each device"
                )
            self.add_callback(average)
        # The Trainer puts the whole model into training mode before each step. In a frozen part, stochastic depth
        # would only add noise to weights that cannot adapt.
        self._frozen = list(frozen_parts(self.model))

    def _show_progress(self) -> None:
        # The Trainer's own bar prints each log entry as a dictionary.
        for callback in (ProgressCallback, PrinterCallback):
            self.remove_callback(callback)
        self.add_callback(self.clock)
        self.add_callback(TrainingTable(self.clock, self.losses, self.shown_metrics))
        if not self.args.disable_tqdm:
            self.add_callback(TrainingBar(self.clock))

    def _mean_of_processes(self, value: torch.Tensor) -> torch.Tensor:
        return self.accelerator.gather(value).mean() if self.args.world_size > 1 else value

    def _get_train_sampler(self, train_dataset=None) -> Sampler[int] | None:
        # The sampler is passed in: which images an epoch draws is one of the long-tail methods.
        return super()._get_train_sampler(train_dataset) if self.sampler is None else self.sampler

    def _get_dataloader(self, dataset, description: str, batch_size: int, *args: Any, **kwargs: Any):
        # For a stream, Accelerate would let the first process decode everything and send the rest their parts, or let
        # each process decode the whole stream. Here a stream knows its process's part, its length and the epoch.
        if not isinstance(dataset, IterableDataset):
            return super()._get_dataloader(dataset, description, batch_size, *args, **kwargs)
        return DataLoaderShard(
            dataset,
            device=self.args.device,
            batch_size=batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            _non_blocking=self.accelerator.non_blocking,
        )

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        # The reference applies weight decay to every parameter; the Trainer leaves out biases and norms.
        if self.decay_all_parameters:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)

    def _check_rates(self) -> None:
        if self.is_fsdp_enabled and self.accelerator.state.fsdp_plugin.fsdp_version == 1:
            raise ValueError(
                "layer_decay, head_learning_rate and freeze_backbone_epochs do not work with FSDP 1, which makes the "
                "optimizer from sharded weights: write fsdp_version: 2, as in configs/accelerate/fsdp.yaml"
            )
        self._grouped_parameters()  # refuses a model without layers here, before anything is computed

    def _grouped_parameters(self) -> list[dict[str, Any]]:
        return self.rates.groups(
            self.model,
            set(self.get_decay_parameter_names(self.model)),
            learning_rate=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
        )

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        # The Trainer has one learning rate for all parameters.
        if self.rates is None or self.optimizer is not None:
            return super().create_optimizer(model)
        kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = kind(self._grouped_parameters(), **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self.rates is not None:
            self.lr_scheduler = self.rates.scheduled(
                scheduler, optimizer or self.optimizer, steps_in_epoch=self._steps_in_epoch, steps=num_training_steps
            )
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device):
        # Here and not in the loss: a mixture of two images has fewer known cells, and the cells are counted here.
        for mixer in filter(None, (self.interpolation, self.mixup)):
            epoch_iterator = map(partial(mixer.mix_labels, epoch=int(self.state.epoch or 0)), epoch_iterator)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        # The Trainer counts labels that are not -100. Here the loss defines an item, usually a known label cell, and
        # the mean over a step's cells is not the mean of its micro-batches' means when some are unknown.
        if not batch_samples or "labels" not in batch_samples[0]:
            return None
        items = sum(self.count_items(batch) for batch in batch_samples).to(device)
        return self.accelerator.gather(items).sum() if self.args.world_size > 1 else items

    def count_items(self, batch: dict[str, Any]) -> torch.Tensor:
        """How many items the loss of a batch is a sum over; a scalar on any device."""
        return self.loss.count_items(batch["labels"])

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        # The mean over an epoch is shown; the Trainer keeps the mean since the last log entry alone.
        loss = super().training_step(*args, **kwargs)
        self.losses.add(loss, last=self.accelerator.sync_gradients)
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        # The Trainer walks through all modules and parameters to count them, in every step.
        if self._parameters is None:
            self._parameters = self.model.num_parameters(exclude_embeddings=True)
        return 6 * inputs["pixel_values"].numel() * self._parameters

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | float | None = None):
        # Without clipping, the norm is only for the log; the Trainer computes it in every step all the same.
        if grad_norm is None and not self._logs_this_step():
            return None
        return super()._get_grad_norm(model, grad_norm)

    def _logs_this_step(self) -> bool:
        step, strategy = self.state.global_step + 1, self.args.logging_strategy
        if strategy == IntervalStrategy.EPOCH:
            return step % self._steps_in_epoch == 0 or step == self.state.max_steps
        every = strategy == IntervalStrategy.STEPS and step % self.state.logging_steps == 0
        return every or (self.args.logging_first_step and step == 1)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ):
        # The model's own loss is plain BCE, without unknown cells and class weights.
        for part in self._frozen:
            part.eval()
        epoch = int(self.state.epoch or 0)
        if not model.training:
            pixel_values = self.pixels(inputs["pixel_values"])
        elif self.mixup is None:
            pixel_values = self.pixels.augment(inputs["pixel_values"], inputs["row"], epoch)
        else:
            pixel_values = self.mixup.mixed_pixels(self.pixels, inputs, epoch)
        # A model that decides one finding after the other learns each from the true labels of those before it.
        known = model.training and getattr(self.model, "takes_known_labels", False)
        with self._interpolated(model, inputs):
            outputs = model(pixel_values=pixel_values, **({"known_labels": inputs["labels"]} if known else {}))
        self.loss.train(model.training)  # labels are smoothed only in training
        loss = self.loss(outputs.logits, inputs["labels"], num_items=num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size  # data-parallel training averages gradients; here they must add up
        return (loss, outputs) if return_outputs else loss

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # A run that stopped early has no step left when it is resumed; the Trainer would take one more.
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        # The Trainer's own loop waits for the device and for all processes several times a batch, to gather logits,
        # labels and their shapes, and casts the weights again for each batch. Here all of it is done once. There is no
        # mean of the batches' losses: it would depend on how the set is split into batches when cells are unknown.
        # The weights that are measured must be those that are saved: the average, if there is one.
        with self._averaged_weights():
            logits, labels = self._gathered(*self._predicted(self._evaluated_model(), dataloader))
            metrics = self.compute_metrics(EvalPrediction(predictions=logits, label_ids=labels))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in denumpify_detensorize(metrics).items()}
        return EvalLoopOutput(predictions=logits, label_ids=labels, metrics=metrics, num_samples=len(logits))

    def _evaluated_model(self) -> torch.nn.Module:
        """The model as training runs it, in bfloat16 if that does; prepared here if there was no training."""
        if not self.accelerator._models:
            if self.is_fsdp_enabled and not self.args.torch_compile:
                self.model_wrapped = self.accelerator.prepare(self.model)
            else:
                self.model_wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
            if self.is_fsdp_enabled:
                self.model = self.model_wrapped
        return self.model.eval()

    def _predicted(self, model: torch.nn.Module, dataloader: DataLoader) -> tuple[np.ndarray, ...]:
        """Rows (M,), logits (M, C) and labels (M, C), float32, of this process."""
        self.callback_handler.eval_dataloader = dataloader
        batches = []
        # In one autocast context the weights are cast once. Inference mode would cast them for each batch; and FSDP
        # cannot gather weights in it, nor a model keep a tensor that training uses later.
        with torch.no_grad(), self.accelerator.autocast():
            for inputs in dataloader:
                inputs = self._prepare_inputs(inputs)
                logits = model(pixel_values=self.pixels(inputs["pixel_values"])).logits
                batches.append((inputs["row"], logits, inputs["labels"]))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
            rows, logits, labels = zip(*batches, strict=True)
            return np.concatenate(rows), *(torch.cat(parts).float().cpu().numpy() for parts in (logits, labels))

    def _gathered(self, row_M: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
        """Arrays of all processes, in the order of the rows. Some rows come twice: batches are filled up with them."""
        if self.args.world_size == 1:
            return list(arrays)
        parts = zip(*gather_object([(row_M, *arrays)]), strict=True)
        row_M, *arrays = (np.concatenate(part) for part in parts)
        rows, first = np.unique(row_M, return_index=True)
        return [array[first[rows >= 0]] for array in arrays]  # a blank row of a stream is -1

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # If validation is measured more often than checkpoints are written, the Trainer remembers the best value even
        # when its weights were not saved, and at the end loads an earlier checkpoint, or none. Only evaluations with a
        # checkpoint are compared here.
        if self.args.save_strategy != SaveStrategy.BEST and not self.control.should_save:
            return False
        return super()._determine_best_metric(metrics, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # The weights to resume from are written first: a checkpoint counts as whole when its trainer_state.json is
        # there, which is written after this.
        if self.average is not None and self.args.should_save:
            self.average.save_training_weights(self.model, output_dir or self.args.output_dir)
        with self._averaged_weights():
            super()._save(output_dir, state_dict)
        if self.args.should_save:  # a pickle of every argument, including a token, that nothing reads
            Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        # A checkpoint is sealed after all processes have written their part, and before an older one is removed, so
        # that there is a whole checkpoint on the disk at every moment.
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            (folder / CHECKSUMS).unlink(missing_ok=True)  # from an earlier checkpoint of the same step
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        processes.meet()
        if self.args.should_save:
            seal(folder)
            rotate_checkpoints(str(folder.parent), limit, self.state.best_model_checkpoint, use_mtime=True)

    def _init_training_state(
        self, max_steps: int, num_update_steps_per_epoch: int, *args: Any, **kwargs: Any
    ) -> tuple[int, int]:
        # The saved state names the best step but no path, because the folder may have been moved.
        self._steps_in_epoch = num_update_steps_per_epoch
        with _division_may_differ():
            progress = super()._init_training_state(max_steps, num_update_steps_per_epoch, *args, **kwargs)
        self.state.train_batch_size = self.args.train_batch_size  # not that of the launch that is resumed
        self.state.log_history = modern_figures({"history": self.state.log_history})["history"]
        best = best_checkpoint(self.args.output_dir, self.state.best_global_step)
        if best is not None and best.is_dir():
            self.state.best_model_checkpoint = str(best)
        return progress

    def _interpolated(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]):
        if self.interpolation is None or not model.training:
            return nullcontext()
        return self.interpolation.applied_to(self.model, inputs["row"], int(self.state.epoch or 0))

    def _averaged_weights(self):
        return nullcontext() if self.average is None else self.average.applied_to(self.model)

    # transformers 5 writes checkpoints under the Hub's names of Swin's weights and reads them back under the module's
    # own (its issues 43701 and 48805): nothing matches, a warning is logged, and the run continues with the wrong
    # weights. from_pretrained knows both names, and load_state_dict here is strict.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._load_weights(resume_from_checkpoint)
            if self.average is not None:
                self.average.resume(self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            check_whole(
                self.state.best_model_checkpoint,
                f"the best by validation {self.args.metric_for_best_model}",
                "run the same command again; it resumes from an older checkpoint, or starts again",
            )
            self._load_weights(self.state.best_model_checkpoint)
            if self.average is not None:
                self.average.finish(None)  # the checkpoint's weights are already an average

    def _load_weights(self, folder: str) -> None:
        saved = type(self.model).from_pretrained(
            folder, dtype=self.model.dtype, trust_remote_code=False, use_safetensors=True, local_files_only=True
        )
        self.model.load_state_dict(saved.state_dict())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        # README.md is the model card of the run; the Trainer's own card would overwrite it.
        return

    def _compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        logits, labels = (
            torch.as_tensor(array, device=self.args.device) for array in (prediction.predictions, prediction.label_ids)
        )
        diverged = int((~torch.isfinite(logits)).any(dim=1).sum())
        if diverged:
            raise ValueError(
                f"training diverged: the outputs for {diverged:,} of {len(logits):,} validation images are not finite "
                f"after epoch {self.state.epoch or 0:g}; start another run with a lower --learning_rate, or with "
                "--max_grad_norm 1"
            )
        metrics = {"loss": self.loss.eval()(logits, labels).item()}
        return metrics | (self._metrics_of_set(prediction) if self._metrics_of_set else {})


@contextmanager
def _division_may_differ() -> Iterator[None]:
    """Within the block transformers does not warn of another batch size alone: `run.folder` lets a run resume with
    another division of the same step, and says so."""

    def is_shown(record: logging.LogRecord) -> bool:
        differing = [line.split(":")[0] for line in record.getMessage().split("\n\t")[1:]]
        return differing != ["per_device_train_batch_size"]

    logger = logging.getLogger("transformers.trainer_utils")
    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)


class _SamplerEpoch(TrainerCallback):
    # Accelerate sets the epoch of its own samplers, but after a resume in mid-epoch on several processes it wraps the
    # sampler once more and no longer reaches it.
    def __init__(self, sampler: Sampler[int]):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch or 0))
