"""DICOM structured reports: what a model says of an image, as an object in the image's own study (TID 1500).

    writer = StructuredReports(folder, model_name="runs/quickstart", model_sha256=fingerprint)
    file = writer.write("chest.dcm", result)

Each report is an Enhanced SR of the template "Measurement Report" (DICOM PS3.16, TID 1500), made by highdicom. For
each finding it has a group of measurements (TID 1501):

| content                               | code                                          | value                       |
|---------------------------------------|-----------------------------------------------|-----------------------------|
| what the group is about               | Finding (121071, DCM)                         | the label, in our scheme    |
| probability                           | Probability (122157, DCM)                     | 0 to 1, no units            |
| threshold, if the finding has one     | operating-point, in our scheme                | 0 to 1, no units            |
| whether the probability reaches it    | reaches-op-point, in our scheme               | Yes or No (SCT)             |
| labels not ruled out (conformal set)  | not-ruled-out, in our scheme                  | present, absent, both, none |

Nothing is coded as present or absent: a call at a threshold is a comparison, and a label set says what is not unusual.

A separate group says that an image looks unlike those of training, with the reasons. Patient and study are copied
from the image by highdicom, as the standard wants: **the report identifies the patient as the image does.** The
observer is the model as a device, with its fingerprint as serial number. The report is complete, preliminary and not
verified: no reader has seen it.

Labels have codes of our own scheme, 99HFCXR, and not SNOMED's: a label that was mined from reports or drawn by a
dataset's rules means what the dataset says, and not what a terminology says.

A file is called after the image's instance UID and eight digits of the image's content and the model: reports of two
models, or of two images with one instance UID, are two files, and a report of the same image by the same model
replaces the one before. Reports of one study by one model are one series, whenever they are written: its UID follows
from the two, and instance numbers count on from the reports in the folder.

Refused, as `ReportError`: a file that is not DICOM, or lacks valid UIDs of its study, series and instance; a folder
with a report that cannot be read.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_cxr.extras import need
from hf_cxr.files import file_sha256, replacing
from hf_cxr.inference.results import ImageResult

if TYPE_CHECKING:
    from highdicom.sr import MeasurementsAndQualitativeEvaluations
    from pydicom import Dataset
    from pydicom.sr.coding import Code

SCHEME = "99HFCXR"
SUFFIX = ".sr.dcm"
MANUFACTURER = "hf_cxr"
DESCRIPTION = "hf_cxr: for research, not for diagnosis"
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SYNTHETIC_MODEL = "This model knows nothing of patients"
SYNTHETIC = "synthetic phantoms: the numbers mean nothing for a patient"
LONGEST_MEANING = 64  # characters of a code's meaning (VR LO)
LONGEST_VALUE = 16  # characters of a code's value (VR SH)


class ReportError(ValueError):
    """A structured report that cannot be written; the message names the image and the reason."""


class NotDicomError(ReportError):
    """The image is not DICOM: it has no study that a report could be in."""


class StructuredReports:
    """Writes a report for each image into one folder; one model's reports of one study share a series.

    Args:
        folder: where ``<instance UID of the image>_<digits>.sr.dcm`` are written; made if it is not there.
        model_name: what the reports call the model.
        model_sha256: its fingerprint, which becomes the device's serial number and its UID.
        synthetic: the model was trained on synthetic images: every report begins with that.

    Raises:
        MissingExtraError: highdicom is not installed.
        ReportError: a report that is in the folder cannot be read.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, *, model_name: str, model_sha256: str, synthetic: bool = False):
        need("a structured report", "dicom", "highdicom")
        from pydicom.uid import generate_uid

        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model_name, self.model_sha256, self.synthetic = model_name, model_sha256, synthetic
        self.device_uid = str(generate_uid(entropy_srcs=["hf_cxr model", model_sha256]))
        self.last = Counter[str]()
        """UID of a series -> the highest instance number of its reports."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            series_uid, number = _place_in_series(path)
            self.last[series_uid] = max(self.last[series_uid], number)

    def write(self, image: str | os.PathLike | bytes, result: ImageResult) -> Path:
        """The report of an image, written under another name and renamed.

        Args:
            image: the DICOM file, or its bytes.
            result: what the model says of it.

        Returns:
            The file.

        Raises:
            ReportError: the image is not DICOM, or no report can be made of it; the report that would be replaced
                cannot be read.
            OSError: the file cannot be written.
        """
        header = read_header(image, result.name)
        digits = _sha256(self.model_sha256, _content_sha256(image))[:8]
        path = self.folder / f"{header.SOPInstanceUID}_{digits}{SUFFIX}"  # a valid UID: digits and dots, no path
        series_uid = self.series_uid(header.StudyInstanceUID)
        number = self.last[series_uid] + 1
        if path.exists():
            found_uid, found = _place_in_series(path)
            number = found if found_uid == series_uid else number
        report = self.report(header, result, number)
        with replacing(path) as beside:
            report.save_as(beside, enforce_file_format=True)
        self.last[series_uid] = max(self.last[series_uid], number)
        return path

    def series_uid(self, study_uid: str) -> str:
        """The series of this model's reports of a study: the same in every command."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=["hf_cxr series", str(study_uid), self.model_sha256]))

    def report(self, header: "Dataset", result: ImageResult, number: int = 1) -> "Dataset":
        """The report of an image with this header (`read_header`), with this instance number.

        Raises:
            ReportError: highdicom or pydicom refuse a value of the header.
        """
        from highdicom import sr
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid

        device = sr.DeviceObserverIdentifyingAttributes(
            uid=self.device_uid,
            name=_meaning(self.model_name),
            manufacturer_name=MANUFACTURER,
            model_name=_meaning(self.model_name),
            serial_number=self.model_sha256,
        )
        try:
            content = sr.MeasurementReport(
                observation_context=sr.ObservationContext(
                    observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
                ),
                procedure_reported=sr.CodedConcept("chest-radiograph", SCHEME, "Chest radiograph"),
                imaging_measurements=self._groups(header, result),
                title=codes.DCM.ImagingMeasurementReport,
            )
            report = sr.EnhancedSR(
                evidence=[header],
                content=content[0],
                series_instance_uid=self.series_uid(header.StudyInstanceUID),
                series_number=99,
                sop_instance_uid=str(generate_uid()),
                instance_number=number,
                manufacturer=MANUFACTURER,
                is_complete=True,
                is_final=False,
                is_verified=False,
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # what highdicom raises on a bad header
            raise ReportError(f"no structured report of {result.name}: {type(error).__name__}: {error}") from error
        report.SeriesDescription = DESCRIPTION
        return report

    def _groups(self, header: "Dataset", result: ImageResult) -> list["MeasurementsAndQualitativeEvaluations"]:
        from pydicom.sr.codedict import codes

        groups = []
        if self.synthetic:
            limit = {_code("training-images", "What the model was trained on"): _code("synthetic", SYNTHETIC)}
            groups.append(self._group(header, SYNTHETIC_MODEL, {}, limit))
        for finding in result.findings:
            numbers = {codes.DCM.Probability: finding.probability}
            words: dict[Any, Any] = {}
            if finding.threshold is not None:
                numbers[_code("operating-point", "Operating point, chosen on validation")] = finding.threshold
                call = _code("reaches-op-point", "The probability reaches the operating point")
                words[call] = codes.SCT.Yes if finding.called else codes.SCT.No
            if finding.label_set is not None:
                kept = f"Labels not ruled out, at {100 * result.coverage:g} % coverage"
                words[_code("not-ruled-out", kept)] = _code(finding.not_ruled_out, finding.not_ruled_out)
            groups.append(self._group(header, finding.name, numbers, words))
        check = result.input_check
        if check is not None and check.unusual:
            numbers = {_code("input-score", "Distance from the images of training"): check.score}
            numbers[_code("input-limit", "Distance from which an image is reported")] = check.threshold
            reasons = {
                _code(f"reason-{number}", "Why the image is unusual"): _code(f"unusual-{number}", reason)
                for number, reason in enumerate(check.reasons, 1)
            }
            groups.append(self._group(header, "Unlike the images of training", numbers, reasons))
        return groups

    def _group(
        self, header: "Dataset", name: str, numbers: dict["Code", float], words: dict["Code", "Code"]
    ) -> "MeasurementsAndQualitativeEvaluations":
        from highdicom import sr
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid

        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=str(generate_uid()), identifier=_meaning(name)),
            finding_type=_code(name, name),
            algorithm_id=sr.AlgorithmIdentification(name=_meaning(self.model_name), version=self.model_sha256[:16]),
            measurements=[sr.Measurement(code, float(value), codes.UCUM.NoUnits) for code, value in numbers.items()],
            qualitative_evaluations=[sr.QualitativeEvaluation(code, value) for code, value in words.items()],
            source_images=[sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
        )


def read_header(image: str | os.PathLike | bytes, name: str) -> "Dataset":
    """Everything of a DICOM file but its pixels.

    Raises:
        ReportError: it is not DICOM, or lacks one of ``NEEDED``.
    """
    from io import BytesIO

    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import UID

    refused = f"no structured report of {name}"
    try:
        header = dcmread(BytesIO(image) if isinstance(image, bytes) else image, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise NotDicomError(f"{refused}: it is not a DICOM file") from error
    except Exception as error:  # pydicom raises nearly everything on broken files
        raise ReportError(f"{refused}: its header cannot be read ({type(error).__name__}: {error})") from error
    missing = [key for key in NEEDED if not header.get(key)]
    if missing:
        raise ReportError(f"{refused}: the file has no {', '.join(missing)}")
    for key in NEEDED:
        if not UID(str(header.get(key))).is_valid:
            raise ReportError(f"{refused}: its {key}, {header.get(key)!r:.70}, is not a UID")
    for key in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        if key not in header:  # the standard wants them in the report, empty if unknown
            setattr(header, key, "")
    for key in ("AccessionNumber", "ReferringPhysicianName"):
        if key not in header:
            setattr(header, key, "")
    return header


def read_probabilities(report: "Dataset") -> dict[str, float]:
    """Finding -> probability, from a report that `StructuredReports` wrote."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    tree = sr.EnhancedSR.from_dataset(report).content
    found = {}
    for group in tree.get_image_measurement_groups():
        for measurement in group.get_measurements(name=codes.DCM.Probability):
            found[group.tracking_identifier] = float(measurement.value)
    return found


def _place_in_series(report: Path) -> tuple[str, int]:
    """The series UID and the instance number of a report."""
    from pydicom import dcmread

    try:
        header = dcmread(report, specific_tags=["SeriesInstanceUID", "InstanceNumber"])
        return str(header.SeriesInstanceUID), int(header.InstanceNumber)
    except Exception as error:  # pydicom raises nearly everything on broken files
        raise ReportError(
            f"{report} is not a structured report that can be read; move it or give another folder"
        ) from (error)


def _content_sha256(image: str | os.PathLike | bytes) -> str:
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    return file_sha256(image)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _code(value: str, meaning: str) -> "Code":
    from highdicom.sr import CodedConcept

    if len(value) > LONGEST_VALUE:  # two long names may begin alike
        value = f"{value[:9]}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
    return CodedConcept(_meaning(value), SCHEME, _meaning(meaning))


def _meaning(text: str) -> str:
    r"""Text of a DICOM value: no backslash, which separates values, no control character, at most 64 characters."""
    return re.sub(r"[\\\x00-\x1f]", "_", text)[:LONGEST_MEANING]


__all__: Sequence[str] = ["NotDicomError", "ReportError", "StructuredReports", "read_header", "read_probabilities"]
