"""The maps of a model, scored on boxes that readers drew, next to controls; see `evaluation.localization`.

Refused before any map is computed: data without a box of the model's findings, a stream (it keeps no boxes), images
that cannot be read, boxes of one patient only.

H, W = height and width of a file in pixels, C = findings with boxes in one image, h, w = grid of a map.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from hf_cxr import processes
from hf_cxr.config import RunArguments
from hf_cxr.data import Source, is_streamed, map_labels
from hf_cxr.data.images.decoded import grey_of
from hf_cxr.data.images.grey import resize_grey
from hf_cxr.evaluation.boxes import MapScore, detected_boxes, rank_correlation, score_map
from hf_cxr.evaluation.localization import GRID_LIMIT, measure_localization
from hf_cxr.explain.controls import centre_map, random_maps, randomised, usual_place
from hf_cxr.explain.geometry import coverage
from hf_cxr.files import plain, write_json, write_text
from hf_cxr.labels import LabelSpace
from hf_cxr.reporting import plots
from hf_cxr.reporting.document import Document
from hf_cxr.reporting.overlay import overlay
from hf_cxr.reporting.sections.localization import localization_section
from hf_cxr.run.data import load
from hf_cxr.run.explain import Explained, Explainer, safe_name
from hf_cxr.run.measuring import intervals_of
from hf_cxr.run.preflight import check_patients, image_errors_explained, readable
from hf_cxr.run.result_folder import write_whole

LOCALIZATION, PAGE, PICTURES = "localization.json", "localization.html", "pictures"
SCORED_AT = 256  # pixels along a side of the frame in which maps and boxes are compared; boxes are fractions of it
RANDOMISATIONS = 5  # models of random weights; images take them in turn, which costs no more than one
BOXES_NOTE = "Solid: the boxes of the data. Dotted: around the map where it is above 60 and above 180 of 255."

Boxes = dict[str, list[list[float]]]
"""The model's name of a finding -> its boxes in one image, x, y, width, height as fractions."""


def localize(
    explainers: Sequence[Explainer], args: RunArguments, place: Path | None, *, split: str = "test", pictures: int = 24
) -> dict[str, Any]:
    """Score maps on the boxes of a split, and write localization.json, localization.html, figures/ and pictures/.

    All processes share the scoring; the main one draws and writes.

    Args:
        explainers: of one model; the first is compared with the controls, the others are measured next to it.
        args: which data, and how intervals are drawn.
        place: for the results, from `result_folder.held`; new or empty; on the main process.
        split: "train", "validation" or "test".
        pictures: how many images are drawn with their maps and boxes, spread over the split.

    Returns:
        The content of localization.json, which `localization_section` writes up.

    Raises:
        ValueError: see the module's first lines.
    """
    first, source = explainers[0], load(args)
    names = first.predictor.label_names
    values = localization_values(explainers, args, source, split)
    rows = scored_rows(names, args, source, split)[0] if pictures else None  # every process has a part in its check

    def write(folder: Path) -> None:
        section = localization_section(values)
        (folder / "figures").mkdir()
        for path, draw in section.drawings.items():
            plots.save(draw(), folder / path)
        write_text(folder / PAGE, Document(f"Where {first.name} looks", section.blocks).to_html(folder))
        if pictures:
            (folder / PICTURES).mkdir()
            for name, figure in _pictures(first, rows, matching(names, source), pictures):
                plots.save(figure, folder / PICTURES / f"{name}.png")
        write_json(folder / LOCALIZATION, values)

    if processes.is_main():
        write_whole(place, write, last=LOCALIZATION)
    return values


def localization_values(
    explainers: Sequence[Explainer], args: RunArguments, source: Source, split: str = "test"
) -> dict[str, Any]:
    """What `localize` measures, as plain values, for a report; nothing is written. Arguments as there.

    Several processes take the images in turns; the random maps, drawn in the images' order, are those of one process.
    """
    first = explainers[0]
    source.check_pixels(first.predictor.pixels.resize_size, first.predictor.pixels.resample)
    rows, left_out = scored_rows(first.predictor.label_names, args, source, split)
    known = matching(first.predictor.label_names, source)
    measured = _score(explainers, rows, [_boxes(boxes, known) for boxes in rows["boxes"][:]], args.training.seed)
    intervals = intervals_of(args)
    localization = measure_localization(
        measured.scores,
        measured.findings,
        measured.image_ids,
        intervals.draws(measured.patient_ids),
        explained=_key(first),
        label_names=first.predictor.label_names,
        similarity_P=measured.similarity,
        confidence=intervals.confidence,
    )
    return plain(
        {
            **first.about(),
            "dataset": source.name,
            "synthetic": source.synthetic,
            "split": split,
            "split_fingerprint": source.fingerprint,
            "boxes_of_other_findings": left_out,
            "grid": list(measured.grid),
            "seen": list(measured.seen),
            "titles": {_key(explainer): explainer.title for explainer in explainers},
            **localization.to_dict(),
        }
    )


def scored_rows(
    label_names: Sequence[str], args: RunArguments, source: Source, split: str
) -> tuple[datasets.Dataset, dict[str, int]]:
    """As `boxed_rows`, without images that cannot be read where these are to be left out.

    Raises:
        ValueError: see the module's first lines.
    """
    rows, left_out = boxed_rows(label_names, source, split)
    check_patients(f"the {split} split, with boxes,", rows)
    return readable(args, source.with_splits({split: rows}))[split], left_out


def boxed_rows(label_names: Sequence[str], source: Source, split: str) -> tuple[datasets.Dataset, dict[str, int]]:
    """The rows of a split with a box of one of the model's findings; and how many boxes there are of other findings.

    Raises:
        ValueError: there is no such row, or the split is a stream.
    """
    known = matching(label_names, source)
    names_N = _names(source.splits[split])
    left_out: dict[str, int] = {}
    for name in (name for names in names_N for name in names if known(name) is None):
        left_out[name] = left_out.get(name, 0) + 1
    rows = [row for row, names in enumerate(names_N) if any(map(known, names))]
    if not rows:
        elsewhere = [
            other
            for other, data in source.splits.items()
            if any(known(name) for names in _names(data) for name in names)
        ]
        repair = f"give --split {elsewhere[0]}" if elsewhere else "give other data, or image files"
        others = f" (it has boxes of {', '.join(left_out)})" if left_out else ""
        raise ValueError(
            f"the {split} split of {source.name} has no box of the model's findings{others}, which are "
            f"{', '.join(label_names)}: {repair}"
        )
    return source.splits[split].select(rows), left_out


def _names(data: datasets.Dataset) -> list[list[str]]:
    """The findings of each row's boxes, in the data's own names."""
    if is_streamed(data):
        raise ValueError("a stream keeps no boxes; give the data as a table, a prepared folder or the release")
    return [[box["finding"] for box in boxes] for boxes in data["boxes"][:]]


def matching(label_names: Sequence[str], source: Source) -> Callable[[str], str | None]:
    """From a finding's name in the data to the model's, or None where the model does not have it."""
    found: dict[str, str | None] = {}

    def known(name: str) -> str | None:
        if name not in found:
            aliases = {alias: target for alias, target in source.labels.aliases.items() if target == name}
            try:
                (found[name],) = map_labels({}, LabelSpace((name,), aliases), label_names)[1]
            except ValueError:
                found[name] = None
        return found[name]

    return known


def _boxes(boxes: Sequence[Mapping[str, Any]], known: Callable[[str], str | None]) -> Boxes:
    by_finding: Boxes = {}
    for box in boxes:
        name = known(box["finding"])
        if name is not None:
            by_finding.setdefault(name, []).append(list(box["bbox"]))
    return by_finding


@dataclass(frozen=True)
class _Measured:
    """One entry for each pair of an image and a finding, and the scores of every map."""

    scores: dict[str, list[MapScore]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    image_ids: list[str] = field(default_factory=list)
    patient_ids: list[str] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    grid: tuple[int, ...] = ()
    seen: tuple[float, ...] = ()


def _score(explainers: Sequence[Explainer], rows: datasets.Dataset, boxes_N: Sequence[Boxes], seed: int) -> _Measured:
    """Every map of every image against its boxes; several processes take the images in turns."""
    first, rng, drawn = explainers[0], np.random.default_rng(seed), 0
    unlearnt = [randomised(first.predictor.model, seed, number) for number in range(RANDOMISATIONS)]
    patients, images = list(map(str, rows["patient_id"][:])), rows["image_id"][:]
    triples = zip(patients, boxes_N, strict=True)
    usual = usual_place([(patient, *item) for patient, boxes in triples for item in boxes.items()], SCORED_AT)
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    own = [row for (row,) in processes.in_turns(range(len(rows)))]
    scored, grid, seen = [], (), ()
    for row in tqdm(own, "Scoring maps", unit="image", disable=None if processes.is_main() else True):
        processes.check()
        boxes = boxes_N[row]
        with image_errors_explained():
            explained = first.explain(grey_of(undecoded[row]), findings=tuple(boxes))
        grid, seen = explained.raw_Chw.shape[1:], explained.geometry.seen()
        while drawn <= row:  # those of the other processes' images too: they are the same for any number of processes
            random_Chw = random_maps((len(boxes_N[drawn]), *grid), rng)
            drawn += 1
        usual_CHW = np.stack([usual[patients[row], name] for name in boxes])
        maps, unlearnt_Chw = _maps(explainers, explained, boxes, usual_CHW, unlearnt[row % RANDOMISATIONS], random_Chw)
        for number, (name, box_K4) in enumerate(boxes.items()):
            scores = {key: score_map(map_CHW[number], box_K4) for key, map_CHW in maps.items()}
            similarity = rank_correlation(explained.raw_Chw[number], unlearnt_Chw[number])
            scored.append((row, name, scores, similarity))
    parts = processes.gather((scored, grid, seen))
    scored = sorted((one for part, _, _ in parts for one in part), key=lambda one: one[0])
    return _Measured(
        scores={key: [scores[key] for _, _, scores, _ in scored] for key in scored[0][2]},
        findings=[name for _, name, _, _ in scored],
        image_ids=[images[row] for row, _, _, _ in scored],
        patient_ids=[patients[row] for row, _, _, _ in scored],
        similarity=[similarity for _, _, _, similarity in scored],
        grid=parts[0][1],
        seen=parts[0][2],
    )


def _maps(
    explainers: Sequence[Explainer],
    explained: Explained,
    boxes: Boxes,
    usual_CHW: NDArray[np.float32],
    unlearnt: PreTrainedModel,
    random_Chw: NDArray[np.float32],
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]:
    """Maps of one image in the frame of scoring, by key, controls last; and those of random weights on the grid."""
    first, geometry, grid = explainers[0], explained.geometry, explained.raw_Chw.shape[1:]
    pixels, names = first.predictor.pixels, first.predictor.label_names
    pixel_11SS = torch.from_numpy(resize_grey(explained.grey_HW, pixels.resize_size, pixels.resample))[None, None]
    columns = [names.index(name) for name in boxes]
    unlearnt_Chw = first.raw_maps(pixel_11SS, columns, model=unlearnt)

    def framed(raw_Chw: NDArray[np.float32]) -> NDArray[np.float32]:
        return geometry.resample(raw_Chw, SCORED_AT, SCORED_AT)

    maps = {_key(first): framed(explained.raw_Chw)}
    maps |= {_key(other): framed(other.raw_maps(pixel_11SS, columns)) for other in explainers[1:]}
    maps |= {
        "random": framed(random_Chw),
        "centre": framed(np.stack([centre_map(geometry, SCORED_AT)] * len(boxes))),
        "usual_place": usual_CHW,
        "randomised_weights": framed(unlearnt_Chw),
        GRID_LIMIT: framed(np.stack([coverage(box_K4, geometry, *grid) for box_K4 in boxes.values()])),
    }
    return maps, unlearnt_Chw


def _key(explainer: Explainer) -> str:
    return explainer.method + (f"@{explainer.layer}" if explainer.layer else "")


def _pictures(
    explainer: Explainer, rows: datasets.Dataset, known: Callable[[str], str | None], pictures: int
) -> Iterator[tuple[str, Figure]]:
    """Overlays of images spread over the split, with the drawn and the detected boxes."""
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(pictures, len(rows))).astype(int)).tolist()
    for row in tqdm(chosen, "Drawing", unit="image", disable=None):
        example = undecoded[row]
        boxes = _boxes(example["boxes"], known)
        explained = explainer.explain(grey_of(example), findings=tuple(boxes))
        frame = explained.geometry.resample(explained.raw_Chw, SCORED_AT, SCORED_AT)
        detected = [detected_boxes(map_HW) for map_HW in frame]
        figure = overlay(
            explained.grey_HW,
            explained.maps(),
            explained.captions(),
            f"{example['image_id']}: {explainer.title} of {explainer.name}",
            seen=explained.geometry.seen(),
            drawn=dict(enumerate(boxes.values())),
            detected={number: _as_sizes(corner_D4) for number, corner_D4 in enumerate(detected)},
            note=f"{explainer.about()['note']} {BOXES_NOTE}",
        )
        yield f"{row + 1:04d}_{safe_name(str(example['image_id']))}", figure


def _as_sizes(corner_D4: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([corner_D4[:, :2], corner_D4[:, 2:] - corner_D4[:, :2]], axis=1)
