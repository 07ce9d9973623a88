"""A tiny model with all that the demo shows: calibrated, with thresholds but for one finding, and label sets."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from tiny import save_model
from transformers import AutoConfig

from hf_cxr.evaluation import choose_operating_points
from hf_cxr.evaluation.conformal import fit_conformal
from hf_cxr.labels import NIH14
from hf_cxr.models.record import ModelRecord
from hf_cxr.phantom.render import encode_png, render_phantom

WITHOUT_POINT = "Hernia"


def save_demo_model(folder: Path) -> Path:
    """The model's folder, filled."""
    save_model(folder, spread=1.0)
    rng = np.random.default_rng(0)
    label_NC = rng.integers(0, 2, (120, 14)).astype(float)
    prob_NC = np.clip(0.25 + 0.4 * label_NC + rng.normal(0, 0.2, label_NC.shape), 0.001, 0.999)
    known_NC = label_NC.copy()
    known_NC[:, NIH14.index(WITHOUT_POINT)] = 0  # no positive: no operating point
    points = choose_operating_points(prob_NC, known_NC, rule="f1", label_names=NIH14)
    sets = fit_conformal(prob_NC, label_NC, range(120), label_names=NIH14, coverage=0.9)
    config = AutoConfig.from_pretrained(folder)
    ModelRecord(
        version="0.1.0",
        dataset="synthetic phantoms (no patients)",
        synthetic=True,
        calibration={"intercept": [0.0] * 14, "slope": [1.0] * 14},
        operating_points=points.to_dict(),
        conformal=sets.to_dict(),
        prevalence=dict.fromkeys(NIH14, 0.05) | {"Infiltration": 0.18},
    ).write(config)
    config.save_pretrained(folder)
    return folder


def png(size: int = 200) -> bytes:
    """A phantom as an 8-bit PNG."""
    return encode_png(phantom(size))


def phantom(size: int) -> np.ndarray:
    """A phantom's pixels, (size, size) uint8."""
    case = {"view": "PA", "age": 60.0, "sex": "M", "patient": 9, "image": 0, "seed": 5, "size": size}
    return render_phantom(("Effusion", "Mass"), **case)[0]


def png_of_16_bits(size: int = 120) -> bytes:
    """A phantom as a 16-bit PNG."""
    file = BytesIO()
    Image.fromarray(phantom(size).astype(np.uint16) * 257).save(file, format="PNG")
    return file.getvalue()


def photograph() -> bytes:
    """A JPEG with colours."""
    file = BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((90, 70)).save(
        file, format="JPEG"
    )
    return file.getvalue()


def dicom(size: int = 150, *, stored: int = 12) -> bytes:
    """A phantom as a DICOM file of 12 bits, whose 0 is white; ``stored`` is how many bits the file says it has."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = "Secret^Patient"
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME1"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, stored, stored - 1, 0
    dataset.PixelData = (4095 - phantom(size).astype(np.uint16) * 16).tobytes()
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
