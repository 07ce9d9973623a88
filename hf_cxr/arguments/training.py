"""`transformers.TrainingArguments` with the recipe's defaults, and how each of its fields is checked.

Every field is in one of three tables: ``FIXED`` (it must keep its default, and why), ``RANGES`` (its value is checked
here) or ``FREE`` (transformers checks it, or any value of its type works). test_training_arguments.py compares the
tables with the fields of the transformers that is installed.
"""

import math
import multiprocessing
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from hf_cxr.arguments import check
from hf_cxr.arguments.schedules import BY_A_METRIC, resolve_schedule
from hf_cxr.arguments.trackers import check_trackers
from hf_cxr.evaluation.kernels import headline_metrics, metric_key
from hf_cxr.yaml_files import parse_yaml

LANGUAGE = "it is for language models"
SAMPLER = "the sampler is the package's own"

# Fields that this package sets otherwise or cannot honour, and why.
FIXED = {
    "accelerator_config": "batches, sampler and accumulation are the package's own",
    "auto_find_batch_size": "another batch size is another run; lower per_device_train_batch_size",
    "average_tokens_across_devices": "the loss is the mean over all devices",
    "batch_eval_metrics": "AUC needs the whole set",
    "bf16_full_eval": "what is measured is the model in float32, as a user loads it",
    "dataloader_drop_last": "validation and training would lose their last images",
    "dataloader_in_order": "the order of the images is part of the run",
    "debug": "hf-cxr --debug shows where an error comes from",
    "deepspeed": "the package runs on Accelerate; see configs/accelerate",
    "enable_jit_checkpoint": "the same command resumes a stopped run from its last checkpoint",
    "eval_do_concat_batches": "AUC needs the whole set",
    "eval_use_gather_object": "logits and labels are gathered as arrays",
    "fp16_full_eval": "what is measured is the model in float32, as a user loads it",
    "fsdp": "use accelerate launch --config_file configs/accelerate/fsdp.yaml",
    "fsdp_config": "use accelerate launch --config_file configs/accelerate/fsdp.yaml",
    "hub_always_push": "the folder is pushed once, complete",
    "hub_revision": "the folder is pushed to the main branch",
    "ignore_data_skip": "a resumed run must be the run that was not stopped",
    "include_for_metrics": "the metrics read logits and labels",
    "include_num_input_tokens_seen": LANGUAGE,
    "label_names": "the labels are the column labels",
    "length_column_name": LANGUAGE,
    "liger_kernel_config": LANGUAGE,
    "neftune_noise_alpha": LANGUAGE,
    "optim": "choose with --optimizer",
    "optim_args": "choose with --optimizer, adam_beta1, adam_beta2, adam_epsilon and sgd_momentum",
    "optim_target_modules": "choose with --optimizer",
    "parallelism_config": "the package runs on Accelerate; see configs/accelerate",
    "prediction_loss_only": "AUC needs the predictions",
    "remove_unused_columns": "the image would be removed before it is decoded",
    "restore_callback_states_from_checkpoint": "the package restores its own",
    "save_on_each_node": "one process writes the run folder",
    "save_only_model": "such a checkpoint cannot be resumed",
    "skip_memory_metrics": "the report has peak memory",
    "train_sampling_strategy": SAMPLER,
    "use_cache": LANGUAGE,
    "use_liger_kernel": LANGUAGE,
}

# What else a fixed field may be: another spelling of its default, which transformers writes in its place.
SAME_AS_DEFAULT = {
    # transformers takes use_configured_state out once it has read it.
    "accelerator_config": ({k: v for k, v in AcceleratorConfig().to_dict().items() if k != "use_configured_state"},),
    "debug": ([], None),
    "include_num_input_tokens_seen": ("no",),
}


def _finite(value: float) -> bool:
    return math.isfinite(value)


POSITIVE = (lambda value: value > 0 and _finite(value), "above 0")
NOT_NEGATIVE = (lambda value: value >= 0 and _finite(value), "0 or more")
COUNT = (lambda value: value >= 1, "1 or more")
SHARE = (lambda value: 0 < value <= 1, "above 0, at most 1")
BELOW_ONE = (lambda value: 0 <= value < 1, "0 to below 1")
SEED = (lambda value: 0 <= value < 2**32, "0 to 4294967295")
CHECKPOINTING = {"use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"}
CHECKPOINTING_OPTIONS = (lambda value: set(value) <= CHECKPOINTING, f"a mapping of {', '.join(sorted(CHECKPOINTING))}")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")

# Fields whose value is checked: whether it is right (None is not checked), and what it must be.
RANGES = {
    "activation_checkpointing_kwargs": CHECKPOINTING_OPTIONS,
    "adam_beta1": BELOW_ONE,
    "adam_beta2": BELOW_ONE,
    "adam_epsilon": POSITIVE,
    "data_seed": SEED,
    "dataloader_multiprocessing_context": (
        lambda value: value in multiprocessing.get_all_start_methods(),
        f"one of {', '.join(multiprocessing.get_all_start_methods())}",
    ),
    "dataloader_num_workers": (lambda value: value >= 0, "0 or more"),
    "dataloader_prefetch_factor": COUNT,
    "ddp_bucket_cap_mb": COUNT,
    "ddp_timeout": COUNT,
    "early_stopping_patience": COUNT,
    "early_stopping_threshold": NOT_NEGATIVE,
    "eval_accumulation_steps": COUNT,
    "eval_delay": NOT_NEGATIVE,
    "eval_steps": POSITIVE,
    "eval_strategy": (lambda value: value in ("no", "steps", "epoch"), "no, steps or epoch"),
    "freeze_backbone_epochs": (lambda value: value >= 0, "0 or more"),
    "gradient_accumulation_steps": COUNT,
    "gradient_checkpointing_kwargs": CHECKPOINTING_OPTIONS,
    "head_learning_rate": POSITIVE,
    "hub_strategy": (lambda value: value in ("end", "every_save"), "end: the folder is pushed once, complete"),
    "images_per_step": COUNT,
    "label_smoothing_factor": BELOW_ONE,
    "layer_decay": SHARE,
    "learning_rate": POSITIVE,
    "logging_steps": POSITIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "max_steps": (lambda value: value == -1 or value >= 1, "1 or more, or -1 to count by num_train_epochs"),
    "num_train_epochs": POSITIVE,
    "per_device_eval_batch_size": COUNT,
    "per_device_train_batch_size": COUNT,
    "save_steps": POSITIVE,
    "save_strategy": (lambda value: value in ("no", "steps", "epoch", "best"), "no, steps, epoch or best"),
    "save_total_limit": COUNT,
    "seed": SEED,
    "sgd_momentum": BELOW_ONE,
    "torch_compile_backend": (
        lambda value: value in torch.compiler.list_backends(exclude_tags=None),
        "a backend that torch.compiler.list_backends() names, such as inductor",
    ),
    "torch_compile_mode": (lambda value: value in COMPILE_MODES, f"one of {', '.join(COMPILE_MODES)}"),
    "torch_empty_cache_steps": COUNT,
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
}

# Fields of which every value of their type works, or is refused by transformers in one line before any data are read;
# those whose combinations are checked in `CXRTrainingArguments` are here too.
FREE = {
    "activation_checkpointing", "bf16", "dataloader_persistent_workers", "dataloader_pin_memory", "ddp_backend",
    "ddp_broadcast_buffers", "ddp_find_unused_parameters", "ddp_static_graph", "disable_tqdm", "do_eval",
    "do_predict", "do_train", "eval_on_start", "fp16", "full_determinism", "gradient_checkpointing",
    "greater_is_better", "hub_model_id", "hub_private_repo", "hub_token", "load_best_model_at_end", "local_rank",
    "log_level", "log_level_replica", "log_on_each_node", "logging_first_step", "logging_nan_inf_filter",
    "logging_strategy", "lr_scheduler_kwargs", "lr_scheduler_type", "metric_for_best_model", "on_existing_run",
    "optimizer", "output_dir", "project", "push_to_hub", "report_to", "resume_from_checkpoint", "run_name",
    "tf32", "torch_compile", "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id", "use_cpu",
}  # fmt: skip

# Fields that follow from others, or from the machine, where they are not given. A run's config.yaml has what was
# given, so that it does not pin a later run to this one's machine or choices.
DERIVED = (
    "accelerator_config",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "dataloader_multiprocessing_context",
    "dataloader_pin_memory",
    "do_eval",
    "eval_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "greater_is_better",
    "lr_scheduler_kwargs",
    "report_to",
    "torch_compile_backend",
    "use_cpu",
)

# Of these, the ones in which a run and its continuation may differ.
NOT_COMPARED = tuple(name for name in DERIVED if name not in ("eval_steps", "lr_scheduler_kwargs"))

MAPPINGS = (*TrainingArguments._VALID_DICT_FIELDS, "liger_kernel_config")


@dataclass
class CXRTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the reference recipe's values as defaults."""

    output_dir: str | None = field(
        default="runs/run", metadata={"help": "The run folder; nothing in it is overwritten."}
    )
    on_existing_run: Literal["resume", "move_aside", "error"] = field(
        default="resume",
        metadata={
            "help": "If output_dir already contains a run: resume (continue an unfinished one of the same settings), "
            "move_aside (rename it and start from the beginning), or error."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "true: from the last checkpoint of output_dir, as without it; false: refuse an output_dir that "
            "contains a run; or the path of one of its checkpoints."
        },
    )
    optimizer: Literal["adam", "adamw", "sgd"] = field(
        default="adam",
        metadata={
            "help": "adam: L2 weight decay on all parameters, as the reference; adamw: decoupled, on matrices only; "
            "sgd: with sgd_momentum and L2 weight decay on all parameters."
        },
    )
    sgd_momentum: float = field(default=0.9, metadata={"help": "Momentum of optimizer sgd; 0 to below 1."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Images per device and micro-batch."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images per device in evaluation."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "Factor on the learning rate from a layer of the backbone to the one below it; 1 is the same rate "
            "for all. Pre-trained weights are often fine-tuned with 0.55 to 0.9."
        },
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the classifier; by default learning_rate."}
    )
    freeze_backbone_epochs: int = field(
        default=0,
        metadata={"help": "Epochs at the start in which the classifier alone is trained; then the backbone too."},
    )
    weight_decay: float = field(default=5e-4, metadata={"help": "Weight decay; what it means depends on --optimizer."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over the training images."})
    label_smoothing_factor: float = field(
        default=0.0,
        metadata={"help": "In training a known label y counts as y (1 - this) + this / 2; 0 to below 1."},
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations in a row without a better metric_for_best_model."},
    )
    early_stopping_threshold: float | None = field(
        default=None,
        metadata={"help": "With early_stopping_patience: by how much a value must be better to count (0)."},
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When validation is measured: no, steps, epoch."})
    save_strategy: str = field(
        default="epoch", metadata={"help": "When a checkpoint is written: no, steps, epoch, best."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept; the best is always kept."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Go back to the best checkpoint at the end."})
    metric_for_best_model: str = field(
        default="auc",
        metadata={
            "help": f"Validation figure that picks the best checkpoint: {', '.join(headline_metrics())} or loss."
        },
    )
    images_per_step: int | None = field(
        default=None,
        metadata={
            "help": "Images per optimizer step, over all devices and accumulation steps; if given, a run in which "
            "their number would differ is refused."
        },
    )
    report_to: None | str | list[str] = field(  # noqa: RUF036 - HfArgumentParser wants None first
        default="none", metadata={"help": "Trackers: none, tensorboard, trackio, wandb, mlflow, ..."}
    )
    hub_private_repo: bool | None = field(
        default=True,
        metadata={"help": "With --push_to_hub: the repository is private; false makes, or accepts, a public one."},
    )
    hub_token: str | None = field(
        default=None,
        metadata={
            "help": "Access token for the Hub; it is never saved. `hf auth login` or HF_TOKEN is safer: other "
            "people can see a machine's command lines."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collator picks columns."}
    )
    include_num_input_tokens_seen: bool = field(default=False, metadata={"help": "Must stay false."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Log an average in place of a loss that is NaN; off, so that it is seen."}
    )

    def __post_init__(self):
        self._read_mappings()
        self._check_fields()
        self._check_output_dir()
        self._check_combinations()
        self._resolve_resume()
        check_trackers(self.report_to)
        self._given = {name: getattr(self, name) for name in DERIVED}
        # transformers refuses bf16 on a machine without an accelerator unless use_cpu is set.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        check(not (self.fp16 and self.use_cpu), "fp16", self.fp16, "false on a CPU; bf16 works there")
        try:
            self.metric_for_best_model = metric_key(self.metric_for_best_model, also=("loss",))
        except ValueError as error:
            raise ValueError(f"metric_for_best_model: {error}") from error
        metric = headline_metrics().get(self.metric_for_best_model)
        better = metric is not None and metric.higher_is_better
        check(self.greater_is_better in (None, better), "greater_is_better", self.greater_is_better, "left out")
        self.lr_scheduler_kwargs = resolve_schedule(
            str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type)),
            self.lr_scheduler_kwargs,
            learning_rate=self.learning_rate,
            warmup_steps=self.warmup_steps,
            max_steps=self.max_steps,
            greater_is_better=better,
        )
        if self.freeze_backbone_epochs:
            self._check_frozen_epochs()
        self.greater_is_better = better  # transformers knows no metric but the loss of which less is better
        super().__post_init__()
        # With several GPUs in one process the Trainer would wrap the model in nn.DataParallel: larger steps, and batch
        # norm over parts of a batch. Here a process has one device.
        self.unused_gpus = max(self.n_gpu - 1, 0)
        self._n_gpu = min(self.n_gpu, 1)
        actual = self.train_batch_size * self.gradient_accumulation_steps * self.world_size
        if self.images_per_step not in (None, actual):
            raise ValueError(
                f"images_per_step is {self.images_per_step}, but {self.train_batch_size} images x "
                f"{self.gradient_accumulation_steps} accumulation steps x {self.world_size} processes are {actual}; "
                "change per_device_train_batch_size or gradient_accumulation_steps"
            )
        self.images_per_step = actual

    @property
    def order_seed(self) -> int:
        """The seed of what an epoch draws, augments and masks: ``data_seed`` if it is given, else ``seed``."""
        return self.seed if self.data_seed is None else self.data_seed

    def to_config(self) -> dict[str, Any]:
        """Every field, as a run's config.yaml has it: what follows from other fields or from the machine as given."""
        return self.to_dict() | self._given

    def _read_mappings(self) -> None:
        for name in MAPPINGS:
            value = getattr(self, name)
            if isinstance(value, str) and name not in FIXED:
                try:
                    value = parse_yaml(value)  # JSON, or {min_lr: 1e-6}
                except ValueError as error:
                    raise ValueError(f"{name} is {value}, {error}") from error
                setattr(self, name, value)
            wanted = "a mapping, such as {min_lr: 1e-6}"
            check(value is None or isinstance(value, dict) or name in FIXED, name, value, wanted)

    def _check_fields(self) -> None:
        defaults = {item.name: item.default for item in fields(self)} | {"include_for_metrics": []}
        for name, why in FIXED.items():
            value, default = getattr(self, name), defaults[name]
            value = getattr(value, "value", value)  # of an enumeration
            if value != default and value not in SAME_AS_DEFAULT.get(name, ()):
                raise ValueError(f"{name} must stay {'empty' if default == '' else default}: {why}")
        for name, (holds, wanted) in RANGES.items():
            value = getattr(self, name)
            value = getattr(value, "value", value)
            check(value is None or holds(value), name, value, wanted)

    def _check_output_dir(self) -> None:
        check(bool(self.output_dir and str(self.output_dir).strip()), "output_dir", "empty", "the name of a folder")
        folder = Path(self.output_dir).expanduser()
        for place in (folder, *folder.parents):
            if os.path.exists(place):  # False, and no error, for a name that is too long
                if not place.is_dir():
                    raise ValueError(f"output_dir is {self.output_dir}, but {place} is a file; give another folder")
                break

    def _check_combinations(self) -> None:
        if self.dataloader_num_workers == 0:
            for name in ("prefetch_factor", "persistent_workers", "multiprocessing_context"):
                value = getattr(self, f"dataloader_{name}")
                if value:
                    raise ValueError(
                        f"dataloader_{name} is {value}, but there are no workers; give --dataloader_num_workers"
                    )
        evaluates, saves = (str(getattr(value, "value", value)) for value in (self.eval_strategy, self.save_strategy))
        if evaluates == "no":
            for name, asked in (
                ("early_stopping_patience", self.early_stopping_patience is not None),
                ("eval_on_start", self.eval_on_start),
                ("save_strategy", saves == "best"),
                ("load_best_model_at_end", self.load_best_model_at_end),
            ):
                if asked:
                    raise ValueError(
                        f"{name} is {getattr(self, name)} and needs validation figures, and eval_strategy is no; "
                        "change one of them"
                    )
        if self.load_best_model_at_end and saves not in ("best", evaluates):
            raise ValueError(
                f"load_best_model_at_end needs a checkpoint at each evaluation, and eval_strategy is {evaluates}, "
                f"save_strategy {saves}; give both the same value, or load_best_model_at_end false"
            )
        if self.optimizer != "sgd" and self.sgd_momentum != CXRTrainingArguments.sgd_momentum:
            raise ValueError(
                f"sgd_momentum is {self.sgd_momentum:g} and goes with optimizer sgd, and optimizer is "
                f"{self.optimizer}; leave it out, or give --optimizer sgd"
            )
        if self.early_stopping_threshold is not None and self.early_stopping_patience is None:
            raise ValueError("early_stopping_threshold is given without early_stopping_patience; give both or neither")

    def _check_frozen_epochs(self) -> None:
        epochs = self.freeze_backbone_epochs
        schedule = getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type)
        if schedule in BY_A_METRIC:
            raise ValueError(
                f"freeze_backbone_epochs is {epochs}, and lr_scheduler_type {schedule} sets the rates by a metric; "
                "leave it out, or take another schedule, such as cosine"
            )
        if self.max_steps <= 0 and epochs >= self.num_train_epochs:
            raise ValueError(
                f"freeze_backbone_epochs is {epochs}, and training ends after {self.num_train_epochs:g} epochs: the "
                "backbone would never be trained; lower it, or give --freeze_backbone true"
            )

    def _resolve_resume(self) -> None:
        """Leave None (the last checkpoint of output_dir, if there is one) or the path of one of its checkpoints."""
        value = self.resume_from_checkpoint
        if value is None or str(value).lower() in ("true", "yes", "1"):
            self.resume_from_checkpoint = None
            return
        if str(value).lower() in ("false", "no", "0"):
            self.resume_from_checkpoint = None
            if self.on_existing_run == "resume":
                self.on_existing_run = "error"
            return
        run_dir, checkpoint = Path(self.output_dir).expanduser(), Path(value).expanduser()
        if not checkpoint.is_dir() and (run_dir / checkpoint.name).is_dir() and len(checkpoint.parts) == 1:
            checkpoint = run_dir / checkpoint.name
        if not (checkpoint / "trainer_state.json").is_file():
            raise ValueError(
                f"resume_from_checkpoint is {value}, and that is not a checkpoint: it has no trainer_state.json; "
                "give true, or one of the folders checkpoint-* in output_dir"
            )
        if checkpoint.resolve().parent != run_dir.resolve():
            raise ValueError(
                f"resume_from_checkpoint {value} is not in output_dir {self.output_dir}: to continue its run give "
                f"--output_dir {checkpoint.parent}, to start from its weights --model_name_or_path {value}"
            )
        if self.on_existing_run != "resume":
            raise ValueError(
                f"resume_from_checkpoint {value} and on_existing_run {self.on_existing_run} contradict each other; "
                "give one"
            )
        self.resume_from_checkpoint = str(checkpoint)
