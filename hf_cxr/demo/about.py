"""What the page says of the model: its name, what it was trained on, its limits. All from the model's own record."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from hf_cxr.demo.bars import probability_words, shown_name
from hf_cxr.demo.limits import Limits
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.names import network_name
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting.input_check_words import false_alarm_words, input_check_limits
from hf_cxr.reporting.protocol import label_limits
from hf_cxr.reporting.training_history import training_history
from hf_cxr.saved_models import public_name
from hf_cxr.words import NOTICE

PHANTOMS = (
    "This model was trained on synthetic phantoms, images that a program drew. It knows nothing of patients. "
    "On a real radiograph its numbers mean nothing."
)


@dataclass(frozen=True)
class PageFacts:
    """What a reader is told of a model.

    Args:
        name: of the model, without its path.
        network: its architecture.
        findings: how many.
        record: what it was trained on; empty for a model of another program.
        input_check: how often its input check is wrong and what it misses, in words; None for a model without one.
    """

    name: str
    network: str
    findings: int
    record: ModelRecord
    input_check: str | None = None

    @classmethod
    def of(cls, classifier: Classifier, model: str | Path) -> "PageFacts":
        """Of a model that was loaded from a run folder or a Hub id."""
        config = classifier.model.config
        record = ModelRecord.of(config) or ModelRecord()
        check = classifier.input_check
        wrong = None if check is None else f"{false_alarm_words(check.measured)} {input_check_limits(check.measured)}"
        return cls(public_name(model), network_name(config), len(classifier.label_names), record, wrong)

    def header_html(self) -> str:
        """The top of the page: first what it is not."""
        stages = [*(stage.get("dataset") for stage in self.record.earlier_stages or ()), self.record.dataset]
        trained = f" · trained on {escape(', then '.join(map(str, filter(None, stages))))}" if any(stages) else ""
        return (
            f'<header class="cxr-header"><p class="cxr-banner" role="note">{NOTICE}</p>'
            "<h1>Findings in a chest radiograph</h1>"
            f'<p class="cxr-soft">{escape(self.name)} · {escape(self.network)} · {self.findings} findings{trained}</p>'
            + (f'<div class="cxr-note cxr-warning"><p>{PHANTOMS}</p></div>' if self.record.synthetic else "")
            + "</header>"
        )

    def sentences(self) -> list[str]:
        """The limits, one after the other."""
        record = self.record
        lines = [f"{NOTICE} Nothing on this page is a diagnosis."]
        lines += [PHANTOMS] if record.synthetic else []
        lines += training_history(record)
        lines += label_limits(record.dataset or "", synthetic=bool(record.synthetic)) if record.dataset else []
        if record.calibration is None:
            lines.append("Probabilities are not calibrated: 0.2 does not mean one image in five.")
        elif record.prevalence_shift is not None:
            lines.append(
                "Probabilities are calibrated for the prevalences in the table below, which were set after training. "
                "Where findings are rarer or more frequent than that, they are too high or too low."
            )
        else:
            lines.append(
                "Probabilities are calibrated on validation images and assume their prevalences, in the table below. "
                "Where findings are rarer or more frequent than that, they are too high or too low."
            )
        if self.input_check is None:
            lines.append(
                "The model has no input check: any image gets probabilities, a lateral view or a photograph too."
            )
        else:
            lines.append(f"The input check compares an image with those of training. {self.input_check}")
        lines.append("The model sees one image at a time: no other view, no earlier study, no history.")
        lines.append(
            "A heat map shows which pixels a score came from. It does not show that the finding is there, nor that "
            "the score is right."
        )
        lines += [record.licence_note] if record.licence_note else []
        return lines

    def limits_html(self, limits: Limits) -> str:
        """The bottom of the page: limits, prevalences, and what happens to an image."""
        items = "".join(f"<li>{escape(line)}</li>" for line in self.sentences())
        return (
            f'<section class="cxr-limits" aria-label="Limits"><h2>Limits</h2><ul>{items}</ul>{self._prevalence_html()}'
            f"<h2>Your image</h2><p>{escape(privacy(limits))}</p></section>"
        )

    def _prevalence_html(self) -> str:
        prevalence: Mapping[str, float] = self.record.prevalence or {}
        if not prevalence:
            return ""
        rows = "".join(
            f"<tr><th scope='row'>{escape(shown_name(name))}</th><td>{probability_words(share)}</td></tr>"
            for name, share in sorted(prevalence.items(), key=lambda entry: -entry[1])
        )
        return (
            "<details><summary>Prevalences that the probabilities assume</summary><table><thead><tr>"
            "<th scope='col'>finding</th><th scope='col'>share of images with it</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></details>"
        )


def privacy(limits: Limits) -> str:
    """What happens to an image that a reader gives."""
    where = (
        "This page runs on computers of Hugging Face: do not give it images of patients."
        if os.environ.get("SPACE_ID")
        else "Your image goes to the computer that runs this page and to no other."
    )
    return (
        f"{where} An image is kept in memory, never on a disk, "
        f"until you close this page or for {limits.minutes:g} minutes after you last used it. At most "
        f"{limits.megabytes:g} MB and {limits.megapixels:g} million pixels: DICOM, PNG, JPEG, TIFF and other formats, "
        "8 or 16 bits."
    )
