"""The arguments behind every YAML key and every flag, and the door at which they are checked.

Seven dataclasses, one of them a subclass of `transformers.TrainingArguments`. A YAML file gives defaults, flags
win, and an unknown or misspelt key is an error that names the nearest one:

    scripts/train.py configs/nih_swin_base.yaml --nih_root /data/nih --loss asymmetric --learning_rate 3e-4

C = findings.
"""

import argparse
import dataclasses
import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

CONFIGS = Path(__file__).parent / "configs"
if not CONFIGS.is_dir():  # a checkout keeps them at its top, a wheel inside the package
    CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass
class DataArguments:
    """Which radiographs, and how they are cut into training, validation and test."""

    dataset: Literal["phantom", "nih", "table", "prepared"] = field(
        default="phantom",
        metadata={
            "help": "phantom: procedural synthetic radiographs; nih: the ChestX-ray14 release at --nih_root; table: "
            "any labelled table, described by --table; prepared: a folder that hf-cxr prepare wrote, --prepared."
        },
    )
    prepared: str | None = field(
        default=None, metadata={"help": "Folder that hf-cxr prepare wrote: images decoded and resized once."}
    )
    nih_root: str | None = field(
        default=None,
        metadata={"help": "Folder of the ChestX-ray14 release: Data_Entry_2017*.csv, the two lists and images*/."},
    )
    table: str | None = field(
        default=None,
        metadata={"help": "Description of a table: a YAML file, or a ready one's name, such as chexpert or padchest."},
    )
    table_root: str | None = field(
        default=None,
        metadata={"help": "Folder that the table's files and images are below; by default that of the YAML file."},
    )
    missing_images: Literal["error", "skip"] = field(
        default="error",
        metadata={
            "help": "What to do with images that the lists name and the folder lacks: error, or skip and count."
        },
    )
    split_file: str | None = field(
        default=None,
        metadata={
            "help": "CSV with image_id, patient_id and split or fold, as `hf-cxr split --out` writes it: all images "
            "are dealt by it, in place of the source's own splits."
        },
    )
    fold: int | None = field(
        default=None,
        metadata={
            "help": "With a --split_file of n folds: this one, 0 to n - 1, is the test set, the next one (after the "
            "last, 0) the validation set, the others the training set."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the images of a table while training goes on, from Parquet shards on disk or the Hub; "
            "nothing is copied or held, see hf_cxr/data/streaming.py."
        },
    )
    streaming_buffer: int = field(
        default=1000, metadata={"help": "Images that each reader of a stream holds to mix them, 1 or more."}
    )
    phantom_train: int = field(default=2000, metadata={"help": "Number of phantom training images."})
    phantom_validation: int = field(default=500, metadata={"help": "Number of phantom validation images."})
    phantom_test: int = field(default=500, metadata={"help": "Number of phantom test images."})
    phantom_size: int = field(default=256, metadata={"help": "Side of a phantom image in pixels."})
    phantom_seed: int = field(default=0, metadata={"help": "Seed of the phantoms' anatomy, findings and noise."})
    phantom_prevalence_floor: float = field(
        default=0.0,
        metadata={
            "help": "Re-weight the phantoms' label sets until each finding has at least this prevalence, 0 to 0.3."
        },
    )
    train_limit: int | None = field(
        default=None,
        metadata={"help": "Train on this many images only (an even cut over the training set), e.g. 32 to overfit."},
    )
    shuffle_labels: bool = field(
        default=False,
        metadata={
            "help": "Permute the training labels among the images: what is then reached is the floor of chance."
        },
    )

    def __post_init__(self):
        if self.dataset == "nih" and not self.nih_root:
            raise ValueError("dataset nih needs --nih_root, the folder that holds Data_Entry_2017*.csv and images/")
        if self.nih_root and self.dataset != "nih":
            raise ValueError(
                f"--nih_root is given but the dataset is {self.dataset}; add --dataset nih or leave it out"
            )
        if (self.prepared is not None) != (self.dataset == "prepared"):
            raise ValueError(
                f"--dataset {self.dataset} and --prepared {self.prepared} do not go together: give --dataset prepared "
                "with --prepared DIR, or neither"
            )
        self._check_table()
        if self.split_file is not None and not Path(self.split_file).is_file():
            raise ValueError(f"--split_file {self.split_file}: there is no such file; `hf-cxr split --out` writes one")
        if self.fold is not None and self.split_file is None:
            raise ValueError(f"--fold {self.fold} needs --split_file, a CSV with folds; see `hf-cxr split --folds`")
        _check(self.fold is None or self.fold >= 0, "fold", self.fold, "0 or more")
        if self.streaming and (self.dataset != "table" or self.missing_images != "error"):
            raise ValueError(
                "--streaming goes with --dataset table and --missing_images error: a stream cannot know beforehand "
                "which images it will lack"
            )
        _check(self.streaming_buffer >= 1, "streaming_buffer", self.streaming_buffer, "at least 1")
        for name in ("phantom_train", "phantom_validation", "phantom_test"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(32 <= self.phantom_size <= 2048, "phantom_size", self.phantom_size, "between 32 and 2048 pixels")
        _check(
            0 <= self.phantom_prevalence_floor <= 0.3,
            "phantom_prevalence_floor",
            self.phantom_prevalence_floor,
            "between 0 and 0.3",
        )
        _check(self.train_limit is None or self.train_limit >= 1, "train_limit", self.train_limit, "at least 1")

    def _check_table(self) -> None:
        if (self.table is not None) != (self.dataset == "table"):
            raise ValueError(
                f"--dataset {self.dataset} and --table {self.table} do not go together: give --dataset table with "
                "--table NAME_OR_YAML, or neither"
            )
        if self.table_root is not None and self.dataset != "table":
            raise ValueError(f"--table_root is given but the dataset is {self.dataset}; add --dataset table")
        own = (self.table or "").endswith((".yaml", ".yml"))
        if self.table and not own and not self.table_root:
            raise ValueError(f"--table {self.table} is a ready description: give --table_root, the data's folder")
        for name, path, there in (
            ("table", self.table if own else None, Path.is_file),
            ("table_root", self.table_root, Path.is_dir),
        ):
            if path is not None and not there(Path(path)):
                raise ValueError(f"--{name} {path}: there is no such {'file' if name == 'table' else 'folder'}")


@dataclass
class ModelArguments:
    """Which Swin, at which image size; the preprocessing and augmentation that go with it."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub id or local folder of a Swin; without it a fresh one is made from the swin_* values."},
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a Hub model."})
    image_size: int = field(default=224, metadata={"help": "Side of the model's input in pixels (the centre crop)."})
    resize_size: int | None = field(
        default=None,
        metadata={"help": "Side in pixels to which an image is resized before the crop; by default image_size * 8/7."},
    )
    swin_patch_size: int = field(default=4, metadata={"help": "Patch side in pixels, for a fresh model."})
    swin_window_size: int = field(default=7, metadata={"help": "Attention window in patches, for a fresh model."})
    swin_embed_dim: int = field(default=96, metadata={"help": "Channels of the first stage, for a fresh model."})
    swin_depths: list[int] = field(
        default_factory=lambda: [2, 2, 6, 2], metadata={"help": "Blocks of each stage, for a fresh model."}
    )
    swin_num_heads: list[int] = field(
        default_factory=lambda: [3, 6, 12, 24], metadata={"help": "Attention heads of each stage, for a fresh model."}
    )
    swin_absolute_embeddings: bool = field(
        default=False,
        metadata={"help": "Learnt position embeddings, for a fresh model; they help where data are few."},
    )
    swin_initializer_range: float = field(
        default=0.02, metadata={"help": "Standard deviation of a fresh model's first weights; 0.1 helps a narrow one."}
    )
    drop_path_rate: float = field(default=0.1, metadata={"help": "Stochastic depth of the last block, 0 to below 1."})
    horizontal_flip: float = field(default=0.5, metadata={"help": "Probability of a left-right flip in training."})
    rotation_degrees: float = field(
        default=10.0,
        metadata={"help": "Training images are rotated by an angle drawn evenly from -this to +this, 0 to 180."},
    )

    def __post_init__(self):
        if self.resize_size is None:
            self.resize_size = round(self.image_size * 8 / 7)
        _check(self.image_size >= 16, "image_size", self.image_size, "at least 16 pixels")
        _check(self.resize_size >= self.image_size, "resize_size", self.resize_size, "at least image_size")
        _check(0 <= self.drop_path_rate < 1, "drop_path_rate", self.drop_path_rate, "between 0 and below 1")
        _check(0 <= self.horizontal_flip <= 1, "horizontal_flip", self.horizontal_flip, "between 0 and 1")
        _check(0 <= self.rotation_degrees <= 180, "rotation_degrees", self.rotation_degrees, "between 0 and 180")
        spread = self.swin_initializer_range
        _check(0 < spread <= 1, "swin_initializer_range", spread, "above 0, at most 1")
        _check(
            len(self.swin_depths) == len(self.swin_num_heads),
            "swin_num_heads",
            self.swin_num_heads,
            f"as many numbers as swin_depths has ({len(self.swin_depths)})",
        )


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
        _check(
            0 <= self.effective_number_beta < 1, "effective_number_beta", self.effective_number_beta, "0 to below 1"
        )


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
            _check(value is None or 0 < value <= (most or float("inf")), name, value, wanted)


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
            "help": "Start the classifier anew; false keeps that of --model_name_or_path, of the same findings."
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
        _check(start is None or start >= 1, "reweight_from_epoch", start, "at least 1")
        _check(decay is None or 0 <= decay < 1, "ema_decay", decay, "0 to below 1")
        neighbours = self.feature_oversampling
        _check(neighbours is None or neighbours >= 1, "feature_oversampling", neighbours, "at least 1")
        if neighbours is not None and not self.freeze_backbone:
            raise ValueError("feature_oversampling needs --freeze_backbone true: features that are learnt move away")


@dataclass
class EvaluationArguments:
    """How sure the figures are said to be."""

    bootstrap_resamples: int = field(default=1000, metadata={"help": "Resamples of patients behind each interval."})
    confidence: float = field(default=0.95, metadata={"help": "Coverage of the intervals, between 0 and 1."})
    calibrate: bool = field(
        default=True,
        metadata={"help": "Fit an affine map of each logit on validation and fold it into the saved classifier."},
    )
    measure_test: bool = field(
        default=True,
        metadata={
            "help": "False stops after validation: no test image is predicted; for tuning. The same run with true "
            "goes on to the test set."
        },
    )

    def __post_init__(self):
        _check(self.bootstrap_resamples >= 10, "bootstrap_resamples", self.bootstrap_resamples, "at least 10")
        _check(0 < self.confidence < 1, "confidence", self.confidence, "between 0 and 1")


# Prefixes of keys that are for one call and not of the run: left out of its config.yaml.
NOT_SAVED = ("hub_", "on_existing_run", "push_to_hub")

# Of TrainingArguments' fields, those that this package sets otherwise or cannot honour, and why.
FIXED = {
    "auto_find_batch_size": "another batch size is another run; lower per_device_train_batch_size",
    "batch_eval_metrics": "AUC needs the whole set",
    "label_smoothing_factor": "the losses here have none",
    "optim": "choose with --optimizer",
    "prediction_loss_only": "AUC needs the predictions",
    "remove_unused_columns": "the image would be removed before it is decoded",
    "save_only_model": "such a checkpoint cannot be resumed",
    "train_sampling_strategy": "the sampler is the package's own",
}


@dataclass
class CXRTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the reference recipe's values as defaults."""

    output_dir: str | None = field(
        default="runs/run", metadata={"help": "The run folder; nothing in it is overwritten."}
    )
    on_existing_run: Literal["resume", "move_aside", "error"] = field(
        default="resume",
        metadata={
            "help": "If output_dir already holds a run: resume (continue an unfinished one of the same settings), "
            "move_aside (rename it and start anew), or error."
        },
    )
    optimizer: Literal["adam", "adamw"] = field(
        default="adam",
        metadata={
            "help": "adam: L2 weight decay on all parameters, as the reference; adamw: decoupled, on matrices only."
        },
    )
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Images a device and micro-batch."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images a device in evaluation."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=5e-4, metadata={"help": "Weight decay; what it means depends on --optimizer."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over the training images."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When validation is measured: no, steps, epoch."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When a checkpoint is written: no, steps, epoch, best."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept; the best is always kept."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Go back to the best checkpoint at the end."})
    metric_for_best_model: Literal["auc", "mean_average_precision", "loss"] = field(
        default="auc", metadata={"help": "Validation figure that picks the best checkpoint."}
    )
    images_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Images an optimizer step, over all devices and accumulation steps; if given, a run in which they "
            "would be others is refused."
        },
    )
    report_to: None | str | list[str] = field(  # noqa: RUF036 - HfArgumentParser wants None first
        default="none", metadata={"help": "Trackers: none, tensorboard, trackio, ..."}
    )
    hub_private_repo: bool | None = field(
        default=True,
        metadata={"help": "With --push_to_hub: the repository is private; false makes, or accepts, a public one."},
    )
    hub_token: str | None = field(
        default=None,
        metadata={
            "help": "Access token for the Hub; it is saved nowhere. Better is `hf auth login` or HF_TOKEN: others can "
            "see a machine's command lines."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collator picks columns."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log an average in place of a loss that is NaN; off, so that it is seen."}
    )

    def __post_init__(self):
        # transformers refuses bf16 on a machine without an accelerator unless told that the CPU is meant.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        _check(self.num_train_epochs > 0, "num_train_epochs", self.num_train_epochs, "above 0")
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _check(self.seed >= 0, "seed", self.seed, "0 or more")
        for name, why in FIXED.items():
            default = self.__dataclass_fields__[name].default
            if getattr(self, name) != default:
                raise ValueError(f"{name} must stay {default}: {why}")
        for tracker in [self.report_to] if isinstance(self.report_to, str) else self.report_to or []:
            if tracker in ("tensorboard", "trackio") and importlib.util.find_spec(tracker) is None:
                raise ValueError(f"report_to {tracker} needs the package {tracker}: pip install 'hf-cxr[track]'")
        super().__post_init__()
        actual = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        if self.images_per_step not in (None, actual):
            raise ValueError(
                f"images_per_step is {self.images_per_step}, but {self.train_batch_size} images x "
                f"{self.gradient_accumulation_steps} accumulation steps x {self.world_size} processes are {actual}; "
                "change per_device_train_batch_size or gradient_accumulation_steps"
            )
        self.images_per_step = actual


ARGUMENTS = (
    DataArguments,
    ModelArguments,
    LossArguments,
    SamplingArguments,
    StageArguments,
    EvaluationArguments,
    CXRTrainingArguments,
)


@dataclass
class RunArguments:
    """All that a run was told."""

    data: DataArguments
    model: ModelArguments
    loss: LossArguments
    sampling: SamplingArguments
    stages: StageArguments
    evaluation: EvaluationArguments
    training: CXRTrainingArguments

    def __post_init__(self):
        start, epochs = self.stages.reweight_from_epoch, self.training.num_train_epochs
        if start is not None and self.training.max_steps <= 0 and start >= epochs:
            raise ValueError(f"reweight_from_epoch is {start}, and training ends after {epochs:g} epochs")
        if self.stages.feature_oversampling is not None and self.sampling.sampler in ("shuffle", "under"):
            raise ValueError(
                f"feature_oversampling acts on images drawn again, and the sampler {self.sampling.sampler} draws each "
                "once at most: choose --sampler class_aware, repeat_factor, over or mixed"
            )
        if not self.evaluation.measure_test and self.training.eval_strategy == "no":
            raise ValueError(
                "measure_test false stops after validation, and --eval_strategy no never measures it: leave out one"
            )
        if self.data.streaming and self.sampling.sampler != "shuffle":
            raise ValueError(
                f"sampler {self.sampling.sampler} draws images by number, and a stream has an order of its own: leave "
                "out --streaming or --sampler"
            )
        for name, value in (("freeze_backbone", True), ("reinitialize_head", False)):
            if getattr(self.stages, name) is value and self.model.model_name_or_path is None:
                raise ValueError(
                    f"{name} {str(value).lower()} needs --model_name_or_path: a fresh model has learnt nothing yet"
                )

    def to_dict(self) -> dict[str, Any]:
        """Every key with its resolved value, as plain YAML types.

        Defaults are there. The Hub's keys are not: neither a token, nor the wish to push, which a repetition of the
        run would inherit and overwrite what was published; nor what was to be done with an earlier run.
        """
        training = {key: value for key, value in self.training.to_dict().items() if not key.startswith(NOT_SAVED)}
        ours = (self.data, self.model, self.loss, self.sampling, self.stages, self.evaluation)
        return {key: value for part in ours for key, value in dataclasses.asdict(part).items()} | training


def parse_arguments(argv: Sequence[str] | None = None, *, prog: str = "train.py") -> RunArguments:
    """A YAML file (optional, first) and flags to the dataclasses.

    Args:
        argv: without the program's name. None reads the command line. Without a YAML file the quickstart's is taken.

    Raises:
        SystemExit: status 2 with one line that names the key, where it stands and the nearest known one.
    """
    parser = HfArgumentParser(
        ARGUMENTS,
        prog=prog,
        allow_abbrev=False,
        usage=f"{prog} [CONFIG.yaml] [--key value ...]",
        description="A YAML file gives defaults, flags win.",
    )
    words = list(_command_line() if argv is None else argv)
    path = Path(words.pop(0)) if words and not words[0].startswith("-") else CONFIGS / "quickstart.yaml"
    try:
        values = _read_yaml(path)
        values = without_others_options(values, _chosen(words))
        _check_choices(parser, values, path)
        parser.set_defaults(**values)
        *parts, rest = parser.parse_args_into_dataclasses(
            words, return_remaining_strings=True, look_for_args_file=False
        )
        if rest and rest[0].endswith((".yaml", ".yml")):
            raise ValueError(f"the config comes first: {prog} {rest[0]} --key value ...")
        if rest:
            raise ValueError(unknown_key(rest[0].lstrip("-").split("=")[0].replace("-", "_"), "the command line"))
        return RunArguments(*parts)
    except (ValueError, TypeError, OSError) as error:
        parser.exit(2, f"{prog}: {error}\n")


def without_others_options(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file when another loss or sampler is chosen over its own: the options of its own stay behind.

    class_aware's margin is none for asymmetric. An option that is given with the choice is an error if the loss or the
    sampler does not take it.

    >>> without_others_options({"loss": "class_aware", "margin": 0.1, "seed": 1}, {"loss": "bce"})
    {'loss': 'class_aware', 'seed': 1}
    """
    samplers_own = {name for names in SAMPLER_OPTIONS.values() for name in names}
    for key, default, options in (
        ("loss", LossArguments.loss, {*LOSS_OPTIONS, "class_weights", "given_class_weights"}),
        ("sampler", SamplingArguments.sampler, samplers_own),
    ):
        if key in chosen and chosen[key] != values.get(key, default):
            values = {name: value for name, value in values.items() if name not in options}
    return dict(values)


def known_keys() -> list[str]:
    """Every YAML key and flag, in order."""
    return [item.name for arguments in ARGUMENTS for item in dataclasses.fields(arguments) if item.init]


def unknown_key(key: str, where: str, known: Sequence[str] | None = None) -> str:
    """The message for a key that does not exist, with the nearest one of ``known`` (by default of a run's keys)."""
    nearest = difflib.get_close_matches(str(key), known or known_keys(), n=1, cutoff=0.5)
    see = f"known: {', '.join(known)}" if known else "see --help"
    return f"unknown key {key} in {where}" + (f"; did you mean {nearest[0]}?" if nearest else f"; {see}")


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no such config: {path} (shipped ones: {', '.join(sorted(_shipped()))})")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error  # it has several lines
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold one 'key: value' a line; it holds a {type(values).__name__}")
    for key in values:
        if key not in known_keys():
            raise ValueError(unknown_key(key, str(path)))
    return values  # 1e-4 is a string in YAML 1.1; argparse converts string defaults by the field's own type


def _chosen(words: Sequence[str]) -> dict[str, str]:
    """The loss and the sampler that flags choose."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    chooser.add_argument("--loss")
    chooser.add_argument("--sampler")
    return vars(chooser.parse_known_args(words)[0])


def _check_choices(parser: HfArgumentParser, values: dict[str, Any], path: Path) -> None:
    # argparse converts defaults to a field's type but does not hold them against its choices.
    for action in parser._actions:
        value = values.get(action.dest)
        if action.dest in values and value is None and action.default is not None:
            raise ValueError(f"{action.dest} in {path} is empty; give it a value or leave the line out")
        if value is not None and action.choices and value not in action.choices:
            allowed = ", ".join(map(str, action.choices))
            raise ValueError(f"{action.dest} in {path} is {value!r}; choose from {allowed}")
        if value is not None and action.nargs == "+" and not isinstance(value, list):
            raise ValueError(f"{action.dest} in {path} is {value!r}; it must be a list, like [2, 2, 6, 2]")


def _shipped() -> list[str]:
    return [f"configs/{path.name}" for path in CONFIGS.glob("*.yaml")]


def _check(holds: bool, name: str, value: Any, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {wanted}")


def _command_line() -> list[str]:
    import sys

    return sys.argv[1:]
