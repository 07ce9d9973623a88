"""What changes during training: deferred re-weighting, averaged weights, early stopping.

Each depends only on the epoch and the checkpoint, so that a resumed run equals one that was not interrupted.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, TrainerState

from hf_cxr.files import replacing

TRAINING_WEIGHTS = "training_weights.safetensors"


class DeferredReweighting(TrainerCallback):
    """Class weights apply from an epoch on; before it every finding weighs 1.

    The representation is learnt on the natural distribution, and the last epochs turn to the rare findings. The
    validation loss uses the epoch's weights, so it jumps when they change: choose the checkpoint by another metric.

    Args:
        loss: has ``set_reweighting(active)``, as `losses.MultiLabelLoss`.
        start: first epoch, from 0, in which the weights apply.

    Source: Cao, Wei, Gaidon, Arechiga and Ma, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin
    Loss", NeurIPS 2019, the deferred re-balancing schedule (DRW).
    """

    def __init__(self, loss: Any, start: int):
        self.loss, self.start = loss, start

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.loss.set_reweighting(int(state.epoch or 0) >= self.start)


class EarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, with the right count after a resume.

    The count is recomputed from the evaluations in the checkpoint's log. The Trainer can restore it from the
    checkpoint's state, but forgets that the patience was exhausted, and would continue training.

    Args:
        early_stopping_patience: evaluations in a row without an improvement that end the training.
        early_stopping_threshold: the least improvement that counts.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        name, better = f"eval_{args.metric_for_best_model}", max if args.greater_is_better else min
        past, self.early_stopping_patience_counter = TrainerState(), 0
        for value in [entry[name] for entry in state.log_history if name in entry]:
            self.check_metric_value(args, past, control, value)
            if value == value:  # NaN: AUC is not defined
                past.best_metric = value if past.best_metric is None else better(past.best_metric, value)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class WeightAverage(TrainerCallback):
    """An exponential moving average of the weights, which is evaluated, selected and saved in their place.

    After step t the average moves by 1 - d_t towards the weights, d_t = min(decay, (1 + t) / (10 + t)), so that the
    first weights do not dominate an average over more steps than there have been. Buffers are not averaged: the
    averaged model has those of the weights in training, such as batch norm's means and variances, which are averages
    already.

    Pass it to `CXRTrainer` as ``average``: a checkpoint's model.safetensors is then the average, and
    training_weights.safetensors next to it holds the weights that training continues with.

    Args:
        decay: 0 to below 1; 0 is the weights themselves.

    Source: Polyak and Juditsky, SIAM Journal on Control and Optimization 30 (1992), for averaging; the warm-up is that
    of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float):
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; it must be 0 to below 1")
        self.decay, self.step, self.averaged = decay, 0, None

    def on_train_begin(self, args, state, control, model: PreTrainedModel, **kwargs):
        if self.averaged is None:
            self.start(model)

    def on_optimizer_step(self, args, state, control, model: PreTrainedModel, **kwargs):
        self.step = state.global_step + 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        # torch's AveragedModel counts its updates in a tensor, for which a step on a GPU would wait.
        get_ema_multi_avg_fn(decay)(list(self.averaged.parameters()), list(model.parameters()), None)

    def on_train_end(self, args, state, control, model: PreTrainedModel, **kwargs):
        self.finish(model)

    def start(self, model: PreTrainedModel) -> None:
        """Start the average at these weights."""
        self.averaged = copy.deepcopy(model).requires_grad_(False)

    def finish(self, model: PreTrainedModel | None) -> None:
        """Copy the average into the model; with None, drop it, because the best checkpoint is loaded already."""
        if self.averaged is not None and model is not None:
            self._give(model, dict(self.averaged.named_parameters()))
        self.averaged = None

    @contextmanager
    def applied_to(self, model: PreTrainedModel) -> Iterator[None]:
        """Within the block the model has the averaged weights; after it, its own again, bit by bit."""
        if self.averaged is None:
            yield
            return
        own = {name: value.detach().clone() for name, value in model.named_parameters()}
        try:
            self._give(model, dict(self.averaged.named_parameters()))
            yield
        finally:
            self._give(model, own)

    @torch.no_grad()
    def _give(self, model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
        """Copy the parameters into the model, whose buffers stay."""
        for name, value in model.named_parameters():
            value.copy_(weights[name])

    def save_training_weights(self, model: PreTrainedModel, folder: str | Path) -> None:
        """Write the weights that training continues with; nothing after training, which has no average."""
        if self.averaged is not None:
            with replacing(Path(folder) / TRAINING_WEIGHTS) as beside:
                save_file({name: value.contiguous() for name, value in model.state_dict().items()}, beside)

    def resume(self, model: PreTrainedModel, folder: str | Path) -> None:
        """Continue from a checkpoint: the model has its average; start there, and load its training weights.

        Raises:
            ValueError: the checkpoint has no training weights, because it was written without an average.
        """
        path = Path(folder) / TRAINING_WEIGHTS
        if not path.is_file():
            raise ValueError(f"{folder} has no {TRAINING_WEIGHTS}: it was written by a run without --ema_decay")
        self.start(model)
        model.load_state_dict(load_file(path))
