"""All arguments of a pre-training together: a run's data, model and Trainer, and what is masked."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_cxr.arguments.components import architecture_options
from hf_cxr.arguments.data import DataArguments
from hf_cxr.arguments.masking import MaskingArguments
from hf_cxr.arguments.model import ModelArguments
from hf_cxr.arguments.run import NOT_SAVED
from hf_cxr.arguments.training import CXRTrainingArguments
from hf_cxr.options import filled

PARTS = (DataArguments, ModelArguments, MaskingArguments, CXRTrainingArguments)

# Keys of a run that pre-training cannot honour: the only value that they may have, and why.
UNUSED = {
    "shuffle_labels": (False, "no label is looked at"),
    "label_smoothing_factor": (0.0, "no label is looked at"),
    "metric_for_best_model": ("loss", "the reconstruction loss is all that is measured"),
    "push_to_hub": (False, "a model is pushed when it was fine-tuned and measured"),
}


@dataclass
class PretrainArguments:
    """Everything that a pre-training is given."""

    data: DataArguments
    model: ModelArguments
    masking: MaskingArguments
    training: CXRTrainingArguments

    def __post_init__(self):
        for key, (value, why) in UNUSED.items():
            given = getattr(self.data, key, getattr(self.training, key, value))
            if given != value:
                raise ValueError(f"{key} must be {str(value).lower()} in pre-training: {why}")
        evaluates = str(getattr(self.training.eval_strategy, "value", self.training.eval_strategy)) != "no"
        if evaluates and not self.masking.held_out_share:
            raise ValueError(
                "eval_strategy needs held-out patients in pre-training, which never looks at the validation split: "
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
