"""The model card: `model_card.md` (the template) filled from a run. Nothing in a card is typed by hand."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from hf_cxr.reporting.run import Report
from hf_cxr.words import markdown, one_line

TEMPLATE = Path(__file__).parents[1] / "model_card.md"
if not TEMPLATE.is_file():  # a checkout keeps it at its top, a wheel inside the package
    TEMPLATE = Path(__file__).parents[2] / "model_card.md"


def render(report: Report, config: PreTrainedConfig) -> str:
    """The card of a run as Markdown with the Hub's metadata on top.

    Args:
        report: every figure comes from here.
        config: of the saved model; findings and input size come from here.
    """
    return str(
        ModelCard.from_template(
            metadata(report, config),
            template_path=str(TEMPLATE),
            report=report,
            architecture=config.model_type,
            findings=list(config.id2label.values()),
            image_size=config.image_size,
            cautions=report.cautions(),
            protocol=report.protocol_rows(),
            base=base_words(report),
            frontal=set(report.protocol.get("training_views", {"unknown": 0})) <= {"PA", "AP"},
            mined=report.protocol["dataset"] == "ChestX-ray14",
            literal=markdown,
        )
    )


def metadata(report: Report, config: PreTrainedConfig) -> ModelCardData:
    """The Hub's metadata. The licence is left out: it is for whoever publishes the weights to choose."""
    test = report.test
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="multi-label chest X-ray classification",
            dataset_type="synthetic" if report.protocol["synthetic"] else one_line(report.protocol["dataset"]).lower(),
            dataset_name=one_line(report.protocol["dataset"]),
            dataset_split="test",
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for kind, name, value in (
            ("roc_auc", "macro AUC", test.macro_auc),
            ("mean_average_precision", "mean average precision", test.macro_ap),
        )
        if value == value and not _partial(report)
    ]
    return ModelCardData(
        model_name=one_line(report.name),
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=[
            "chest-x-ray",
            "multi-label",
            config.model_type,
            "hf-cxr",
            "medical",
            *(["synthetic"] * report.protocol["synthetic"]),
        ],
        metrics=["roc_auc", "mean_average_precision"],
        base_model=report.protocol["base_model"],
        eval_results=results or None,
    )


def _partial(report: Report) -> bool:
    # Figures of a part of a test set, of one that was cut otherwise, or of shuffled labels, must not stand beside
    # others under its name.
    protocol = report.protocol
    is_part = bool(protocol["missing_images"] or protocol.get("unreadable_images") or protocol["labels_shuffled"])
    is_other = protocol["split_file"] and not protocol["synthetic"]
    is_other = is_other or (
        protocol["dataset"] == "ChestX-ray14" and not (protocol["splits_from"] or "").startswith("official test list")
    )
    return is_part or bool(is_other)


def base_words(report: Report) -> str | None:
    """The initial weights as Markdown: a Hub id as code, a local folder by its name; None for random ones."""
    hub_id, words = report.protocol["base_model"], report.protocol["initial_weights"]
    return f"`{hub_id}`" if hub_id else None if words == "random" else markdown(words)
