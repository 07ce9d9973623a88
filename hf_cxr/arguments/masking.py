"""The keys that pre-training has beside those of data, model and training, and its own defaults of these.

This imports neither torch nor transformers, as `flags` does not: help and a misspelt flag do not wait for them.
"""

from dataclasses import dataclass, field, fields, replace

from hf_cxr.arguments.flags import Flag, Flags, recorded_flags

# Dataclasses of a run whose keys pre-training takes too.
GROUPS = ("DataArguments", "ModelArguments", "CXRTrainingArguments")

# Key of a run -> its default here: SimMIM's optimizer and schedule (section 4.1 of the paper, for 100 epochs), its
# augmentation without rotation, and the last epoch's weights, because labels chose nothing.
DEFAULTS = {
    "output_dir": "runs/pretraining",
    "rotation_degrees": 0.0,
    "optimizer": "adamw",
    "learning_rate": 8e-4,
    "weight_decay": 0.05,
    "max_grad_norm": 5.0,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "num_train_epochs": 100.0,
    "bf16": True,
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "metric_for_best_model": "loss",
}


@dataclass
class MaskingArguments:
    """What is masked, and which images may be read."""

    mask_patch_size: int = field(
        default=32,
        metadata={
            "help": "Side in pixels of the squares that are masked: a multiple of the model's patch_size that divides "
            "image_size."
        },
    )
    mask_ratio: float = field(default=0.6, metadata={"help": "Share of these squares that is masked, 0 to 1."})
    held_out_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the training patients that are not trained on, 0 to below 0.5: their loss is "
            "measured after each epoch."
        },
    )
    never_tested: bool = field(
        default=False,
        metadata={
            "help": "For data without a test set: states that no model that starts from these weights will be tested "
            "on these images; all of them are then trained on. Otherwise give --split_file."
        },
    )

    def __post_init__(self):
        for name, least, below in (("mask_ratio", 0, 1), ("held_out_share", 0, 0.5)):
            value = getattr(self, name)
            if not least <= value < below or (name == "mask_ratio" and value == 0):
                wanted = "above 0 and below 1" if name == "mask_ratio" else "0 to below 0.5"
                raise ValueError(f"{name} is {value}; it must be {wanted}")
        if self.mask_patch_size < 1:
            raise ValueError(f"mask_patch_size is {self.mask_patch_size}; it must be at least 1")


def pretraining_flags() -> Flags:
    """The flags of `hf-cxr pretrain`: those of the groups, with its defaults, and its own."""
    run = recorded_flags()
    shared = [
        replace(flag, default=DEFAULTS[flag.dest]) if flag.dest in DEFAULTS and flag.kind is not None else flag
        for flag in run.flags
        if flag.group in GROUPS
    ]
    return replace(run, flags=(*map(_flag, fields(MaskingArguments)), *shared))


def _flag(item) -> Flag:
    switch = item.type is bool
    return Flag(
        names=list(dict.fromkeys([f"--{item.name}", f"--{item.name.replace('_', '-')}"])),
        dest=item.name,
        group="MaskingArguments",
        kind="switch" if switch else item.type.__name__,
        nargs="?" if switch else None,
        const=True if switch else None,
        default=item.default,
        choices=None,
        help=item.metadata["help"],
    )
