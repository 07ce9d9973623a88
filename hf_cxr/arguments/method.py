"""How a run learns: its loss, its sampler and its stages, each with its options."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hf_cxr.arguments import check

LOSS_OPTIONS = (
    "margin",
    "decoupled",
    "gamma",
    "alpha",
    "gamma_pos",
    "gamma_neg",
    "pos_weight_cap",
    "max_margin",
    "logit_scale",
    "map_alpha",
    "map_beta",
    "map_mu",
    "negative_scale",
    "bias_scale",
    "hill_lambda",
    "epsilon_pos",
    "epsilon_pos_pow",
    "logit_margin",
    "tau",
    "temperature_pos",
    "temperature_neg",
)


@dataclass
class LossArguments:
    """Which loss, and its options. One left out takes the loss's default; one it lacks is an error."""

    loss: Literal[
        "bce",
        "focal",
        "asymmetric",
        "class_aware",
        "pos_weighted",
        "class_balanced",
        "class_balanced_focal",
        "ldam",
        "distribution_balanced",
        "robust_asymmetric",
        "hill",
        "logit_adjusted",
        "two_way",
        "zlpr",
    ] = field(default="class_aware", metadata={"help": "The loss: see docs/papers.md."})
    class_weights: Literal["none", "inverse", "sqrt_inverse", "effective_number", "given"] | None = field(
        default=None,
        metadata={
            "help": "Weight of each finding from its positives; default sqrt_inverse for class_aware, "
            "effective_number for class_balanced, class_balanced_focal and ldam, else none; not for two_way and zlpr."
        },
    )
    given_class_weights: list[float] | None = field(
        default=None, metadata={"help": "With class_weights given: C positive numbers, rescaled to mean 1."}
    )
    effective_number_beta: float = field(
        default=0.9999, metadata={"help": "beta of the effective number of samples (Cui et al., CVPR 2019), below 1."}
    )
    margin: float | None = field(
        default=None,
        metadata={
            "help": "Probability margin of negatives: class_aware 0.2, asymmetric and robust_asymmetric 0.05; 0 to 1."
        },
    )
    decoupled: bool | None = field(
        default=None,
        metadata={"help": "class_aware: positives and negatives each have their own base (default true)."},
    )
    gamma: float | None = field(
        default=None,
        metadata={
            "help": "focal, class_balanced_focal, distribution_balanced, hill (positives): focusing exponent (2)."
        },
    )
    alpha: float | None = field(
        default=None,
        metadata={"help": "focal, class_balanced_focal: weight of positives, 0 to 1 (none unless given)."},
    )
    gamma_pos: float | None = field(
        default=None, metadata={"help": "asymmetric, robust_asymmetric: exponent for positives (0)."}
    )
    gamma_neg: float | None = field(
        default=None, metadata={"help": "asymmetric, robust_asymmetric: exponent for negatives (4)."}
    )
    pos_weight_cap: float | None = field(
        default=None, metadata={"help": "pos_weighted: largest weight of positives, above 0 (none unless given)."}
    )
    max_margin: float | None = field(
        default=None, metadata={"help": "ldam: margin of the rarest finding, in logits, 0 or more (0.5)."}
    )
    logit_scale: float | None = field(
        default=None, metadata={"help": "ldam: factor of the logits, above 0 (1; the authors' cosine head has 30)."}
    )
    map_alpha: float | None = field(
        default=None, metadata={"help": "distribution_balanced: least weight of a cell, 0 or more (0.1)."}
    )
    map_beta: float | None = field(
        default=None, metadata={"help": "distribution_balanced: slope of the weights' sigmoid, 0 or more (10)."}
    )
    map_mu: float | None = field(
        default=None, metadata={"help": "distribution_balanced: middle of the weights' sigmoid, 0 or more (0.2)."}
    )
    negative_scale: float | None = field(
        default=None, metadata={"help": "distribution_balanced: lambda, tolerance to negatives, above 0 (2)."}
    )
    bias_scale: float | None = field(
        default=None, metadata={"help": "distribution_balanced: kappa, share of the prior in the logit (0.05)."}
    )
    hill_lambda: float | None = field(
        default=None, metadata={"help": "hill, robust_asymmetric: lambda, at least 1 (1.5)."}
    )
    epsilon_pos: float | None = field(
        default=None, metadata={"help": "robust_asymmetric: first coefficient of positives, added (1)."}
    )
    epsilon_pos_pow: float | None = field(
        default=None, metadata={"help": "robust_asymmetric: second coefficient of positives, added (-2.5)."}
    )
    logit_margin: float | None = field(
        default=None, metadata={"help": "hill: margin of positives, in logits, 0 or more (1)."}
    )
    tau: float | None = field(
        default=None, metadata={"help": "logit_adjusted: share of the prior log odds, 0 or more (1)."}
    )
    temperature_pos: float | None = field(
        default=None, metadata={"help": "two_way: temperature of positives, above 0 (4)."}
    )
    temperature_neg: float | None = field(
        default=None, metadata={"help": "two_way: temperature of negatives, above 0 (1)."}
    )
    head_bias: Literal["no_information", "zero"] = field(
        default="no_information",
        metadata={
            "help": "Where the classifier's bias starts: at the loss's own optimum for each finding's training "
            "prevalence, or at 0."
        },
    )

    def options(self) -> dict[str, Any]:
        """The loss's own options that were given, by name."""
        return {name: getattr(self, name) for name in LOSS_OPTIONS if getattr(self, name) is not None}

    def __post_init__(self):
        if (self.class_weights == "given") != (self.given_class_weights is not None):
            raise ValueError("class_weights given and given_class_weights go together: set both or neither")
        check(0 <= self.effective_number_beta < 1, "effective_number_beta", self.effective_number_beta, "0 to below 1")


SAMPLER_OPTIONS = {
    "shuffle": (),
    "over": ("oversample_share",),
    "under": ("undersample_ratio",),
    "mixed": ("oversample_share", "undersample_ratio"),
    "repeat_factor": ("repeat_factor_threshold",),
    "class_aware": ("class_aware_no_finding",),
}


@dataclass
class SamplingArguments:
    """Which training images an epoch draws. An option left out takes its default; another sampler's is an error."""

    sampler: Literal["shuffle", "over", "under", "mixed", "repeat_factor", "class_aware"] = field(
        default="shuffle", metadata={"help": "What an epoch draws: see the table in hf_cxr/sampling.py."}
    )
    oversample_share: float | None = field(
        default=None,
        metadata={"help": "over, mixed: extra draws of images with minority findings, over the images (0.25)."},
    )
    undersample_ratio: float | None = field(
        default=None,
        metadata={"help": "under, mixed: images without a finding for each one with, at most (1)."},
    )
    repeat_factor_threshold: float | None = field(
        default=None, metadata={"help": "repeat_factor: prevalence below which images are repeated, 0 to 1 (0.05)."}
    )
    class_aware_no_finding: bool | None = field(
        default=None,
        metadata={"help": "class_aware: images without a finding are a class of their own (true), or never drawn."},
    )

    def options(self) -> dict[str, Any]:
        """The sampler's own options that were given, by name."""
        names = SAMPLER_OPTIONS[self.sampler]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def __post_init__(self):
        allowed = SAMPLER_OPTIONS[self.sampler]
        for name in sorted({name for names in SAMPLER_OPTIONS.values() for name in names} - set(allowed)):
            if getattr(self, name) is not None:
                takers = ", ".join(sampler for sampler, names in SAMPLER_OPTIONS.items() if name in names)
                raise ValueError(f"{name} is given but the sampler is {self.sampler}; it goes with --sampler {takers}")
        for name, most in (("oversample_share", 100), ("undersample_ratio", None), ("repeat_factor_threshold", 1)):
            value = getattr(self, name)
            wanted = "above 0" + (f", at most {most}" if most else "")
            check(value is None or 0 < value <= (most or float("inf")), name, value, wanted)


@dataclass
class StageArguments:
    """What is trained when: deferred re-weighting, averaged weights, a second stage on a frozen backbone."""

    reweight_from_epoch: int | None = field(
        default=None,
        metadata={
            "help": "Class weights act from this epoch on (1 is the second), and are 1 before; without it, always."
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
            "many nearest images of its rarest finding (SMOTE takes 5)."
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
