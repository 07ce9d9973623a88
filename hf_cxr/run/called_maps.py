"""Heat maps of the findings that a model calls, a picture for each image: `hf-cxr predict --heatmaps`.

An image without a called finding gets no picture. With --out, a picture is drawn before the image's row is kept, so
after a stop the same command finds what is left to do; without, it draws all again. Pictures show patients: they stay
on this machine, and no push lists them.

Refused before any image is read: a model without operating points, which calls nothing.
"""

import hashlib
import os
from pathlib import Path

from hf_cxr.data.images.grey import ImageError, read_grey
from hf_cxr.files import OutputError
from hf_cxr.inference.answers import Version
from hf_cxr.inference.classifier import Classifier
from hf_cxr.inference.reading import check_version
from hf_cxr.inference.results import ImageResult
from hf_cxr.run.explain import Explainer, safe_name, save_picture
from hf_cxr.saved_models import public_name

METHOD = "grad_cam"


class CalledMaps:
    """Pictures of called findings, in one folder.

    Args:
        classifier: the model.
        model: what it was called by, a run folder or a Hub id.
        folder: for the pictures; it may exist.

    Raises:
        ValueError: nothing could be called.
    """

    def __init__(self, classifier: Classifier, model: str, folder: str | Path):
        if not len(classifier.calls.defined):
            raise ValueError(
                "--heatmaps draws the findings that are called, and this model has no operating points: use hf-cxr "
                "explain"
            )
        self.folder, self.explainer = Path(folder), Explainer(classifier, public_name(model), METHOD)

    def add(self, path: Path, version: Version, result: ImageResult) -> Path | None:
        """Draw the findings that are called in this version of a file; None if nothing is called.

        Raises:
            ImageError: the file cannot be read any more, has changed since it was predicted, or is too large to draw.
            OutputError: the picture cannot be written.
        """
        findings = [finding.name for finding in result.findings if finding.called]
        if not findings:
            return None
        try:
            grey_HW = read_grey(path)
            check_version(path, version, os.fspath(path))
            explained = self.explainer.explain(grey_HW, findings=findings)
            self.folder.mkdir(parents=True, exist_ok=True)
            warning = "; ".join(_warnings(result))
            save_picture(self.place_of(path), path, explained, explained.maps(), self.explainer, warning=warning)
        except MemoryError as error:
            raise ImageError(os.fspath(path), "it is too large, or its sides too unequal, to draw") from error
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError.of(self.folder, error) from error
        return self.place_of(path)

    def place_of(self, path: str | Path) -> Path:
        """The picture of a file: its name, and eight digits that tell files of one name in several folders apart."""
        digits = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:8]
        return self.folder / f"{safe_name(path)}_{digits}.png"


def _warnings(result: ImageResult) -> list[str]:
    """What a reader of a picture should know of the image."""
    check = result.input_check
    unusual = [f"UNUSUAL IMAGE: {'; '.join(check.reasons)}"] if result.unusual else []
    return [*unusual, *result.remarks]
