"""What every evaluation measures, of a model or of a file of scores: `System` -> figures and analyses. No torch.

report, analysis = measure(system, intervals, without=("controls",), against="second.csv")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_cxr.evaluation import EvaluationReport
from hf_cxr.evaluation.draws import Intervals
from hf_cxr.evaluation.operating_points import OperatingPoints
from hf_cxr.files import plain
from hf_cxr.predictions import Predictions
from hf_cxr.run.analysis import analyse
from hf_cxr.run.evaluating.against import compare_with
from hf_cxr.run.figures import measure_predictions


@dataclass(frozen=True)
class System:
    """A model or another program, as its predictions.

    Attributes:
        name: what reports call it.
        images: its predictions, as it made them.
        measured: the same, or those of studies if studies are measured.
        validation: of the validation split, images or studies as ``measured``; None if there are none.
        points: operating points, of validation; None if none were chosen.
        prevalence: finding -> the share of positives that the probabilities assume; None if not known.
        facts: what a page says of studies; {} for images.
        cautions: what a reader of a page about studies must not overlook.
    """

    name: str
    images: Predictions
    measured: Predictions
    validation: Predictions | None = None
    points: OperatingPoints | None = None
    prevalence: Mapping[str, float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


def measure(
    system: System,
    intervals: Intervals,
    *,
    without: Sequence[str] = (),
    against: str | None = None,
    against_kind: str | None = None,
    studies: str | None = None,
) -> tuple[EvaluationReport, dict[str, Any]]:
    """Every figure and every analysis of a system, and how it differs from another one.

    Args:
        system: what is measured.
        intervals: how they are drawn.
        without: keys of `run.analysis.ANALYSES` that are not wanted.
        against: file or folder of a second system's scores.
        against_kind: what these are, if the file does not say.
        studies: how a study is scored, if studies are measured and the predictions are of images.

    Returns:
        The figures, and the analyses by key of analysis.json.
    """
    report = measure_predictions(system.measured, system.points, intervals=intervals)
    analysis = analyse(
        system.measured,
        validation=system.validation,
        points=system.points,
        prevalence=system.prevalence,
        without=without,
        intervals=intervals,
    )
    if against:
        split = system.images.split
        paired = compare_with(
            system.images, system.name, against, kind=against_kind, split=split, studies=studies, intervals=intervals
        )
        analysis["paired"] = plain(paired.to_dict())
    return report, analysis
