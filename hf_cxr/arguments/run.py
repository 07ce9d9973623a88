"""All arguments of a run together: what their combinations must be, and their values as config.yaml keeps them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_cxr.arguments.components import with_defaults
from hf_cxr.arguments.data import DATA_PATHS, DataArguments
from hf_cxr.arguments.evaluation import EvaluationArguments
from hf_cxr.arguments.method import LossArguments, SamplingArguments, StageArguments
from hf_cxr.arguments.model import INITIAL_WEIGHTS, ModelArguments
from hf_cxr.arguments.training import CXRTrainingArguments
from hf_cxr.losses import MultiLabelLoss
from hf_cxr.words import plural

# What measuring a model takes from a run's config.yaml: which data and how they are measured, nothing of the training
# or of the machine that it ran on.
MEASURING = frozenset(
    {item.name for arguments in (DataArguments, EvaluationArguments) for item in dataclasses.fields(arguments)}
    | {"seed", "per_device_eval_batch_size", "dataloader_num_workers"}
)

# Keys whose value may be a local path.
PATHS = (*INITIAL_WEIGHTS, *DATA_PATHS)

# Prefixes of keys that belong to one call or one process and not to the run: left out of its config.yaml.
NOT_SAVED = ("hub_", "local_rank", "on_existing_run", "push_to_hub", "resume_from_checkpoint")

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
    """Everything that a run is given."""

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
            raise ValueError(f"reweight_from_epoch is {start}, and training ends after {plural(epochs, 'epoch')}")
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
                f"sampler {self.sampling.sampler} draws images by number, and a stream has its own order: leave "
                "out --streaming or --sampler"
            )
        loss = self.loss.without_data()
        loss.set_label_smoothing(self.training.label_smoothing_factor)
        if self.sampling.mixup_alpha:
            self._check_mixup(loss)
        if self.stages.freeze_backbone:
            self._check_frozen_backbone()
        if start is not None and loss.class_weights_kind == "none":
            raise ValueError(
                f"reweight_from_epoch is {start}, but {self.loss.loss} has no class weights here: give "
                "--loss_kwargs.class_weights, such as effective_number"
            )
        for name, value in (("freeze_backbone", True), ("reinitialize_head", False)):
            if getattr(self.stages, name) is value and self.model.model_name_or_path is None:
                raise ValueError(
                    f"{name} {str(value).lower()} needs --model_name_or_path: a fresh model has learnt nothing yet"
                )

    def _check_mixup(self, loss: MultiLabelLoss) -> None:
        loss.check_soft_targets(f"mixup_alpha is {self.sampling.mixup_alpha:g}")
        if self.data.streaming:
            raise ValueError(
                "mixup_alpha reads a second image by its number, and a stream has its own order: leave out "
                "--streaming or --mixup_alpha"
            )
        if self.stages.feature_oversampling is not None:
            raise ValueError(
                "mixup_alpha mixes images and feature_oversampling their features: leave out one of the two"
            )

    def _check_frozen_backbone(self) -> None:
        for name in ("layer_decay", "freeze_backbone_epochs", "head_learning_rate"):
            value = getattr(self.training, name)
            if value != CXRTrainingArguments.__dataclass_fields__[name].default:
                raise ValueError(
                    f"{name} is {value}, and with freeze_backbone true the classifier alone is trained, with "
                    f"learning_rate: leave out {name}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Every key with its resolved value, as plain YAML types.

        Defaults are included. The Hub's keys are left out: a repetition of the run must not have the token, nor
        overwrite what was published. So is what to do about an earlier run.
        """
        training = {key: value for key, value in self.training.to_config().items() if not key.startswith(NOT_SAVED)}
        ours = (self.data, self.model, self.loss, self.sampling, self.stages, self.evaluation)
        values = {key: value for part in ours for key, value in dataclasses.asdict(part).items()}
        return with_defaults(values | training)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RunArguments":
        """The dataclasses of such values as the parser gives: every key of every one of them."""
        parts = [{item.name for item in dataclasses.fields(part) if item.init} for part in ARGUMENTS]
        return cls(*(part(**{key: values[key] for key in keys}) for part, keys in zip(ARGUMENTS, parts, strict=True)))
