"""What `hf-cxr predict` writes for an image besides its row, and before the row is kept: pictures and reports."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hf_cxr.data.images.grey import ImageError
from hf_cxr.files import check_output_folder

if TYPE_CHECKING:
    from hf_cxr.inference.classifier import Classifier
    from hf_cxr.inference.results import ImageResult


class Extra(Protocol):
    """One kind of file."""

    def add(self, path: Path, result: "ImageResult") -> object:
        """Write it for this image.

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
        OutputError: a folder cannot be written to, or is an input or inside one.
    """

    def __init__(self, args: argparse.Namespace, classifier: "Classifier"):
        inputs = (*args.paths, args.model)
        self.extras: list[Extra] = []
        self.failed = 0
        if args.heatmaps is not None:
            from hf_cxr.run.called_maps import CalledMaps

            self.extras.append(CalledMaps(classifier, args.model, args.heatmaps, inputs))
        if args.structured_reports is not None:
            self.extras.append(_Reports(classifier, args.model, args.structured_reports, inputs))

    def add(self, path: Path, result: "ImageResult") -> Iterator[ValueError]:
        """Write everything for an image; gives why something cannot be made of it."""
        from hf_cxr.inference.structured_report import ReportError

        for extra in self.extras:
            try:
                extra.add(path, result)
            except (ImageError, ReportError) as error:
                self.failed += 1
                yield error


class _Reports:
    """A DICOM structured report for each image."""

    def __init__(self, classifier: "Classifier", model: str, folder: str, inputs: tuple[str, ...]):
        from hf_cxr.inference.structured_report import StructuredReports
        from hf_cxr.run.explain import name_of

        check_output_folder(folder, inputs=inputs, closed=[place for place in inputs if Path(place).is_dir()])
        logging.getLogger("highdicom").setLevel(logging.WARNING)  # it names each attribute that it copies
        self.reports = StructuredReports(folder, model_name=name_of(model), model_sha256=classifier.fingerprint())

    def add(self, path: Path, result: "ImageResult") -> Path:
        return self.reports.write(path, result)
