"""`Evaluation`: the figures of a model, or of a file of scores, on a split of any data; and its folder. No torch."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr.evaluation import EvaluationReport
from hf_cxr.files import write_json, write_text
from hf_cxr.inference.views import FILES as AVERAGED_FILES
from hf_cxr.prediction_tables.folders import PREDICTIONS, VALIDATION_PREDICTIONS
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.evaluation import evaluation_document, evaluation_summary
from hf_cxr.reporting.mistakes import SHEET
from hf_cxr.reporting.sections.table import draw_sections
from hf_cxr.reporting.weights_origin import origin_cautions
from hf_cxr.run.analysis import write_analysis
from hf_cxr.run.evaluating.studies import UNIT
from hf_cxr.run.result_folder import (
    EVALUATION,
    PAGE,
    write_whole,
)

if TYPE_CHECKING:  # it needs torch
    from hf_cxr.run.evaluating.averaged_views import Averaged


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model or of another program's scores on a split.

    Attributes:
        model: run folder or Hub id, or the file of the scores, as it was given.
        identity: what the figures are of, see `result_folder.check_same_evaluation`.
        trained_on: the fingerprint of the split that the model was trained on, if it says.
        measured_on: which data, and what of them is missing.
        report: every figure with its interval.
        predictions: in the order of the split.
        validation: predictions of the validation split, if they were given: what calibration and operating points are
            fitted on.
        analysis: what was measured in addition to the metrics, see `run.analysis`.
        weights_origin: where the weights that the model was fine-tuned from come from, if its record says.
        warnings: further cautions for the top of the page.
        averaged: the same model with averaged views (test-time augmentation), if it was asked for.
        mistakes: the contact sheet of the most confident mistakes (`mistakes.mistakes_page`), if it was asked for.
    """

    model: str
    identity: dict[str, Any]
    trained_on: str | None
    measured_on: dict[str, Any]
    report: EvaluationReport
    predictions: Predictions
    validation: Predictions | None = None
    analysis: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights_origin: Mapping[str, Any] | None = None
    averaged: "Averaged | None" = None
    mistakes: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        model = {
            "model": self.model,
            "model_sha256": self.identity["model_sha256"],
            "trained_on_split": self.trained_on,
        }
        if self.weights_origin is not None:
            model["weights_origin"] = dict(self.weights_origin)
        rest = {key: value for key, value in self.identity.items() if key not in model | self.measured_on}
        return {**model, **rest, **self.measured_on, **self.report.to_dict()}

    def document(self) -> Document:
        """What a reader sees of it."""
        return evaluation_document(
            self.model,
            self.report,
            facts=self.measured_on,
            split=self.measured_on["split"],
            analysis=self.analysis,
            cautions=self.cautions(),
            any_program="calibrated" not in self.predictions.metadata,
            unit=self.unit,
        )

    def summary(self) -> Document:
        """What the terminal shows of it where the whole is on a page."""
        patients = self.report.counts["all"].patients
        return evaluation_summary(self.document(), patients, self.analysis, self.unit)

    @property
    def unit(self) -> str:
        """What a row is: "image" or "study"."""
        return self.predictions.metadata.get(UNIT, "image")

    def cautions(self) -> list[str]:
        """What the reader of the page must not overlook besides what the figures themselves call for."""
        own, trained_on = self.identity.get("split_fingerprint"), self.trained_on
        cautions = origin_cautions(self.weights_origin)
        if own is None or trained_on is None or own == trained_on:
            return [*cautions, *self.warnings]
        return [
            *cautions,
            *self.warnings,
            "The model was trained on other data, or on another cut of these (the split fingerprints differ): if the "
            "two overlap, patients of this set may have been trained on.",
        ]

    def write(self, place: Path) -> None:
        """The predictions, the page and, last, evaluation.json; then the contact sheet, in a separate folder.

        Args:
            place: from `result_folder.held`.
        """
        metadata = {**self.predictions.metadata, "measured": self.identity}

        def write(folder: Path) -> None:
            dataclasses.replace(self.predictions, metadata=metadata).save(folder / PREDICTIONS)
            if self.validation is not None:
                self.validation.save(folder / VALIDATION_PREDICTIONS)
            if self.averaged is not None:
                self.averaged.write(folder)
            write_analysis(folder, self.analysis)
            with tempfile.TemporaryDirectory() as pictures:  # the page embeds them
                draw_sections(self.analysis, Path(pictures), unit=self.unit)
                write_text(folder / PAGE, self.document().to_html(pictures))
            write_json(folder / EVALUATION, self.to_dict())

        write_whole(place, write, last=EVALUATION, optional=(VALIDATION_PREDICTIONS, *AVERAGED_FILES))
        if self.mistakes is not None:
            write_text(place / SHEET, self.mistakes)
