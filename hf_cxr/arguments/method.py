"""How a run learns: its loss, its sampler and its stages.

`hf_cxr.losses.build_loss` and `hf_cxr.sampling.expected_draws` know the options of losses and samplers and check them,
here without data.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hf_cxr.arguments import check
from hf_cxr.losses import LOSSES, MultiLabelLoss, check_loss
from hf_cxr.sampling import SAMPLERS, expected_draws


@dataclass
class LossArguments:
    """Which loss, and its options."""

    loss: str = field(
        default="class_aware", metadata={"choices": tuple(LOSSES), "help": "The loss: see docs/papers.md."}
    )
    loss_kwargs: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Options of the loss, listed below: --loss_kwargs.gamma 1, or all as '{\"gamma\": 1}'."},
    )
    head_bias: Literal["no_information", "zero"] = field(
        default="no_information",
        metadata={
            "help": "Where the classifier's bias starts: at the loss's own optimum for each finding's training "
            "prevalence, or at 0."
        },
    )

    def without_data(self) -> MultiLabelLoss:
        """The loss for findings of prevalence one half: for what does not depend on the data."""
        return check_loss(self.loss, self.loss_kwargs)

    def __post_init__(self):
        try:
            self.without_data()
        except ValueError as error:
            raise ValueError(f"loss_kwargs: {error}") from error


@dataclass
class SamplingArguments:
    """Which training images an epoch draws, and whether they are mixed."""

    sampler: str = field(
        default="shuffle",
        metadata={"choices": tuple(SAMPLERS), "help": "What an epoch draws: see the table in hf_cxr/sampling.py."},
    )
    sampler_kwargs: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Options of the sampler, listed below, such as --sampler_kwargs.oversample_share 0.1."},
    )
    mixup_alpha: float = field(
        default=0.0,
        metadata={
            "help": "Above 0: each training image and its labels are mixed with another's, in shares from "
            "Beta(this, this); 0.1 to 0.4 is usual. A label is known where both images know it."
        },
    )

    def __post_init__(self):
        alpha = self.mixup_alpha
        check(0 <= alpha < np.inf, "mixup_alpha", alpha, "0 (no mixing) or more, and finite")
        try:
            expected_draws(self.sampler, np.array([[1.0], [0.0]]), **self.sampler_kwargs)
        except ValueError as error:
            raise ValueError(f"sampler_kwargs: {error}") from error


@dataclass
class StageArguments:
    """What is trained when: deferred re-weighting, averaged weights, a second stage on a frozen backbone."""

    reweight_from_epoch: int | None = field(
        default=None,
        metadata={
            "help": "Class weights apply from this epoch on (1 is the second), and are 1 before; by default always."
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Decay of an exponential moving average of the weights, 0 to below 1 (0.999 averages about the "
            "last 1,000 steps); it is what is measured, chosen and saved."
        },
    )
    freeze_backbone: bool = field(
        default=False,
        metadata={"help": "Train the classifier alone: a second stage on --model_name_or_path, a run on these data."},
    )
    reinitialize_head: bool = field(
        default=True,
        metadata={
            "help": "Start with a new classifier; false keeps the one of --model_name_or_path, for the same findings."
        },
    )
    feature_oversampling: int | None = field(
        default=None,
        metadata={
            "help": "With a frozen backbone: an image drawn again is interpolated in feature space with one of this "
            "many nearest images of its rarest finding (SMOTE uses 5)."
        },
    )

    def __post_init__(self):
        start, decay = self.reweight_from_epoch, self.ema_decay
        check(start is None or start >= 1, "reweight_from_epoch", start, "at least 1")
        check(decay is None or 0 <= decay < 1, "ema_decay", decay, "0 to below 1")
        neighbours = self.feature_oversampling
        check(neighbours is None or neighbours >= 1, "feature_oversampling", neighbours, "at least 1")
        if neighbours is not None and not self.freeze_backbone:
            raise ValueError("feature_oversampling needs --freeze_backbone true: features that are learnt move away")
