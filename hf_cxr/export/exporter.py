"""A saved model to exported files: each is made, compared with the classifier, and kept only if it is near enough.

Refused before anything is written: a model that cannot be exported, a filter that ONNX does not have, and 8-bit
weights without labelled images to measure their cost on.

B = images in a batch, N = images, C = findings, S = resized side, D = cropped side.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from tqdm.auto import tqdm
from transformers import PreTrainedModel

import hf_cxr
from hf_cxr.evaluation.draws import DEFAULT_INTERVALS, Intervals
from hf_cxr.export.cost import Cost, measure_cost, speed_ratio
from hf_cxr.export.images import Images, of_phantoms
from hf_cxr.export.onnx_model import (
    OPSET,
    OUTPUT,
    ExportMetadata,
    check_clean,
    check_exportable,
    onnx_of,
    traceable,
)
from hf_cxr.export.parity import RESIZED_TOLERANCE, TOLERANCE, Parity, compare_logits, measure_parity
from hf_cxr.export.preprocessing_graph import IMAGES, PROBABILITIES, check_filter, with_preprocessing
from hf_cxr.export.program import check_clean_program, content_of, logits_of_file, program_of
from hf_cxr.export.quantize import CALIBRATION_IMAGES, quantised, way_of
from hf_cxr.export.runtime import check_installed, run, session
from hf_cxr.exported_files import CONFIG, MODEL, ONNX, PROCESSOR, PROGRAM, QUANTIZED, RESULT, WHOLE, Wanted
from hf_cxr.files import plain, write_json
from hf_cxr.hub.leaks import check_no_local_path, check_no_token
from hf_cxr.hub.parsing import parse, texts_of
from hf_cxr.inference.classifier import Classifier
from hf_cxr.models.record import ModelRecord
from hf_cxr.processing import load_processor, preprocessing_of
from hf_cxr.reporting.training_history import training_history
from hf_cxr.saved_models import fingerprint

if TYPE_CHECKING:
    import onnx
    import onnxruntime

logger = logging.getLogger(__name__)

BATCH = 16
SPEED_IMAGES = 8
"""Images in the batch that float32 and int8 are timed on."""

Pixels = Callable[[int, int], NDArray[np.uint8]]
"""(first row, row after the last) to resized grey images (B, 1, S, S)."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled images, on which the cost of 8-bit weights is measured, and others to calibrate on.

    Attributes:
        pixels: of the N images, as they are asked for.
        label_NC: 1, 0 or NaN.
        patient_ids_N: of each image.
        name: of the split, such as "test".
        calibration: resized grey images of another split, as they are asked for.
        calibration_images: how many there are.
        float_NC: logits of the same images that the run kept; None to compute them.
        intervals: how they are drawn.
    """

    pixels: Pixels
    label_NC: NDArray[np.float32]
    patient_ids_N: tuple[str, ...]
    name: str
    calibration: Pixels
    calibration_images: int
    float_NC: NDArray[np.float32] | None = None
    intervals: Intervals = DEFAULT_INTERVALS


def about_model(classifier: Classifier, folder: Path) -> ExportMetadata:
    """What exported files say of a model.

    Args:
        classifier: of the model.
        folder: where its files are, of which the checksum is.
    """
    record = ModelRecord.of(classifier.model.config) or ModelRecord()
    facts = {
        "model_type": classifier.model.config.model_type,
        "model_sha256": fingerprint(folder),
        "hf_cxr_version": hf_cxr.__version__,
        "dataset": record.dataset,
        "training": training_history(record),
        "synthetic": record.synthetic,
        "calibrated": record.calibration is not None,
        "licence_note": record.licence_note,
    }
    return ExportMetadata(
        label_names=classifier.label_names,
        threshold_C=classifier.calls.threshold_C.tolist(),
        steps=preprocessing_of(load_processor(folder)),
        facts={key: value for key, value in facts.items() if value is not None},
    )


def check_wanted(model: PreTrainedModel, processor: Any, wanted: Wanted, name: str) -> None:
    """Refuse an export that cannot be made, before images are read.

    Raises:
        ValueError: in one line.
    """
    check_exportable(model, name)
    if wanted.any_onnx:
        check_installed()
    if wanted.whole:
        check_filter(preprocessing_of(processor), name)


def export(
    classifier: Classifier,
    model: PreTrainedModel,
    about: ExportMetadata,
    wanted: Wanted,
    images: Images,
    folder: Path,
    *,
    source: Path,
    name: str,
    labelled: Labelled | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the files that are wanted, and export.json with what was measured.

    Args:
        classifier: as it predicts; what the files are compared with.
        model: the same weights, loaded once more: its attention is changed.
        about: what the files say of themselves.
        wanted: which files.
        images: what they are compared on.
        folder: to write into; what fails is not in it.
        source: the model's folder, whose config.json and preprocessor_config.json are copied.
        name: of the model, for messages.
        labelled: for 8-bit weights.
        earlier: what export.json says of files of the same model that stay.

    Returns:
        The content of export.json.

    Raises:
        ValueError: see the module's first lines; or a file is further from the classifier than is accepted.
    """
    module, size = traceable(model), about.steps.image_size
    value_N3DD = classifier.pixels(torch.from_numpy(images.pixel_N1SS)).numpy()
    expected_NC = expected_logits(classifier, images)
    files: dict[str, Any] = dict(earlier or {})
    copy_configs(source, folder)
    if wanted.program:
        content = content_of(program_of(module, size, name), about)
        files[PROGRAM] = _write_program(content, value_N3DD, expected_NC, images.words, folder)
    if wanted.any_onnx:
        proto = onnx_of(module, about, name)
        files[MODEL] = _write_model(proto, value_N3DD, expected_NC, images.words, folder)
        if wanted.whole:
            files[WHOLE] = _write_whole(with_preprocessing(proto, about), images, expected_NC, classifier, folder)
        if wanted.int8:
            files[QUANTIZED] = _write_int8(proto, about, classifier, labelled, value_N3DD, name, folder)
    for written in wanted.names:
        files[written]["versions"] = _versions(written)
    result = {"model": about.to_dict(), "files": files}
    write_json(folder / RESULT, plain(result))
    return result


def expected_logits(classifier: Classifier, images: Images) -> NDArray[np.float32]:
    """(N, C) as the classifier predicts them."""
    return np.concatenate([classifier.logits(part) for part in torch.from_numpy(images.pixel_N1SS).split(BATCH)])


def copy_configs(source: Path, folder: Path) -> None:
    """Put config.json and preprocessor_config.json next to the files; transformers.js reads both.

    Raises:
        ValueError: one contains a local path or an access token.
    """
    for file in (CONFIG, PROCESSOR):
        content = (source / file).read_bytes()
        texts = list(texts_of(parse(source / file, content)))
        check_no_local_path(source, {file: texts})
        check_no_token(source, {file: content}, {file: [text for _, text in texts]}, None)
        shutil.copyfile(source / file, folder / file)


def _write_program(
    content: bytes, value_N3DD: NDArray, expected_NC: NDArray, words: str, folder: Path
) -> dict[str, Any]:
    """program.pt2."""
    check_clean_program(content, PROGRAM)
    parity = measure_parity(lambda value: logits_of_file(content, value), value_N3DD, expected_NC, words)
    return _kept(folder, PROGRAM, content, parity)


def _write_model(
    proto: "onnx.ModelProto", value_N3DD: NDArray, expected_NC: NDArray, words: str, folder: Path
) -> dict[str, Any]:
    """model.onnx."""
    check_clean(proto, MODEL)
    content = proto.SerializeToString()
    runtime = session(content)
    parity = measure_parity(lambda value: run(runtime, value)[OUTPUT], value_N3DD, expected_NC, words)
    return _kept(folder, MODEL, content, parity)


def _write_whole(
    proto: "onnx.ModelProto", images: Images, expected_NC: NDArray, classifier: Classifier, folder: Path
) -> dict[str, Any]:
    """model_preprocessing.onnx, compared from the resized grey image, and from the image as it was decoded."""
    check_clean(proto, WHOLE)
    content = proto.SerializeToString()
    runtime = session(content)
    resized = measure_parity(
        lambda pixel_B1SS: run(runtime, pixel_B1SS[:, 0])[OUTPUT], images.pixel_N1SS, expected_NC, images.words
    )
    resized.check(f"{WHOLE}, given images that are resized already,")
    if images.resized_already:
        pixels = classifier.pixels
        images = of_phantoms(pixels.resize_size, pixels.resample)
        expected_NC = expected_logits(classifier, images)
    outputs = [run(runtime, grey[None]) for grey in images.greys]
    found_NC, probability_NC = (np.concatenate([output[key] for output in outputs]) for key in (OUTPUT, PROBABILITIES))
    whole = compare_logits(found_NC, expected_NC, images.words, images=len(found_NC), largest_batch=1)
    whole.check(f"{WHOLE}, which resizes the image itself,", RESIZED_TOLERANCE, logits=False)
    difference = np.abs(probability_NC - expit(found_NC)).max()
    if not difference <= TOLERANCE:
        raise ValueError(f"the output {PROBABILITIES} of {WHOLE} differs from the sigmoid by up to {difference:.1e}")
    return {
        "bytes": _write(folder / WHOLE, content),
        "input": IMAGES,
        "parity": resized.to_dict(),
        "parity_with_resize": whole.to_dict(),
    }


def _write_int8(
    proto: "onnx.ModelProto",
    about: ExportMetadata,
    classifier: Classifier,
    labelled: Labelled | None,
    value_N3DD: NDArray,
    name: str,
    folder: Path,
) -> dict[str, Any]:
    """model_quantized.onnx, with its cost."""
    if labelled is None:
        raise ValueError(f"8-bit weights of {name} need labelled images, to measure what they cost in AUC")
    way = way_of(proto, name)
    number = min(CALIBRATION_IMAGES, labelled.calibration_images)
    calibration = labelled.calibration(0, number) if way == "static" else np.zeros((0, 1, 1, 1), np.uint8)
    value = classifier.pixels(torch.from_numpy(calibration)).numpy() if way == "static" else value_N3DD[:0]
    small = quantised(proto, about, way, value, name)
    check_clean(small, QUANTIZED)
    contents = small.SerializeToString(), proto.SerializeToString()
    sessions = [session(content) for content in contents]
    cost = _cost(sessions, contents, about, classifier, labelled, way, value_N3DD[:SPEED_IMAGES])
    return {"bytes": _write(folder / QUANTIZED, contents[0]), "cost": cost.to_dict()}


def _cost(
    sessions: "list[onnxruntime.InferenceSession]",
    contents: tuple[bytes, bytes],
    about: ExportMetadata,
    classifier: Classifier,
    labelled: Labelled,
    way: str,
    timed_B3DD: NDArray,
) -> Cost:
    small, full = sessions
    parts, total = [], len(labelled.label_NC)
    both = labelled.float_NC is None
    for start in tqdm(range(0, total, BATCH), desc="Measuring int8", unit="batch", disable=None):
        pixel_B1SS = torch.from_numpy(labelled.pixels(start, min(start + BATCH, total)))
        value_B3DD = classifier.pixels(pixel_B1SS).numpy()
        parts.append([run(one, value_B3DD)[OUTPUT] for one in ((small, full) if both else (small,))])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return measure_cost(
        columns[0],
        columns[1] if both else labelled.float_NC,
        labelled.label_NC,
        labelled.patient_ids_N,
        label_names=about.label_names,
        threshold_C=about.threshold_C,
        split=labelled.name,
        size=tuple(map(len, contents)),
        speed=speed_ratio(lambda: run(full, timed_B3DD), lambda: run(small, timed_B3DD)),
        way=way,
        intervals=labelled.intervals,
    )


def _kept(folder: Path, name: str, content: bytes, parity: Parity) -> dict[str, Any]:
    """Write a file that is near enough to the model; raises ValueError for one that is not."""
    parity.check(name)
    return {"bytes": _write(folder / name, content), "parity": parity.to_dict()}


def _write(path: Path, content: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(content)


def _versions(name: str) -> dict[str, Any]:
    """What a file was made and compared with; files of one folder can be of several exports."""
    versions = {"hf_cxr": hf_cxr.__version__, "torch": torch.__version__}
    if name in ONNX:
        import onnxruntime

        versions |= {"opset": OPSET, "onnxruntime": onnxruntime.__version__}
    return versions
