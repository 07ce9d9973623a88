"""DICOM structured reports: what they say, whose study they are in, and what a hostile header cannot do."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from hf_cxr.data.images.grey import ImageError
from hf_cxr.evaluation import OperatingPoints
from hf_cxr.files import version_of
from hf_cxr.inference.calls import Calls
from hf_cxr.inference.results import ImageResult, InputCheckResult
from hf_cxr.inference.structured_report import NotDicomError, ReportError, StructuredReports, read_probabilities

NAMES = ("Mass", "Enlarged Cardiomediastinum", "Enlarged Cardiac Silhouette", "Hernia")
SHA = "ab" * 32


def image(**values) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P7", "Phantom^Seven", "DX"
    for key, value in values.items():
        setattr(dataset, key, value)
    return dataset


@pytest.fixture
def saved(tmp_path):
    def save(name="x.dcm", **values):
        dataset = image(**values)
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return dataset, tmp_path / name

    return save


def result(check=None) -> ImageResult:
    point = {"rule": "f1", "target": None, "f1": 0.5, "sensitivity": 0.5, "specificity": 0.5}
    point |= {"positives": 5, "negatives": 50}
    points = OperatingPoints.from_dict({"Mass": point | {"threshold": 0.3}, "Hernia": point | {"threshold": 0.9}})
    made = ImageResult.of("x.dcm", np.array([0.4, 0.1, 0.2, 0.3], np.float32), Calls(NAMES, points), None, check)
    sets = {"present_C": np.array([1, 0, 1, 0], bool), "absent_C": np.array([1, 1, 0, 0], bool), "coverage": 0.9}
    return ImageResult(made.name, NAMES, made.probability_C, made.threshold_C, **sets, input_check=check)


@pytest.fixture
def writer(tmp_path):
    return StructuredReports(tmp_path / "reports", model_name="runs/mine", model_sha256=SHA)


def groups(report):
    from highdicom.sr import EnhancedSR

    return EnhancedSR.from_dataset(report).content.get_image_measurement_groups()


def test_it_is_in_the_study_of_the_image_and_says_what_the_model_said(writer, saved):
    dataset, path = saved()
    report = pydicom.dcmread(writer.write(path, result()))
    assert report.Modality == "SR"
    for key in ("StudyInstanceUID", "PatientID", "PatientName"):
        assert report[key].value == dataset[key].value
    assert report.SeriesInstanceUID != dataset.SeriesInstanceUID
    referenced = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert referenced.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == dataset.SOPInstanceUID
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert read_probabilities(report) == pytest.approx(result().probabilities, abs=1e-7)

    said = {}
    for group in groups(report):
        evaluations = {one.name.value: one.value.meaning for one in group.get_qualitative_evaluations()}
        said[group.tracking_identifier] = evaluations
    assert said["Mass"] == {"reaches-op-point": "Yes", "not-ruled-out": "both"}
    assert said["Hernia"] == {"reaches-op-point": "No", "not-ruled-out": "none"}
    assert said["Enlarged Cardiomediastinum"] == {"not-ruled-out": "absent"}
    assert said["Enlarged Cardiac Silhouette"] == {"not-ruled-out": "present"}


def test_nothing_is_coded_as_present_or_absent(writer, saved):
    text = str(pydicom.dcmread(writer.write(saved()[1], result())))
    assert codes.SCT.Yes.value in text
    assert not any(code.value in text for code in (codes.DCM.Present, codes.DCM.Absent, codes.SCT.Present))


def test_a_report_of_a_model_of_phantoms_says_so_first(tmp_path, saved):
    phantoms = StructuredReports(tmp_path / "p", model_name="runs/mine", model_sha256=SHA, synthetic=True)
    first, *rest = groups(pydicom.dcmread(phantoms.write(saved()[1], result())))
    assert first.tracking_identifier == "This model knows nothing of patients"
    assert "mean nothing for a patient" in first.get_qualitative_evaluations()[0].value.meaning
    assert len(rest) == len(NAMES)


def test_long_names_have_codes_of_their_own(writer, saved):
    report = pydicom.dcmread(writer.write(saved()[1], result()))
    values = [group.finding_type.value for group in groups(report)]
    assert len(set(values)) == len(NAMES)
    assert max(map(len, values)) <= 16


@pytest.mark.parametrize("synthetic", [False, True])
def test_an_unusual_image_comes_first_and_its_calls_are_not_stated(tmp_path, saved, synthetic):
    writer = StructuredReports(tmp_path / "r", model_name="mine", model_sha256=SHA, synthetic=synthetic)
    check = InputCheckResult(9.5, 4.0, ("nearly uniform: blank or fully exposed",))
    report = pydicom.dcmread(writer.write(saved()[1], result(check)))
    warning, *findings = groups(report)[synthetic:]
    assert warning.tracking_identifier == "Unlike the images of training"
    assert [one.value.meaning for one in warning.get_qualitative_evaluations()] == list(check.reasons)
    assert [group.tracking_identifier for group in findings] == list(NAMES)
    said = {one.value.value for group in findings for one in group.get_qualitative_evaluations()}
    assert said == {"not-stated"}
    assert read_probabilities(report) == pytest.approx(result().probabilities, abs=1e-7)
    usual = pydicom.dcmread(writer.write(saved()[1], result(InputCheckResult(1.0, 4.0))))
    assert len(groups(usual)) == len(NAMES) + synthetic
    assert "not-stated" not in str(usual)


def test_a_remark_on_how_the_file_was_read_comes_before_the_findings(writer, saved):
    remark = (
        "it is read with far too little contrast: its BitsStored is 16, its pixels use 12 bits, and it has no window"
    )
    report = pydicom.dcmread(writer.write(saved()[1], replace(result(), remarks=(remark,))))
    first, *findings = groups(report)
    assert " ".join(one.value.meaning for one in first.get_qualitative_evaluations()) == remark
    said = {one.value.value for group in findings for one in group.get_qualitative_evaluations()}
    assert said == {"not-stated"}


def named(names: tuple[str, ...]) -> ImageResult:
    probability_C = np.linspace(0.1, 0.9, len(names)).astype(np.float32)
    return ImageResult.of("x.dcm", probability_C, Calls(names, None))


@pytest.mark.parametrize("character_set", [None, "ISO_IR 100", "ISO_IR 192"])
def test_names_of_every_script_stay_what_they_are_and_apart(writer, saved, character_set):
    long = "An opacity of the lung that is described in more words than a code meaning may have: "
    names = ("胸水", "肺炎", "Erguß", "Ergub", "a\\b", "a_b", f"{long}left", f"{long}right", "Mass ", "Mass")
    values = {} if character_set is None else {"SpecificCharacterSet": character_set}
    report = pydicom.dcmread(writer.write(saved(**values)[1], named(names)))
    assert report.SpecificCharacterSet == "ISO_IR 192"
    shown = [group.tracking_identifier for group in groups(report)]
    assert shown[:4] == list(names[:4])
    assert shown[6:8] == list(names[6:8])
    concepts = [group.finding_type for group in groups(report)]
    assert [concept.meaning for concept in concepts[:4]] == list(names[:4])
    assert len({concept.meaning for concept in concepts[6:8]}) == 2
    codes_of = [concept.value for concept in concepts]
    assert len(set(codes_of)) == len(names)
    assert all(code.isascii() and code.isprintable() and len(code) <= 16 and code == code.strip() for code in codes_of)
    assert codes_of[-1] == "Mass"


def test_a_model_of_any_name_is_told_apart(tmp_path, saved):
    writer = StructuredReports(tmp_path / "r", model_name="胸部モデル", model_sha256=SHA)
    text = str(pydicom.dcmread(writer.write(saved()[1], result())))
    assert "胸部モデル" in text


@pytest.mark.parametrize(
    ("character_set", "name", "encoding"),
    [
        ("ISO_IR 100", "Müller^Jürgen", "latin-1"),
        ("ISO_IR 192", "Müller^Jürgen", "utf-8"),
        ("ISO-IR 100", "Müller^Jürgen", "latin-1"),  # a common slip, which pydicom understands
        (None, "Müller^Jürgen", "latin-1"),  # not declared
        (None, "Müller^Jürgen", "utf-8"),
        ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "shift_jis"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", None),
    ],
)
def test_the_patient_is_called_as_in_the_image(writer, saved, character_set, name, encoding):
    values = {} if character_set is None else {"SpecificCharacterSet": character_set}
    dataset, path = saved(**values, PatientName="MARK^MARK")
    if encoding is None:
        dataset.PatientName = name
        dataset.save_as(path, enforce_file_format=True)
    else:
        raw = name.encode(encoding)
        raw += b" " * (len(raw) % 2)
        content = path.read_bytes()
        head, tail = content.split(b"PN\x0a\x00MARK^MARK ")
        path.write_bytes(head + b"PN" + len(raw).to_bytes(2, "little") + raw + tail)
    assert pydicom.dcmread(path, force=True).PatientName == name or (character_set, encoding) == (None, "utf-8")
    written = writer.write(path, named(("胸水",)))
    report = pydicom.dcmread(written)
    assert report.PatientName == name
    assert name.encode() in written.read_bytes()
    assert groups(report)[0].tracking_identifier == "胸水"


def test_text_in_nested_elements_of_the_image_is_written_in_the_reports_character_set(writer, saved):
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "Röntgen"
    _, path = saved(SpecificCharacterSet="ISO_IR 100", ProcedureCodeSequence=[code], StudyDescription="Prüfung")
    report = pydicom.dcmread(writer.write(path, result()))
    assert report.StudyDescription == "Prüfung"
    assert report.ProcedureCodeSequence[0].CodeMeaning == "Röntgen"


def test_a_name_that_is_not_of_the_stated_character_set_is_refused(writer, saved):
    _, path = saved(SpecificCharacterSet="ISO_IR 192", PatientName="Mxller")
    path.write_bytes(path.read_bytes().replace(b"Mxller", b"M\xfcller"))
    with pytest.raises(ReportError, match=r"x\.dcm: its PatientName is not text of .* ISO_IR 192"):
        writer.write(path, result())


@pytest.mark.parametrize("given", ["path", "bytes"])
def test_a_file_without_a_file_meta_group_has_a_report(writer, saved, given):
    dataset, path = saved()
    del dataset.file_meta
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    report = pydicom.dcmread(writer.write(path if given == "path" else path.read_bytes(), result()))
    assert (report.StudyInstanceUID, report.PatientName) == (dataset.StudyInstanceUID, "Phantom^Seven")


def test_what_only_claims_to_be_dicom_is_a_failure_and_not_another_format(writer, tmp_path):
    (tmp_path / "x.dcm").write_bytes(b"\x89PNG" + bytes(200))
    with pytest.raises(ReportError, match=r"x\.dcm") as raised:
        writer.write(tmp_path / "x.dcm", result())
    assert not isinstance(raised.value, NotDicomError)


def test_a_file_that_has_changed_since_it_was_predicted_has_no_report(writer, saved):
    _, path = saved()
    version = version_of(path)
    assert writer.write(path, result(), version).exists()
    saved(PatientID="P8", PatientComments="longer")
    with pytest.raises(ImageError, match=r"x\.dcm: it changed"):
        writer.write(path, result(), version)
    path.unlink()
    with pytest.raises(ImageError, match=r"x\.dcm: No such file"):
        writer.write(path, result(), version)
    assert len(list(writer.folder.iterdir())) == 1


def test_reports_of_a_study_share_a_series_and_two_models_have_two_devices(writer, saved, tmp_path):
    first, path = saved("a.dcm")
    reports = [pydicom.dcmread(writer.write(path, result()))]
    for study in (first.StudyInstanceUID, generate_uid()):
        reports.append(pydicom.dcmread(writer.write(saved("b.dcm", StudyInstanceUID=study)[1], result())))
    assert reports[0].SeriesInstanceUID == reports[1].SeriesInstanceUID != reports[2].SeriesInstanceUID
    assert [report.InstanceNumber for report in reports] == [1, 2, 1]
    assert len({report.SOPInstanceUID for report in reports}) == 3
    other = StructuredReports(tmp_path / "other", model_name="runs/mine", model_sha256="cd" * 32)
    assert other.device_uid != writer.device_uid
    again = StructuredReports(writer.folder, model_name="runs/mine", model_sha256=SHA)  # another command
    reports.append(pydicom.dcmread(again.write(saved("d.dcm", StudyInstanceUID=first.StudyInstanceUID)[1], result())))
    assert reports[3].SeriesInstanceUID == reports[0].SeriesInstanceUID
    assert reports[3].InstanceNumber == 3


def test_one_model_replaces_its_report_of_an_image_and_nothing_else(writer, saved, tmp_path):
    first, path = saved("a.dcm")
    _, copy = saved("b.dcm", **{key: first[key].value for key in ("SOPInstanceUID", "StudyInstanceUID")}, Rows=7)
    other = StructuredReports(writer.folder, model_name="runs/mine", model_sha256="cd" * 32)
    places = [one.write(image, result()) for one in (writer, other) for image in (path, copy)]
    assert len(set(places)) == len(list(writer.folder.iterdir())) == 4
    reports = [pydicom.dcmread(place) for place in places]
    assert [report.InstanceNumber for report in reports] == [1, 2, 1, 2]
    assert len({report.SeriesInstanceUID for report in reports}) == 2
    again = StructuredReports(writer.folder, model_name="runs/mine", model_sha256=SHA)
    assert again.write(path, result()) == again.write(path.read_bytes(), result()) == places[0]
    assert pydicom.dcmread(places[0]).InstanceNumber == 1
    assert len(list(writer.folder.iterdir())) == 4


def test_a_damaged_report_in_the_folder_is_named(writer):
    (writer.folder / "1.2.sr.dcm").write_bytes(b"cut")
    with pytest.raises(ReportError, match=r"1\.2\.sr\.dcm is not a structured report"):
        StructuredReports(writer.folder, model_name="runs/mine", model_sha256=SHA)


def test_bytes_and_a_file_without_optional_patient_data(writer, saved):
    _, path = saved(PatientName="", PatientID="")
    report = pydicom.dcmread(writer.write(path.read_bytes(), result()))
    assert report.PatientID == ""


def test_a_uid_that_is_no_uid_names_no_other_place(writer, saved):
    _, path = saved()
    header = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        header.SOPInstanceUID = "../../1.2/3"
        header.save_as(path, enforce_file_format=False)
    before = sorted(writer.folder.parent.rglob("*"))
    with pytest.raises(ReportError, match=r"x\.dcm: its SOPInstanceUID, .*, is not a UID"):
        writer.write(path, result())
    assert sorted(writer.folder.parent.rglob("*")) == before


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_what_a_report_needs_is_named(writer, saved, missing):
    _, path = saved()
    header = pydicom.dcmread(path)
    del header[missing]
    header.save_as(path)
    with pytest.raises(ReportError, match=rf"x\.dcm: the file has no {missing}"):
        writer.write(path, result())
    assert list(writer.folder.iterdir()) == []


def test_what_is_not_dicom_is_refused(writer, tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG" + bytes(200))
    with pytest.raises(NotDicomError, match="not a DICOM file"):
        writer.write(tmp_path / "x.png", replace(result(), name="x.png"))
