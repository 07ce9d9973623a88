"""All arguments of a pre-training together: a run's data, model and Trainer, and what is masked."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_cxr.arguments.components import architecture_options
from hf_cxr.arguments.data import DataArguments
from hf_cxr.arguments.masking import DEFAULTS, MaskingArguments
from hf_cxr.arguments.model import ModelArguments
from hf_cxr.arguments.run import NOT_SAVED
from hf_cxr.arguments.training import CXRTrainingArguments
from hf_cxr.options import filled

PARTS = (DataArguments, ModelArguments, MaskingArguments, CXRTrainingArguments)

# Keys of a run that pre-training cannot honour, and why: they must keep their default.
UNUSED = {
    "shuffle_labels": "no label is looked at",
    "label_smoothing_factor": "no label is looked at",
    "metric_for_best_model": "the reconstruction loss is all that is measured",
    "push_to_hub": "a model is pushed when it was fine-tuned and measured",
    "layer_decay": "it is for fine-tuning",
    "head_learning_rate": "there is no classifier",
    "freeze_backbone_epochs": "it is for fine-tuning",
}


@dataclass
class PretrainArguments:
    """Everything that a pre-training is given."""

    data: DataArguments
    model: ModelArguments
    masking: MaskingArguments
    training: CXRTrainingArguments

    def __post_init__(self):
        for part in (self.data, self.model, self.training):
            for item in dataclasses.fields(part):
                default = DEFAULTS.get(item.name, item.default)
                if item.name in UNUSED and getattr(part, item.name) != default:
                    words = "be left out" if default is None else f"be {str(default).lower()}"
                    raise ValueError(f"{item.name} must {words} in pre-training: {UNUSED[item.name]}")
        evaluates = str(getattr(self.training.eval_strategy, "value", self.training.eval_strategy)) != "no"
        if evaluates and not self.masking.held_out_share:
            raise ValueError(
                "eval_strategy needs held-out patients in pre-training, which never reads the validation split: "
                "give --held_out_share 0.05, or --eval_strategy no"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every key with its resolved value, as plain YAML types; as `RunArguments.to_dict`."""
        training = {key: value for key, value in self.training.to_config().items() if not key.startswith(NOT_SAVED)}
        values = {
            key: value
            for part in (self.data, self.model, self.masking)
            for key, value in dataclasses.asdict(part).items()
        }
        if self.model.model_name_or_path is None:
            values["model_kwargs"] = filled(self.model.model_kwargs, architecture_options(self.model.architecture))
        return values | training

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PretrainArguments":
        """The dataclasses of such values as the parser gives: every key of every one of them."""
        if values["held_out_share"] and values["eval_strategy"] == "no":
            values = {**values, "eval_strategy": "epoch"}
        parts = [{item.name for item in dataclasses.fields(part) if item.init} for part in PARTS]
        return cls(*(part(**{key: values[key] for key in keys}) for part, keys in zip(PARTS, parts, strict=True)))
