"""The model card: `model_card.md` (the template) filled from a run. Nothing in a card is typed by hand."""

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from hf_cxr.evaluation import METRICS
from hf_cxr.models.names import network_name
from hf_cxr.reporting.document import Note, block_markdown
from hf_cxr.reporting.evaluation import evaluation_blocks
from hf_cxr.reporting.run import ROC_CURVES, TRAINING_CURVES, Report
from hf_cxr.systems import SYSTEMS
from hf_cxr.words import markdown, one_line

TEMPLATE = Path(__file__).parents[1] / "model_card.md"
if not TEMPLATE.is_file():  # a checkout keeps it at its top, a wheel inside the package
    TEMPLATE = Path(__file__).parents[2] / "model_card.md"


def render(report: Report, config: PreTrainedConfig) -> str:
    """The card of a run as Markdown with the Hub's metadata on top.

    Args:
        report: every number comes from here.
        config: of the saved model; architecture and input size come from here.
    """
    return str(
        ModelCard.from_template(
            metadata(report, config),
            template_path=str(TEMPLATE),
            report=report,
            cautions=Note(tuple(report.cautions())),
            findings=list(report.test.label_names),
            network=network_name(config),
            architecture=config.model_type,
            system=config.model_type in SYSTEMS,
            image_size=config.image_size,
            results=evaluation_blocks(report.test),
            roc_curves=ROC_CURVES,
            training_curves=TRAINING_CURVES,
            base=base_words(report),
            frontal=set(report.protocol.get("training_views", {"unknown": 0})) <= {"PA", "AP"},
            mined=report.protocol["dataset"] == "ChestX-ray14",
            literal=markdown,
            block=block_markdown,
        )
    )


def metadata(report: Report, config: PreTrainedConfig) -> ModelCardData:
    """The Hub's metadata. The licence is left out: who publishes the weights chooses it."""
    synthetic = report.protocol["synthetic"]
    dataset = one_line(report.protocol["dataset"])
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="multi-label chest X-ray classification",
            dataset_type="synthetic" if synthetic else dataset.lower(),
            dataset_name=dataset,
            dataset_split="test",
            metric_type=key,
            metric_name=METRICS[key].macro_title,
            metric_value=round(measured.macro, 4),
        )
        for key, measured in report.test.headline().items()
        if measured.macro == measured.macro and not _is_partial(report)
    ]
    return ModelCardData(
        model_name=one_line(report.name),
        library_name="hf_cxr" if config.model_type in SYSTEMS else "transformers",
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "multi-label", config.model_type, "hf-cxr", "medical", *["synthetic"] * synthetic],
        metrics=list(report.test.headline()),
        base_model=report.protocol.get("base_model"),
        eval_results=results or None,
    )


def model_id(path: Path) -> str:
    """What the example of a card loads: the Hub id that the card was written for, or "." for its own folder."""
    found = re.search(r'model="([^"\n]+)"', path.read_text(encoding="utf-8")) if path.is_file() else None
    return found[1] if found else "."


def _is_partial(report: Report) -> bool:
    """Numbers of a part of a test set, of one that was cut differently, or of shuffled labels.

    They must not be listed under the data set's name.
    """
    protocol = report.protocol
    is_part = protocol["missing_images"] or protocol.get("unreadable_images") or protocol["labels_shuffled"]
    is_own_split = protocol["split_file"] and not protocol["synthetic"]
    official = (protocol["splits_from"] or "").startswith("official test list")
    return bool(is_part or is_own_split or (protocol["dataset"] == "ChestX-ray14" and not official))


def base_words(report: Report) -> str | None:
    """The initial weights as Markdown: a Hub id as code, a local folder by its name; None for random ones."""
    hub_id, words = report.protocol.get("base_model"), report.protocol["initial_weights"]
    return f"`{hub_id}`" if hub_id else None if words == "random" else markdown(words)
