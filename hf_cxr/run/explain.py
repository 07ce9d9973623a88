"""Where a model looks in image files: a picture and the arrays of each.

Everything stays on this machine: pictures show patients, and no push lists them. A result folder is whole or absent,
and must be new or empty, so that maps of two models never mix in it. Several processes take the files in turns, and
write into one folder.

Refused before any map is computed: a method that cannot run here, a layer that the model does not have, an unknown
finding, a place for results that is not empty.

H, W = height and width of a file in pixels, S = side after the resize, D = side of the crop, C = chosen findings,
h, w = grid of a map.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_cxr import processes
from hf_cxr.data.images.grey import ImageError, read_grey, resize_grey
from hf_cxr.explain import check_method_name
from hf_cxr.explain.geometry import Geometry
from hf_cxr.explain.maps import METHODS, heat_maps
from hf_cxr.files import replacing, write_json
from hf_cxr.inference.classifier import Classifier
from hf_cxr.labels import LabelSpace
from hf_cxr.models.map_layer import map_layer
from hf_cxr.models.record import ModelRecord
from hf_cxr.reporting import plots
from hf_cxr.reporting.overlay import overlay
from hf_cxr.run.result_folder import check_ensemble_place, write_whole

EXPLANATION = "explanation.json"


@dataclass(frozen=True)
class Explained:
    """The maps of one image.

    Attributes:
        grey_HW: the file, as it was read.
        geometry: how it came to the model.
        findings: C names.
        probability_C: of each, float32.
        raw_Chw: on the grid of the method, not normalised.
    """

    grey_HW: NDArray[np.uint8]
    geometry: Geometry
    findings: tuple[str, ...]
    probability_C: NDArray[np.float32]
    raw_Chw: NDArray[np.float32]

    def maps(self) -> NDArray[np.float32]:
        """At the pixels of the file, (C, H, W); NaN where the model did not see it."""
        return self.geometry.to_original(self.raw_Chw)

    def captions(self) -> list[str]:
        """Of each map, for a picture: the finding and its probability."""
        entries = zip(self.findings, self.probability_C, self.raw_Chw, strict=True)
        flat = "; the map is flat"
        return [f"{name.replace('_', ' ')} {p:.3f}{flat if np.ptp(raw) == 0 else ''}" for name, p, raw in entries]


@dataclass(frozen=True)
class Explainer:
    """A model and the way in which its maps are made.

    Args:
        predictor: the model.
        name: what pictures and pages call it; see `saved_models.public_name`.
        method: of `METHODS`.
        layer: path of another layer than the architecture's own, see `models.map_layer`.

    Raises:
        ValueError: no such method or layer, or what the method needs is not installed.
    """

    predictor: Classifier
    name: str
    method: str
    layer: str | None = None

    def __post_init__(self):
        check_method(self.method, self.layer)
        map_layer(self.predictor.model, self.layer)

    @property
    def title(self) -> str:
        """The method, for readers."""
        return METHODS[self.method].title + (f" at {self.layer}" if self.layer else "")

    def explain(self, grey_HW: NDArray[np.uint8], *, findings: Sequence[str] = (), top: int = 3) -> Explained:
        """Maps of the named findings, or else of the ``top`` most probable ones, most probable first."""
        pixels, names = self.predictor.pixels, self.predictor.label_names
        pixel_11SS = torch.from_numpy(resize_grey(grey_HW, pixels.resize_size, pixels.resample))[None, None]
        probability_C = torch.sigmoid(torch.from_numpy(self.predictor.logits(pixel_11SS)))[0].numpy()
        if not np.isfinite(probability_C).all():
            raise ValueError("the model's output is not a number; is the model damaged?")
        columns = [names.index(name) for name in findings] or np.argsort(-probability_C, kind="stable")[:top].tolist()
        return Explained(
            grey_HW=grey_HW,
            geometry=Geometry(*grey_HW.shape, pixels.resize_size, pixels.image_size),
            findings=tuple(names[column] for column in columns),
            probability_C=probability_C[columns],
            raw_Chw=self.raw_maps(pixel_11SS, columns),
        )

    def raw_maps(
        self, pixel_11SS: torch.Tensor, columns: Sequence[int], *, model: PreTrainedModel | None = None
    ) -> NDArray[np.float32]:
        """Maps (C, h, w) of one resized image (1, 1, S, S) uint8, by this model or another with the same inputs."""
        pixel_values = self.predictor.pixels(pixel_11SS.to(self.predictor.device))
        model = self.predictor.model if model is None else model
        return heat_maps(self.method, model, pixel_values, columns, layer=self.layer)[0].numpy()

    def about(self) -> dict[str, Any]:
        """What every picture and page says of the model and its probabilities."""
        record = ModelRecord.of(self.predictor.model.config)
        calibrated, views = record is not None and record.calibration is not None, self.predictor.views
        if views is not None:  # averaged logits have a calibration of their own
            calibrated = views.calibration is not None
        synthetic = record is not None and bool(record.synthetic)
        note = "Probabilities are calibrated." if calibrated else "Probabilities are not calibrated."
        if views is not None:
            note += f" They are of {len(views.views)} averaged views; the map is of one, the image as it is."
        if synthetic:
            note += " The model was trained on synthetic phantoms; it knows nothing of patients."
        return {
            "model": self.name,
            "method": self.method,
            "layer": self.layer,
            "calibrated": calibrated,
            "trained_on_phantoms": synthetic,
            "note": note,
        }


def check_method(name: str, layer: str | None = None) -> None:
    """Refuse a method that does not exist or cannot run here, and a layer where none is read.

    Raises:
        ValueError: with the methods there are, or the line that installs what is missing.
    """
    check_method_name(name)
    if layer is not None and not METHODS[name].reads_layer:
        raise ValueError(f"the method {name} reads no layer of the model; leave out --layer")
    METHODS[name].check()


def check_empty(place: Path) -> None:
    """Refuse a folder that holds anything: maps of two models or of other images must not mix.

    Raises:
        ValueError: with what it holds.
    """
    check_ensemble_place(place)


def chosen_findings(classifier: Classifier, names: Sequence[str]) -> tuple[str, ...]:
    """Findings of the model by name; case, spaces, hyphens and underscores do not matter.

    Raises:
        ValueError: an unknown name, with the nearest known one.
    """
    space = LabelSpace(classifier.label_names)
    return tuple(dict.fromkeys(space[space.index(name)] for name in names))


@dataclass
class FileMaps:
    """What `explain_files` did: an entry for each picture, and the files that could not be read."""

    images: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[ImageError] = field(default_factory=list)


def explain_files(
    explainer: Explainer,
    paths: Sequence[Path] | None,
    place: Path | None,
    *,
    findings: Sequence[str] = (),
    top: int = 3,
    complain: Callable[[ImageError], None] = lambda error: None,
) -> FileMaps:
    """A picture (PNG) and the arrays (npz) of each image file; a file that cannot be read is named and skipped.

    All processes call it and share the files; each gets what was done by all.

    An npz holds ``findings`` (C,), ``probabilities`` (C,), ``raw`` (C, h, w) and ``maps`` (C, H, W) float32; no pickle
    is needed to read it.

    Args:
        explainer: the model and the method.
        paths: image files; on the main process, whose list counts.
        place: for the results, from `result_folder.held`; new or empty; on the main process.
        findings: of the model; none for the most probable ones.
        top: how many of these.
        complain: gets each error, one process's when it occurs, those of several at the end.

    Raises:
        ValueError: no file can be read; nothing is written then.
    """
    done, alone = FileMaps(), processes.count() == 1

    def write(folder: Path | None) -> None:
        chosen, into = processes.from_main(lambda: (list(paths), folder))
        processes.check_shared(into, "--out")
        numbered = [(f"{number:04d}_{safe_name(path)}", path) for number, path in enumerate(chosen, 1)]
        own = [one for (one,) in processes.in_turns(numbered)]
        parts = processes.gather(list(_explain_each(explainer, own, into, findings, top, complain if alone else None)))
        for number in range(len(chosen)):
            entry = parts[number % len(parts)][number // len(parts)]
            (done.unreadable if isinstance(entry, ImageError) else done.images).append(entry)
        if processes.is_main() and not alone:
            for error in done.unreadable:
                complain(error)
        if not done.images:
            raise ValueError("no image could be read, so nothing was written")
        if processes.is_main():
            unreadable = [str(error) for error in done.unreadable]
            write_json(into / EXPLANATION, {**explainer.about(), "images": done.images, "unreadable": unreadable})

    if processes.is_main():
        write_whole(place, write, last=EXPLANATION)
    else:
        write(None)
    return done


def _explain_each(
    explainer: Explainer,
    named_paths: Sequence[tuple[str, Path]],
    folder: Path,
    findings: Sequence[str],
    top: int,
    complain: Callable[[ImageError], None] | None,
) -> Iterator[dict[str, Any] | ImageError]:
    """The entry of each file in explanation.json, once its picture and arrays are written, or why there is none."""
    for name, path in tqdm(named_paths, "Explaining", unit="image", disable=None if processes.is_main() else True):
        processes.check()
        try:
            explained = explainer.explain(read_grey(path), findings=findings, top=top)
            entry = _write_image(folder, name, path, explained, explainer)
        except ImageError as error:
            entry = error
        except MemoryError:
            entry = ImageError(str(path), "it is too large, or its sides too unequal, to explain")
        if isinstance(entry, ImageError) and complain is not None:
            complain(entry)
        yield entry


def _write_image(folder: Path, name: str, path: Path, explained: Explained, explainer: Explainer) -> dict[str, Any]:
    """The arrays and the picture of one file, and its entry in explanation.json."""
    maps = explained.maps()
    with replacing(folder / f"{name}.npz") as beside, beside.open("wb") as file:
        np.savez_compressed(
            file,
            findings=np.array(explained.findings),
            probabilities=explained.probability_C,
            raw=explained.raw_Chw,
            maps=maps,
        )
    save_picture(folder / f"{name}.png", path, explained, maps, explainer)
    return {
        "image": str(path),
        "picture": f"{name}.png",
        "arrays": f"{name}.npz",
        "probabilities": dict(zip(explained.findings, explained.probability_C.tolist(), strict=True)),
    }


def save_picture(
    place: Path,
    path: Path,
    explained: Explained,
    map_CHW: NDArray[np.float32],
    explainer: Explainer,
    *,
    warning: str = "",
) -> None:
    """Draw the maps of a file over it, and save the picture as PNG, whole or not at all.

    Args:
        place: of the picture.
        path: the file, whose name is the title's.
        explained: its maps.
        map_CHW: the same at the file's pixels, ``explained.maps()``.
        explainer: that made them.
        warning: what a reader must know first, in the title.
    """
    figure = overlay(
        explained.grey_HW,
        map_CHW,
        explained.captions(),
        f"{path.name}: {explainer.title} of {explainer.name}{warning and chr(10) + warning}",
        seen=explained.geometry.seen(),
        note=explainer.about()["note"],
    )
    plots.save(figure, place)


def safe_name(path: str | Path) -> str:
    """The name of a file, without its suffix and without what a shell or another system reads as something else."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(path).stem)[:80] or "image"
