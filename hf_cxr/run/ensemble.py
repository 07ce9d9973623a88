"""Several models as one: their probabilities are averaged, re-calibrated on validation, measured on test.

Members may be runs with different seeds, with different samplers (Ding et al.'s under- and over-sampled ones), or the
checkpoints of one run (snapshots). Only their predictions are read, so members may differ in anything but the images,
labels and findings they were measured on.

Refused: fewer than two members, the same one twice, a run that is not finished, and members whose split, images,
labels or findings differ.

N = images, C = findings, M = members.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_expit, logsumexp

from hf_cxr.config import RunArguments
from hf_cxr.evaluation import Calibration, EvaluationReport, PairedDifference, paired_difference
from hf_cxr.evaluation.draws import DEFAULT_INTERVALS, Intervals
from hf_cxr.files import plain, write_json
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.record import ModelRecord
from hf_cxr.predictions import Predictions
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.evaluation import ensemble_document
from hf_cxr.reporting.weights_origin import origin_cautions
from hf_cxr.run.data import load
from hf_cxr.run.figures import measure_predictions
from hf_cxr.run.measuring import Pair, calibrate_pair, is_calibrated, predict_split
from hf_cxr.run.preflight import readable
from hf_cxr.run.result_folder import write_whole
from hf_cxr.run.resume import check_split
from hf_cxr.run.stage_files import SPLITS, is_done, load_pair, save_pair
from hf_cxr.saved_models import CONFIG, read_json


@dataclass(frozen=True)
class Ensemble:
    """The predictions and the figures of an ensemble.

    Args:
        members: names, in order.
        validation, test: the ensemble's predictions, calibrated; ``metadata`` names the members.
        calibration: of the averaged probabilities, fitted on validation; None if it was turned off.
        validation_report, test_report: every figure with its interval.
        differences: for each member, the ensemble minus it on test, in the same draws of patients.
        origins: member -> where the weights that it was fine-tuned from come from, of members whose record says it.
    """

    members: tuple[str, ...]
    validation: Predictions
    test: Predictions
    calibration: Calibration | None
    validation_report: EvaluationReport
    test_report: EvaluationReport
    differences: dict[str, PairedDifference]
    origins: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in the form of a run's metrics.json where they are the same thing."""
        differences = {
            name: {
                key: {"difference": m.macro, "low": m.macro_low, "high": m.macro_high, "p": difference.macro_p[key]}
                for key, m in difference.measured.items()
            }
            for name, difference in self.differences.items()
        }
        return plain(
            {
                "ensemble_of": list(self.members),
                "averaged": "probabilities, each member weighing the same",
                "calibrated_on": "validation, members and average alike: its validation figures are optimistic"
                if self.calibration
                else None,
                "split_fingerprint": self.test.metadata["split"],
                "test": self.test_report.to_dict(),
                "validation": self.validation_report.to_dict(),
                "calibration": self.calibration and self.calibration.to_dict(),
                "test_difference_to_members": differences,
            }
        )

    def document(self) -> Document:
        """What a reader sees of it."""
        cautions = [f"{name}: {words}" for name, origin in self.origins.items() for words in origin_cautions(origin)]
        return ensemble_document(self.members, self.test_report, self.differences, cautions)

    def write(self, place: Path) -> None:
        """predictions/ and, last, metrics.json.

        Args:
            place: from `result_folder.held`.
        """

        def write(folder: Path) -> None:
            save_pair(folder / "predictions", (self.validation, self.test))
            write_json(folder / "metrics.json", self.to_dict())

        write_whole(place, write, last="metrics.json")


def origins_of(members: Sequence[Path]) -> dict[str, Mapping[str, Any]]:
    """The origin of the initial weights of each member whose config.json says it."""
    configs = {str(member): member / CONFIG for member in members if (member / CONFIG).is_file()}
    records = {name: ModelRecord.of(read_json(config)) for name, config in configs.items()}
    return {name: record.weights_origin for name, record in records.items() if record and record.weights_origin}


def member_predictions(member: Path, args: RunArguments) -> Pair:
    """Predictions of a finished run, as they are saved, or of a checkpoint inside one, as they are made now.

    Args:
        member: the run folder, or the checkpoint's.
        args: of the run.

    Raises:
        ValueError: the run is not finished, or the data are not those that the checkpoint was trained on.
    """
    if (member / "config.yaml").is_file():
        if not is_done(member, "document"):
            raise ValueError(f"{member} is not a finished run: it has no metrics.json; run its training to the end")
        return load_pair(member / "predictions")
    classifier = Classifier(member)
    source = load(args)
    check_split(source.fingerprint, member)
    source.check_pixels(classifier.pixels.resize_size, classifier.pixels.resample)
    splits = readable(args, source.with_splits({name: source.splits[name] for name in SPLITS}))
    validation, test = (predict_split(classifier, splits[name], name, args) for name in SPLITS)
    return validation, test


def build_ensemble(
    members: Mapping[str, Pair],
    *,
    calibrate: bool = True,
    intervals: Intervals = DEFAULT_INTERVALS,
) -> Ensemble:
    """Average members, calibrate the average on validation, measure it and each difference on test.

    The mean of calibrated probabilities is not calibrated (it is too near the middle where members disagree), so the
    average gets its own affine map. A member that is not calibrated is calibrated first, as a run does it: raw outputs
    of the class-aware loss are near 0.6 everywhere, and would drown those of other losses. Members and average are
    calibrated on the same validation images: figures of calibration are honest on test, optimistic on validation.

    Args:
        members: name -> predictions of validation and of test.
        calibrate: fit that map; without it the plain mean of probabilities is measured.
        intervals: how they are drawn; differences have percentile intervals, whatever its kind.

    Raises:
        ValueError: see the module's first lines.
    """
    if len(members) < 2:
        raise ValueError(f"an ensemble needs at least two members; got {len(members)}")
    for number in (0, 1):
        _check_alike({name: one[number] for name, one in members.items()})
    calibration = None
    if calibrate:
        members = {name: pair if is_calibrated(pair[0]) else calibrate_pair(pair)[0] for name, pair in members.items()}
    pair = tuple(average([one[number] for one in members.values()], list(members)) for number in (0, 1))
    if calibrate:
        pair, calibration = calibrate_pair(pair)
    validation, test = pair
    reports = [measure_predictions(split, intervals=intervals) for split in pair]
    differences = {
        name: paired_difference(
            test.probabilities,
            member.probabilities,
            test.labels,
            test.patient_ids,
            resamples=intervals.resamples,
            confidence=intervals.confidence,
            rng=np.random.default_rng(intervals.seed),
        )
        for name, (_, member) in members.items()
    }
    return Ensemble(tuple(members), validation, test, calibration, *reports, differences)


def average(members: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    """Predictions whose probabilities are the mean of the members', computed so that none rounds to 0 or 1."""
    logit_MNC = np.stack([member.logits.astype(np.float64) for member in members])
    logit_NC = logsumexp(log_expit(logit_MNC), axis=0) - logsumexp(log_expit(-logit_MNC), axis=0)
    metadata = {"split": members[0].metadata.get("split"), "calibrated": False, "ensemble_of": list(names)}
    return dataclasses.replace(members[0], logits=logit_NC, metadata=metadata)


def _check_alike(members: Mapping[str, Predictions]) -> None:
    first_name, first = next(iter(members.items()))
    for name, member in members.items():
        problems = {
            "the split fingerprint": member.metadata.get("split") != first.metadata.get("split"),
            "the findings": member.label_names != first.label_names,
            "the images or their order": member.image_ids != first.image_ids,
            "the patients": member.patient_ids != first.patient_ids,
        }
        differs = [what for what, holds in problems.items() if holds]
        if not differs and not np.array_equal(member.labels, first.labels, equal_nan=True):
            differs = ["the labels"]
        if differs:
            raise ValueError(
                f"{name} and {first_name} differ in {' and '.join(differs)} of {first.split}: an ensemble needs "
                "members trained and measured on the same split"
            )
        if member.metadata.get("split") is None:
            raise ValueError(f"{name} does not say which split it was trained on; predict with a model of hf_cxr")
