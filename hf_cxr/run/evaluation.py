"""`Evaluation`: the figures of a model, or of a file of scores, on a split of any data; and its folder. No torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_cxr.evaluation import EvaluationReport
from hf_cxr.evaluation.paired import Paired
from hf_cxr.files import write_json, write_text
from hf_cxr.prediction_tables.folders import PREDICTIONS, VALIDATION_PREDICTIONS
from hf_cxr.predictions import Predictions
from hf_cxr.reporting import plots
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.evaluation import evaluation_document
from hf_cxr.reporting.paired import PICTURE, paired_section
from hf_cxr.run.result_folder import (
    EVALUATION,
    PAGE,
    PAIRED,
    write_whole,
)


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
        paired: the difference to another system on the same images, if one was given.
    """

    model: str
    identity: dict[str, Any]
    trained_on: str | None
    measured_on: dict[str, Any]
    report: EvaluationReport
    predictions: Predictions
    validation: Predictions | None = None
    paired: Paired | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        model = {
            "model": self.model,
            "model_sha256": self.identity["model_sha256"],
            "trained_on_split": self.trained_on,
        }
        rest = {key: value for key, value in self.identity.items() if key not in model | self.measured_on}
        return {**model, **rest, **self.measured_on, **self.report.to_dict()}

    def document(self) -> Document:
        """What a reader sees of it."""
        document = evaluation_document(
            self.model, self.report, facts=self.measured_on, split=self.measured_on["split"]
        )
        if self.paired is None:
            return document
        return dataclasses.replace(document, blocks=(*document.blocks, *paired_section(self.paired.to_dict()).blocks))

    def write(self, place: Path) -> None:
        """The predictions, the page and, last, evaluation.json.

        Args:
            place: from `result_folder.held`.
        """
        metadata = {**self.predictions.metadata, "measured": self.identity}

        def write(folder: Path) -> None:
            dataclasses.replace(self.predictions, metadata=metadata).save(folder / PREDICTIONS)
            if self.validation is not None:
                self.validation.save(folder / VALIDATION_PREDICTIONS)
            if self.paired is not None:
                write_json(folder / PAIRED, self.paired.to_dict())
                for path, draw in paired_section(self.paired.to_dict()).drawings.items():
                    plots.save(draw(), folder / path)
            write_text(folder / PAGE, self.document().to_html(folder))
            write_json(folder / EVALUATION, self.to_dict())

        write_whole(place, write, last=EVALUATION, optional=(PAIRED, PICTURE, VALIDATION_PREDICTIONS))
