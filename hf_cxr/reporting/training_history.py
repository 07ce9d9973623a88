"""Sentences on everything that a model's weights were trained on, from its `ModelRecord`: for pages and /info."""

from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.weights_origin import origin_cautions, origin_words

UNKNOWN_DATA = "data that were not recorded"


def training_history(record: ModelRecord) -> list[str]:
    """What the weights were trained on: the last training, those before it, and what it started from.

    Args:
        record: of the model; an empty one for a model of another program.
    """
    if record.dataset is None and not record.earlier_stages and record.weights_origin is None:
        return ["The model does not say what it was trained on."]
    lines = [f"The model was trained on {record.dataset}."] if record.dataset else []
    stages = [dataset_words(stage.get("dataset"), stage.get("held_out")) for stage in record.earlier_stages or ()]
    if stages:
        lines.append(f"Earlier trainings of its weights, oldest first: {'; '.join(stages)}.")
    if record.weights_origin is not None:
        lines.append(f"Its initial weights: {origin_words(record.weights_origin)}.")
        lines += origin_cautions(record.weights_origin)
    elif record.initial_weights and not stages:
        lines.append(
            f"Its initial weights were those of a file (SHA-256 {record.initial_weights[:12]}...); what that was "
            "trained on is not recorded."
        )
    elif not stages:
        lines.append(
            "Its initial weights are not recorded: random, or of the Hub, where they were trained on other images."
        )
    return lines


def dataset_words(dataset: str | None, held_out: str | None) -> str:
    """The data of one training in words; ``held_out`` is there where it had no labels.

    >>> dataset_words("CheXpert", None), dataset_words(None, "1f")
    ('CheXpert', 'data that were not recorded, without labels')
    """
    return (dataset or UNKNOWN_DATA) + (", without labels" if held_out else "")
