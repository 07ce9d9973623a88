"""Image files to results, `Classifier.predict_images`: how much reading ahead of the model saves.

    python benchmarks/predicting.py RUN FOLDER_OF_PNG [--kind dicom] [--images 96] [--rounds 7] [--device cuda]

RUN is a finished run; FOLDER_OF_PNG has radiographs as they were published (ChestX-ray14: 1,024 px PNG). With --kind
dicom the same images are first written as uncompressed DICOM, and with --kind jpeg2000 as lossless JPEG 2000 in DICOM,
into a temporary folder. Files are warm in the page cache, and one batch is read before the clock starts.

| arm | what it is |
|---|---|
| in turns | read a batch, then predict it (workers=0): what there was before |
| N threads | N threads read ahead while the model works (workers=N) |
| N processes | the same by a pool of N spawned processes that was started before; its own CPU time is not counted |
| reading | read and resize alone, no model, one thread |
| model | the model alone, on images that were read before |

Wall time is what reading ahead changes, so ratios are of wall time: they mean something only where as many cores are
idle as an arm has threads. With two free cores, no arm can be faster than reading and model together by more than 2.
"""

import argparse
import itertools
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from arms import Work, parser_of_arms, run_arms
from PIL import Image

with suppress(ValueError):  # a process of the pool does not have it
    sys.path.remove(str(Path(__file__).resolve().parent))  # it has names of other packages, such as coverage

from hf_cxr.data.images import engine
from hf_cxr.data.images.grey import read_grey
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.reading import BATCHES_AHEAD, ReadImage, read_ahead, read_and_resize

KINDS = ("png", "dicom", "jpeg2000")
PLACE = "HF_CXR_BENCHMARK_PREDICTING"  # environment variable: the temporary folder, for the arms' processes


def arguments() -> argparse.Namespace:
    parser = parser_of_arms(__doc__)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("folder", type=Path, help="radiographs as PNG")
    parser.add_argument("--kind", choices=KINDS, default="png", help="how the files are stored")
    parser.add_argument("--images", type=int, default=96, help="images that an arm predicts in a round")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch")
    parser.add_argument("--device", default="cpu", help="of the model")
    return parser.parse_args()


def prepared() -> tuple[Classifier, list[Path]]:
    """The model, and the files in turn."""
    engine.warm_up()
    files = sorted(path for path in Path(os.environ[PLACE]).iterdir() if path.is_file())
    return Classifier(ARGS.run, device=ARGS.device), list(itertools.islice(itertools.cycle(files), ARGS.images))


def ours(workers: int) -> Work:
    classifier, paths = prepared()

    def work() -> int:
        return sum(1 for _ in classifier.predict_images(paths, batch_size=ARGS.batch, workers=workers))

    return work


def by_processes(workers: int) -> Work:
    classifier, paths = prepared()
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=engine.warm_up)
    size, resample = classifier.pixels.resize_size, classifier.pixels.resample

    def read() -> Iterator[ReadImage]:
        waiting: deque = deque()
        for path in paths:
            waiting.append(pool.submit(read_and_resize, path, str(path), size=size, resample=resample))
            if len(waiting) > BATCHES_AHEAD * ARGS.batch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def work() -> int:
        answers, done = read(), 0
        while batch := list(itertools.islice(answers, ARGS.batch)):
            logit_BC, _ = classifier.outputs(torch.from_numpy(np.stack([image.pixel_SS for image in batch])[:, None]))
            done += len(logit_BC)
        return done

    return work


def reading() -> Work:
    classifier, paths = prepared()
    size, resample = classifier.pixels.resize_size, classifier.pixels.resample
    named = [(path, str(path)) for path in paths]

    def work() -> int:
        return sum(1 for _ in read_ahead(named, size=size, resample=resample, batch_size=ARGS.batch, workers=0))

    return work


def model() -> Work:
    classifier, paths = prepared()
    size, resample = classifier.pixels.resize_size, classifier.pixels.resample
    images = [read_and_resize(path, str(path), size=size, resample=resample).pixel_SS for path in paths]
    pixel_N1SS = torch.from_numpy(np.stack(images)[:, None])

    def work() -> int:
        return sum(len(classifier.outputs(pixel_B1SS)[0]) for pixel_B1SS in pixel_N1SS.split(ARGS.batch))

    return work


ARMS = {
    "in turns": partial(ours, 0),
    "1 thread": partial(ours, 1),
    "2 threads": partial(ours, 2),
    "2 processes": partial(by_processes, 2),
    "reading": reading,
    "model": model,
}


def write_files(source: Path, kind: str, folder: Path) -> None:
    """The radiographs as files of a kind."""
    for path in sorted(source.glob("*.png")):
        if kind == "png":
            (folder / path.name).symlink_to(path.resolve())
        else:
            write_dicom(read_grey(path), folder / f"{path.stem}.dcm", jpeg2000=kind == "jpeg2000")


def write_dicom(grey_HW: np.ndarray, path: Path, *, jpeg2000: bool) -> None:
    from io import BytesIO

    from pydicom import Dataset, uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    dataset.Rows, dataset.Columns = grey_HW.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    if jpeg2000:
        file = BytesIO()
        Image.fromarray(grey_HW).save(file, "JPEG2000", irreversible=False, no_jp2=True)
        dataset.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
        dataset.PixelData = encapsulate([file.getvalue()])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.PixelData = grey_HW.tobytes()
    dataset.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    ARGS = arguments()
    if PLACE in os.environ:
        run_arms(ARMS, reference="in turns", title="", args=ARGS, by="wall")
    else:
        with tempfile.TemporaryDirectory() as place:
            write_files(ARGS.folder, ARGS.kind, Path(place))
            os.environ[PLACE] = place
            title = f"{ARGS.images} files ({ARGS.kind}) to results, {ARGS.run.name}, batches of {ARGS.batch}"
            run_arms(ARMS, reference="in turns", title=title, args=ARGS, by="wall")
