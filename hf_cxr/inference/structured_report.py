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

Groups before those of the findings are warnings: that the model was trained on phantoms; that the image looks unlike
those of training, with the reasons; how the file was read, where that may not be what was meant. With either of the
last two, calls and label sets are not stated: their value is not-stated, in our scheme.

Patient and study are copied from the image by highdicom, as the standard wants: **the report identifies the patient as
the image does.** All text is UTF-8 (ISO_IR 192), whatever the image has: names of findings may need it. Text of an
image that states no character set is taken for UTF-8 if it is valid UTF-8, else for Latin-1. The observer is the model
as a device, with its fingerprint as serial number. The report is complete, preliminary and not verified: no
reader has seen it.

Labels have codes of our own scheme, 99HFCXR, and not SNOMED's: a label that was mined from reports or drawn by a
dataset's rules means what the dataset says, and not what a terminology says. A code is the label itself if that is at
most 16 printable ASCII characters, else the beginning of its ASCII characters and six digits of its SHA-256.

A file is called after the image's instance UID and eight digits of the image's content and the model: reports of two
models, or of two images with one instance UID, are two files, and a report of the same image by the same model
replaces the one before. Reports of one study by one model are one series, whenever they are written: its UID follows
from the two, and instance numbers count on from the reports in the folder.

Refused, as `ReportError`: a file that is not DICOM (by the rule of `data.images.grey`), or lacks valid UIDs of its
study, series and instance; a patient's name or id that is not text of the character set that the image states; a
folder with a report that cannot be read. A file that has changed since it was predicted is an `ImageError`.
"""

import hashlib
import os
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from hf_cxr.data.images.dicom import is_dicom
from hf_cxr.data.images.grey import read_content
from hf_cxr.extras import need
from hf_cxr.files import replacing
from hf_cxr.inference.answers import Version
from hf_cxr.inference.reading import check_version
from hf_cxr.inference.results import FindingResult, ImageResult
from hf_cxr.words import utf8_text

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
UNLIKE = "Unlike the images of training"
READ = "How the file was read"
UTF8 = "ISO_IR 192"
IDENTITY = ("PatientName", "PatientID")
TEXT = (*IDENTITY, "ReferringPhysicianName", "StudyDescription", "InstitutionName", "AccessionNumber", "StudyID")
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

    def write(self, image: str | os.PathLike | bytes, result: ImageResult, version: Version | None = None) -> Path:
        """The report of an image, written under another name and renamed.

        Args:
            image: the DICOM file, or its bytes, whose suffix is that of the result's name.
            result: what the model says of it.
            version: of the file when it was predicted; None if no other program can write it.

        Returns:
            The file.

        Raises:
            ImageError: the file cannot be read any more, or has changed since it was predicted.
            ReportError: the image is not DICOM, or no report can be made of it; the report that would be replaced
                cannot be read.
            OSError: the file cannot be written.
        """
        content = image if isinstance(image, bytes) else read_content(image, result.name)
        if version is not None and not isinstance(image, bytes):
            check_version(image, version, result.name)
        header = read_header(content, result.name)
        digits = _sha256(self.model_sha256, hashlib.sha256(content).hexdigest())[:8]
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
            name=_text(self.model_name, LONGEST_MEANING),
            manufacturer_name=MANUFACTURER,
            model_name=_text(self.model_name, LONGEST_MEANING),
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
                specific_character_set=UTF8,
            )
            report.walk(lambda dataset, element: None)  # what is not parsed would be written as the image has it
        except (ValueError, TypeError, AttributeError, KeyError) as error:  # what highdicom raises on a bad header
            raise ReportError(f"no structured report of {result.name}: {type(error).__name__}: {error}") from error
        report.SeriesDescription = DESCRIPTION
        return report

    def _groups(self, header: "Dataset", result: ImageResult) -> list["MeasurementsAndQualitativeEvaluations"]:
        about_image = self._warnings(header, result)
        groups = [self._finding(header, finding, result, stated=not about_image) for finding in result.findings]
        if not self.synthetic:
            return [*about_image, *groups]
        limit = {_code("training-images", "What the model was trained on"): _code("synthetic", SYNTHETIC)}
        return [self._group(header, SYNTHETIC_MODEL, {}, limit), *about_image, *groups]

    def _warnings(self, header: "Dataset", result: ImageResult) -> list["MeasurementsAndQualitativeEvaluations"]:
        """Groups about the image, because of which calls and label sets are not stated."""
        groups, check = [], result.input_check
        if check is not None and check.unusual:
            numbers = {_code("input-score", "Distance from the images of training"): check.score}
            numbers[_code("input-limit", "Distance from which an image is reported")] = check.threshold
            reasons = {
                _code(f"reason-{number}", "Why the image is unusual"): _code(f"unusual-{number}", reason)
                for number, reason in enumerate(check.reasons, 1)
            }
            groups.append(self._group(header, UNLIKE, numbers, reasons))
        if result.remarks:
            parts = [part for remark in result.remarks for part in textwrap.wrap(remark, LONGEST_MEANING)]
            words = {
                _code(f"remark-{number}", READ): _code(f"read-{number}", part) for number, part in enumerate(parts, 1)
            }
            groups.append(self._group(header, READ, {}, words))
        return groups

    def _finding(
        self, header: "Dataset", finding: FindingResult, result: ImageResult, *, stated: bool
    ) -> "MeasurementsAndQualitativeEvaluations":
        """The group of a finding; ``stated``: with its call and its label set."""
        from pydicom.sr.codedict import codes

        not_stated = _code("not-stated", "Not stated: see the warning about this image")
        numbers, words = {codes.DCM.Probability: finding.probability}, {}
        if finding.threshold is not None:
            numbers[_code("operating-point", "Operating point, chosen on validation")] = finding.threshold
            call = codes.SCT.Yes if finding.called else codes.SCT.No
            reached = _code("reaches-op-point", "The probability reaches the operating point")
            words[reached] = call if stated else not_stated
        if finding.label_set is not None:
            kept = _code("not-ruled-out", f"Labels not ruled out, at {100 * result.coverage:g} % coverage")
            words[kept] = _code(finding.not_ruled_out, finding.not_ruled_out) if stated else not_stated
        return self._group(header, finding.name, numbers, words)

    def _group(
        self, header: "Dataset", name: str, numbers: dict["Code", float], words: dict["Code", "Code"]
    ) -> "MeasurementsAndQualitativeEvaluations":
        from highdicom import sr
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid

        return sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=str(generate_uid()), identifier=_text(name)),
            finding_type=_code(name, name),
            algorithm_id=sr.AlgorithmIdentification(
                name=_text(self.model_name, LONGEST_MEANING), version=self.model_sha256[:16]
            ),
            measurements=[sr.Measurement(code, float(value), codes.UCUM.NoUnits) for code, value in numbers.items()],
            qualitative_evaluations=[sr.QualitativeEvaluation(code, value) for code, value in words.items()],
            source_images=[sr.SourceImageForMeasurementGroup(header.SOPClassUID, header.SOPInstanceUID)],
        )


def read_header(content: bytes, name: str) -> "Dataset":
    """Everything of a DICOM file but its pixels.

    Args:
        content: of the file.
        name: of the file, for its suffix and for errors.

    Raises:
        ReportError: it is not DICOM, or lacks one of ``NEEDED``.
    """
    from pydicom import dcmread
    from pydicom.uid import UID

    refused = f"no structured report of {name}"
    if not is_dicom(content[:132], Path(name).suffix):
        raise NotDicomError(f"{refused}: it is not a DICOM file")
    try:
        header = dcmread(BytesIO(content), stop_before_pixels=True, force=True)  # as the decoder: some lack file meta
        _set_character_set(header)
        damaged = [key for key in IDENTITY if "\N{REPLACEMENT CHARACTER}" in str(header.get(key, ""))]
    except Exception as error:  # pydicom raises nearly everything on broken files
        raise ReportError(f"{refused}: its header cannot be read ({type(error).__name__}: {error})") from error
    if damaged:
        stated = header.get("SpecificCharacterSet")
        raise ReportError(f"{refused}: its {damaged[0]} is not text of the character set that it states, {stated}")
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


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _set_character_set(header: "Dataset") -> None:
    """Say how to read the text of an image that does not say it.

    Raises:
        LookupError: it states a character set that is not known.
    """
    from pydicom.charset import python_encoding

    stated = header.get("SpecificCharacterSet")
    for one in [stated] if isinstance(stated, str) else stated or []:
        as_meant = re.sub("^ISO.2022.IR.", "ISO 2022 IR ", re.sub("^ISO[^_]IR", "ISO_IR", one))  # as pydicom reads it
        if as_meant not in python_encoding:
            raise LookupError(f"SpecificCharacterSet {one} is not known")
    if stated:
        return
    raw = b"".join(_raw(header, key) for key in TEXT)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return  # pydicom takes it for Latin-1
    if not raw.isascii():
        header.set_original_encoding(*header.original_encoding, ["utf8"])


def _raw(header: "Dataset", key: str) -> bytes:
    """The bytes of an element that was not parsed yet."""
    element = header.get_item(key) if key in header else None
    value = None if element is None else element.value
    return value if isinstance(value, bytes) else b""


def _code(value: str, meaning: str) -> "Code":
    from highdicom.sr import CodedConcept

    ascii_value = re.sub(r"[^ -\[\]-~]", "", value).strip()
    if ascii_value != value or len(value) > LONGEST_VALUE:  # two long names may begin alike
        ascii_value = f"{ascii_value[:9] or 'finding'}-{_digits(value)}"
    return CodedConcept(ascii_value, SCHEME, _text(meaning, LONGEST_MEANING))


def _digits(text: str) -> str:
    return hashlib.sha256(utf8_text(text).encode()).hexdigest()[:6]


def _text(text: str, most: int | None = None) -> str:
    r"""Text of a DICOM value: no backslash, which separates values, no control character, at most so many characters.

    Two long texts that begin alike stay different.
    """
    text = re.sub(r"[\\\x00-\x1f\x7f-\x9f]", "_", utf8_text(text))
    return text if most is None or len(text) <= most else f"{text[: most - 7]}-{_digits(text)}"


__all__: Sequence[str] = ["NotDicomError", "ReportError", "StructuredReports", "read_header", "read_probabilities"]
