"""What a model of this package was trained on and how: the key ``hf_cxr`` of its config.json, as a typed value.

A run writes the record once, and `ModelRecord.of` reads it. Records of
earlier versions lack the later fields, which are then None. A model that this package did not train has no record.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from hf_cxr.evaluation.conformal import ConformalSets
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.weights_origin import check_origin

KEY = "hf_cxr"
MASKED_LOSS = "masked_l1"  # the loss of a model that was pre-trained without labels
READERS = {
    "operating_points": OperatingPoints.from_dict,
    "conformal": ConformalSets.from_dict,
    "weights_origin": check_origin,
}
"""Of each field that is more than plain values, what reads it; it refuses a damaged one."""


@dataclass(frozen=True)
class ModelRecord:
    """The fields of the record; each has its name in config.json, and None where a model does not say.

    Args:
        version: of this package.
        dataset: name of the data.
        synthetic: the images were rendered: the model knows nothing of patients.
        split: fingerprint of the patient split, 64 hexadecimal digits.
        loss: name and options of the loss, as `losses.MultiLabelLoss.describe` gives them.
        data: fingerprint of every row, label and file (see `data.fingerprint`), which a resume compares.
        initial_weights: SHA-256 of the local weights that training started from; None for a fresh or a Hub model.
        removed_images: by split, how many images the run started with and the data no longer list.
        calibration: the map that is folded into the head, as `evaluation.Calibration.to_dict` gives it; None for a
            model whose outputs are not calibrated.
        operating_points: finding -> threshold and how it was chosen, as `evaluation.OperatingPoints.to_dict` gives
            them; None for a finding without one.
        conformal: for each finding, the probabilities from which "present" and "absent" are in its label set, as
            `evaluation.ConformalSets.to_dict` gives them; None for a model without label sets.
        prevalence: finding -> share of positives that the calibrated probabilities assume, 0 to 1: that of validation;
            None for a model whose outputs are not calibrated.
        licence_note: what the licence of the data says about models trained on them.
        prevalence_shift: of a copy that assumes other prevalences than validation's, what was done: "method" ("given"
            or "estimated"), "images" that an estimate is from, "not_estimated" (finding -> reason), "findings"
            (finding -> "source", "target", an estimate's "low" and "high", and "bias" added to the logit), and
            "copied_from_sha256", the fingerprint
            of the model before. None for a model as its run wrote it.
        held_out: of a model that was pre-trained: fingerprint of the validation and test rows that it did not see.
        weights_origin: where the weights come from that training started with, if this package did not train them or
            trained them without labels, as `weights_origin.check_origin` says; a model fine-tuned from them keeps it.
        earlier_stages: of every training of this package that the weights went through before this one, oldest first:
            its "dataset", "split" and "held_out", as above. None for a model that started from no such weights.
    """

    version: str | None = None
    dataset: str | None = None
    synthetic: bool | None = None
    split: str | None = None
    loss: Mapping[str, Any] | None = None
    data: str | None = None
    initial_weights: str | None = None
    removed_images: Mapping[str, int] | None = None
    calibration: Mapping[str, Any] | None = None
    operating_points: Mapping[str, Mapping[str, Any] | None] | None = None
    conformal: Mapping[str, Any] | None = None
    prevalence: Mapping[str, float] | None = None
    licence_note: str | None = None
    prevalence_shift: Mapping[str, Any] | None = None
    held_out: str | None = None
    weights_origin: Mapping[str, str | None] | None = None
    earlier_stages: Sequence[Mapping[str, str | None]] | None = None

    @property
    def unlabelled(self) -> bool:
        """Whether it is of a pre-training without labels."""
        return (self.loss or {}).get("name") == MASKED_LOSS

    @property
    def stages(self) -> tuple[Mapping[str, str | None], ...]:
        """All trainings of this package that the weights went through, the last one at the end: see earlier_stages.

        Converted weights have none of their own. A training that recorded no split is one all the same.
        """
        earlier = tuple(self.earlier_stages or ())
        if self.split is None and self.weights_origin is not None:
            return earlier
        return (*earlier, {"dataset": self.dataset, "split": self.split, "held_out": self.held_out})

    @classmethod
    def of(cls, config: PreTrainedConfig | Mapping[str, Any]) -> "ModelRecord | None":
        """The record of a model; None if this package did not train it.

        Args:
            config: of the model, or the content of its config.json.

        Raises:
            ValueError: the key ``hf_cxr`` is not a record, or its operating points, its label sets, its weights'
                origin or its earlier stages are damaged.
        """
        values = config.get(KEY) if isinstance(config, Mapping) else getattr(config, KEY, None)
        if values is not None and not isinstance(values, Mapping):
            raise ValueError(f"{KEY} in config.json is {values!r:.40}; it must be what training wrote")
        if not values:
            return None
        for key, read in READERS.items():
            if values.get(key) is not None:
                try:
                    read(values[key])
                except ValueError as error:
                    raise ValueError(f"{KEY} in config.json: {error}") from error
        if values.get("earlier_stages") is not None:
            _check_stages(values["earlier_stages"])
        known = {field.name for field in dataclasses.fields(cls)}  # a later version may have written more
        return cls(**{key: value for key, value in values.items() if key in known})

    def write(self, config: PreTrainedConfig) -> None:
        """Put the record into a model's config, so that ``save_pretrained`` writes it to config.json.

        ``initial_weights`` is written when it is None too: a model that started fresh says so.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept = {key: value for key, value in values.items() if value is not None or key == "initial_weights"}
        setattr(config, KEY, kept)


def _check_stages(stages: Any) -> None:
    good = isinstance(stages, list | tuple) and all(
        isinstance(one, Mapping) and all(value is None or isinstance(value, str) for value in one.values())
        for one in stages
    )
    if not good:
        raise ValueError(
            f"earlier_stages of {KEY} in config.json is {stages!r:.40}; it must be a list of mappings of text"
        )
