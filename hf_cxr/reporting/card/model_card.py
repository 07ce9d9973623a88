"""The model card: `model_card.md` (the template) filled from a run. Nothing in a card is typed by hand.

Its parts are those of card_parts.py. A card links, and shows pictures, from the list of pushed files alone.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from hf_cxr.evaluation import METRICS
from hf_cxr.exported_files import MODEL
from hf_cxr.reporting.card.citations import dataset_citations, software_citation
from hf_cxr.reporting.card.parts import CardParts
from hf_cxr.reporting.document import Block, Heading, block_markdown
from hf_cxr.reporting.evaluation import evaluation_blocks
from hf_cxr.reporting.run import ROC_CURVES, TRAINING_CURVES, Report
from hf_cxr.systems import SYSTEMS
from hf_cxr.words import NOT_A_DEVICE, markdown, one_line

TEMPLATE = Path(__file__).parents[2] / "model_card.md"
if not TEMPLATE.is_file():  # a checkout keeps it at its top, a wheel inside the package
    TEMPLATE = Path(__file__).parents[3] / "model_card.md"

_COMMIT = re.compile(r"[0-9a-f]{40}")


def render(report: Report, config: PreTrainedConfig, *, onnx: bool = False) -> str:
    """The card of a run as Markdown with the Hub's metadata on top.

    Args:
        report: every number comes from here.
        config: of the saved model; architecture, input size and its record come from here.
        onnx: an exported model can be pushed with it.
    """
    text = ModelCard.from_template(
        metadata(report, config),
        template_path=str(TEMPLATE),
        report=report,
        parts=CardParts.of(report, config),
        findings=list(report.test.label_names),
        one=len(report.test.label_names) == 1,
        architecture=config.model_type,
        system=config.model_type in SYSTEMS,
        not_a_device=NOT_A_DEVICE,
        onnx=MODEL if onnx else None,
        results=[_below_a_heading(block) for block in evaluation_blocks(report.test)],
        roc_curves=ROC_CURVES,
        training_curves=TRAINING_CURVES,
        base=base_words(report),
        citations=[
            *dataset_citations(report.protocol["dataset"]),
            software_citation(report.environment["hf_cxr"]),
        ],
        literal=markdown,
        blocks=_markdown,
    )
    return re.sub(r"\n{3,}", "\n\n", str(text)).rstrip("\n") + "\n"


def _below_a_heading(block: Block) -> Block:
    return dataclasses.replace(block, level=3) if isinstance(block, Heading) else block


def _markdown(blocks: Block | Iterable[Block]) -> str:
    """One block or several, as Markdown."""
    return "\n\n".join(map(block_markdown, blocks if isinstance(blocks, tuple | list) else (blocks,)))


def metadata(report: Report, config: PreTrainedConfig) -> ModelCardData:
    """The Hub's metadata. The licence is left out: who publishes the weights chooses it."""
    synthetic = report.protocol["synthetic"]
    dataset = one_line(report.protocol["dataset"])
    hub_id, commit = hub_dataset(report)
    results = [
        EvalResult(
            task_type="image-classification",
            task_name="multi-label chest X-ray classification",
            dataset_type="synthetic" if synthetic else hub_id or dataset.lower(),
            dataset_name=dataset,
            dataset_split="test",
            dataset_revision=commit,
            metric_type=key,
            metric_name=METRICS[key].macro_title,
            metric_value=round(measured.macro, 4),
        )
        for key, measured in report.test.headline().items()
        if measured.macro == measured.macro and not is_partial(report)
    ]
    return ModelCardData(
        model_name=one_line(report.name),
        library_name="hf_cxr" if config.model_type in SYSTEMS else "transformers",
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "multi-label", config.model_type, "hf-cxr", "medical", *["synthetic"] * synthetic],
        datasets=[hub_id] if hub_id else None,
        metrics=list(report.test.headline()),
        base_model=report.protocol.get("base_model"),
        eval_results=results or None,
    )


def model_id(path: Path) -> str:
    """What the example of a card loads: the Hub id that the card was written for, or "." for its own folder."""
    found = re.search(r'model="([^"\n]+)"', path.read_text(encoding="utf-8")) if path.is_file() else None
    return found[1] if found else "."


def hub_dataset(report: Report) -> tuple[str | None, str | None]:
    """The Hub id of a run's data and its commit; None for what is not known."""
    hub_id, _, commit = (report.protocol.get("hub_dataset") or "").partition(" at commit ")
    return hub_id or None, commit if _COMMIT.fullmatch(commit) else None


def is_partial(report: Report) -> bool:
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
