"""What `hf-cxr predict` writes for an image besides its row, and before the row is kept: pictures and reports.

Refused before any image is read: several processes, because a killed one leaves rows whose pictures and reports are
not known to be written; a folder in which, or above which, the images are: the next command would predict pictures.
"""

import argparse
import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hf_cxr import processes
from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import OutputError, check_output_folder
from hf_cxr.words import plural

if TYPE_CHECKING:
    from hf_cxr.inference.answers import Version
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.inference.results import ImageResult


class Extra(Protocol):
    """One kind of file."""

    def add(self, path: Path, version: "Version", result: "ImageResult") -> Path | None:
        """Write it for this image, of the version that was predicted, if the image is to have one.

        Raises:
            ImageError, ReportError: it cannot be made of this image.
            OSError: it cannot be written.
        """


class Extras:
    """What the flags ask for.

    Args:
        args: of the command.
        classifier: the model.

    Raises:
        ValueError: the model cannot do it, or what it needs is not installed.
        OutputError: see `check_folder`.
    """

    def __init__(self, args: argparse.Namespace, classifier: "Classifier"):
        self.folders = folders_of(args)
        for folder in self.folders.values():
            check_folder(folder, args.paths, args.model)
        self.extras = {name: EXTRAS[name](classifier, args.model, folder) for name, folder in self.folders.items()}
        self.written, self.without_study = Counter[str](), 0

    def __bool__(self) -> bool:
        return bool(self.extras)

    def add(self, path: Path, version: "Version", result: "ImageResult") -> list[str]:
        """Write everything for an image; gives why something cannot be made of it."""
        from hf_cxr.inference.structured_report import NotDicomError, ReportError

        failures = []
        for name, extra in self.extras.items():
            try:
                self.written[name] += extra.add(path, version, result) is not None
            except NotDicomError:
                self.without_study += 1
            except (ImageError, ReportError) as error:
                failures.append(str(error))
        return failures

    def summary_lines(self, *, resumed: bool) -> list[str]:
        """What was written, a line for each flag; ``resumed``: there are images of an earlier command, not counted."""
        here = " in this command" if resumed else ""
        lines = [
            f"wrote {plural(self.written[name], NOUNS[name])} to {self.folders[name]}{here}" for name in self.extras
        ]
        if self.without_study:
            lines.append(f"{plural(self.without_study, 'image')}{here} without a report: not DICOM, so in no study")
        return lines


def folders_of(args: argparse.Namespace) -> dict[str, str]:
    """The flags that ask for files besides the rows, and their folders."""
    return {name: folder for name in EXTRAS if (folder := getattr(args, name)) is not None}


def check_alone(args: argparse.Namespace) -> None:
    """Refuse extras under `accelerate launch`.

    Raises:
        ValueError: with the repair.
    """
    for name in folders_of(args):
        if processes.count() > 1:
            raise ValueError(f"--{name} is for one process; leave out accelerate launch, or leave out the flag")


def check_folder(folder: str | Path, paths: Iterable[str | Path], model: str) -> None:
    """Refuse a folder for pictures or reports that is among the images or in the model's folder.

    Args:
        folder: it may exist.
        paths: files and folders of images. A folder inside one of these folders is refused too. A folder next to files
            is not: only these files are predicted.
        model: run folder or Hub id.

    Raises:
        OutputError: it is such a folder, or cannot be written to.
    """
    inputs = [*map(Path, paths), Path(model)]
    check_output_folder(folder, inputs=inputs, closed=[place for place in inputs if place.is_dir()])
    for path in inputs:
        if os.path.isdir(folder) and path.is_file() and os.path.samefile(folder, path.parent):
            raise OutputError(f"cannot write {folder}: the image {path} is in this folder; give another folder")


def _maps(classifier: "Classifier", model: str, folder: str) -> Extra:
    from hf_cxr.run.called_maps import CalledMaps

    return CalledMaps(classifier, model, folder)


class _Reports:
    """A DICOM structured report for each image."""

    def __init__(self, classifier: "Classifier", model: str, folder: str):
        from hf_cxr.inference.structured_report import StructuredReports
        from hf_cxr.models.record import ModelRecord
        from hf_cxr.saved_models import public_name

        logging.getLogger("highdicom").setLevel(logging.WARNING)  # it names each attribute that it copies
        record = ModelRecord.of(classifier.model.config) or ModelRecord()
        self.reports = StructuredReports(
            folder,
            model_name=public_name(model),
            model_sha256=classifier.fingerprint(),
            synthetic=bool(record.synthetic),
        )

    def add(self, path: Path, version: "Version", result: "ImageResult") -> Path:
        return self.reports.write(path, result, version)


EXTRAS = {"heatmaps": _maps, "structured_reports": _Reports}
"""Flag -> what makes the files: called with the model, its name and the folder."""

NOUNS = {"heatmaps": "picture", "structured_reports": "structured report"}
"""Flag -> what a file of it is called."""
