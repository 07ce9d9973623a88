"""Whether an image looks like those that a model was trained on: `InputCheck`.

    check = InputCheck.load("runs/quickstart")          # Classifier.input_check is the same
    check.of(pixel_BSS, feature_BD)[0].reasons          # ("nearly uniform: blank or without contrast",)

An image is compared with the validation images in five ways (`PARTS`). Statistics of its pixels, where it is bright
and dark, and the features that the model's head gets are each a Mahalanobis distance, of which the logarithm is taken.
Two more ask how much nearer the second of these distances gets when something is undone: an image that would look more
ordinary inverted, turned or mirrored. Each is put on a scale on which validation images have the median 0 and the 95 %
quantile 1, and the score is the largest of the five. The features alone miss much, because a model was never asked to
tell an inverted or a turned image; the pixels alone miss what the model finds strange. `docs/input_check.md` has what
was measured.

The threshold is the quantile of the scores of validation images whose patients the fit left out (five folds), at rank
ceil((n + 1)(1 - share)), as in conformal prediction: about that share of ordinary images is reported in error.

Each reason has its own rule. "Nearly uniform" is read off the pixels. "Inverted", "on its side", "upside down" and
"mirrored" are given when undoing it makes the pixels ordinary. Everything else is "unlike the images ...".

The check belongs to the weights below the head and to the preprocessing, so a model that is calibrated again, or has
other prevalences, keeps it. With other weights it is refused.

B = images in a batch, N = images, S = side in pixels, D = features.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hf_cxr.files import replacing
from hf_cxr.inference.distances import Array, ShrunkGaussian
from hf_cxr.inference.picture_statistics import LAYOUT, LEAST, grey_range, layout, picture_statistics
from hf_cxr.inference.results import InputCheckResult
from hf_cxr.saved_models import INPUT_CHECK
from hf_cxr.words import error_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_cxr.processing import PixelProcessor

KEY, FORMAT = "hf_cxr_input_check", 1  # of the file's metadata; one key, as several have no fixed order in a file
PARTS = {
    "statistics": "by its grey levels, texture or symmetry",
    "layout": "by where it is bright and dark",
    "features": "by what the model finds in it",
    "turned": "by where it is bright and dark",
    "mirrored": "by where it is bright and dark",
}
"""Each way of comparing, and how a reason names it."""
AXES = {"statistics": None, "layout": None, "features": 32}
"""The ways that are a distance, and how many axes of the Gaussian are kept; None for all."""
PIXEL_PARTS = ("statistics", "layout")

TARGET = 0.01
"""The share of ordinary images that is reported in error, as aimed at."""
FOLDS, LEAST_IMAGES, LEAST_PATIENTS = 5, 50, 10
ORDINARY = 0.95  # this quantile of the validation images' distances is at 1 on the scale of scores
LEAST_SPREAD, LARGEST_SCORE = 0.05, 1e6

UNIFORM_RANGE = 20  # grey levels
UNIFORM = "nearly uniform: blank or without contrast"
INVERTED = "looks inverted: black and white exchanged"
SIDEWAYS = "looks turned on its side"
UPSIDE_DOWN = "looks upside down"
MIRRORED = "looks mirrored: left and right exchanged"
UNDONE = {
    "turned": (
        (INVERTED, lambda grid_BGG: 255 - grid_BGG),
        (SIDEWAYS, lambda grid_BGG: np.rot90(grid_BGG, 1, (1, 2))),
        (SIDEWAYS, lambda grid_BGG: np.rot90(grid_BGG, -1, (1, 2))),
        (UPSIDE_DOWN, lambda grid_BGG: np.rot90(grid_BGG, 2, (1, 2))),
        (UPSIDE_DOWN, lambda grid_BGG: grid_BGG[:, ::-1]),
    ),
    "mirrored": ((MIRRORED, lambda grid_BGG: grid_BGG[:, :, ::-1]),),
}
"""What may have happened to an image, by part: how a reason says it, and what undoes it, to pixels or to a grid."""
REPAIR = "copy or download it again, or remove it to predict without an input check"


@dataclass(frozen=True, eq=False)
class InputCheck:
    """A fitted check.

    Attributes:
        gaussians: of the parts in `AXES`, by name.
        scales: of every part: its value at 0 and its value at 1 minus that, on the scale of scores.
        threshold: the score from which an image is reported.
        target: the share of ordinary images reported in error that the threshold aims at.
        images, patients: of validation that it was fitted on.
        model_sha256: `features_sha256` of the model; None for none.
        measured: the figures on test, as `evaluation.input_check.InputCheckRates.to_dict` gives them; None without.
    """

    gaussians: Mapping[str, ShrunkGaussian]
    scales: Mapping[str, tuple[float, float]]
    threshold: float
    target: float
    images: int
    patients: int
    model_sha256: str | None = None
    measured: Mapping[str, Any] | None = field(default=None)

    def of(self, pixel_BSS: NDArray[np.uint8], feature_BD: NDArray[np.floating]) -> list[InputCheckResult]:
        """What the check says of each image.

        Args:
            pixel_BSS: resized grey images as the model gets them, uint8.
            feature_BD: what the model's head got of them.
        """
        score_PB = self.part_scores(compared_values(pixel_BSS, feature_BD))
        score_B = np.max(list(score_PB.values()), axis=0)
        return [
            InputCheckResult(
                float(score),
                self.threshold,
                (self._reason(pixel_SS, {name: float(score_B[image]) for name, score_B in score_PB.items()}),)
                if score >= self.threshold
                else (),
            )
            for image, (pixel_SS, score) in enumerate(zip(pixel_BSS, score_B, strict=True))
        ]

    def part_scores(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The score of each image by each part that its values suffice for, (B,), at most `LARGEST_SCORE`."""
        return {
            name: np.minimum((raw_B - self.scales[name][0]) / self.scales[name][1], LARGEST_SCORE)
            for name, raw_B in raw_scores(self.gaussians, values).items()
        }

    def _reason(self, pixel_SS: NDArray[np.uint8], scores: Mapping[str, float]) -> str:
        """Why an image that is reported is unusual, in words; scores by part."""
        if grey_range(pixel_SS) < UNIFORM_RANGE:
            return UNIFORM
        for name, ways in UNDONE.items():
            if scores[name] < self.threshold:
                continue
            distance_W = undone_distances(self.gaussians["layout"], layout(pixel_SS[None]), name)[:, 0]
            words, undo = ways[int(distance_W.argmin())]
            undone = self.part_scores(pixel_values(np.ascontiguousarray(undo(pixel_SS[None]))))
            if max(undone[part][0] for part in PIXEL_PARTS) < self.threshold:
                return words
        return f"unlike the images that the model was trained on, {PARTS[max(scores, key=scores.__getitem__)]}"

    def save(self, folder: str | Path) -> None:
        """Write input_check.safetensors into a model's folder, whole or not at all."""
        arrays = {
            f"{name}.{key}": np.asarray(array, order="C")
            for name, gaussian in self.gaussians.items()
            for key, array in gaussian.arrays().items()
        }
        values = {
            "format": FORMAT,
            "threshold": self.threshold,
            "target": self.target,
            "images": self.images,
            "patients": self.patients,
            "model_sha256": self.model_sha256,
            "measured": self.measured,
            "scales": {name: list(scale) for name, scale in self.scales.items()},
        }
        with replacing(Path(folder) / INPUT_CHECK) as beside:
            save_file(arrays, beside, {KEY: json.dumps(values)})

    @classmethod
    def load(cls, folder: str | Path) -> "InputCheck | None":
        """The check in a model's folder (of a Hub id: `saved_models.model_folder`); None if there is none.

        Raises:
            ValueError: the file cannot be read, or is damaged.
        """
        file = Path(folder) / INPUT_CHECK
        if not file.is_file():
            return None
        try:
            with safe_open(file, framework="numpy") as opened:
                metadata = opened.metadata() or {}
                arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
            return cls._from_file(metadata, arrays)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged ({error_words(error)}); {REPAIR}") from error

    @classmethod
    def _from_file(cls, metadata: Mapping[str, str], arrays: Mapping[str, NDArray]) -> "InputCheck":
        values = json.loads(metadata[KEY])
        if values["format"] != FORMAT:
            raise ValueError(f"its format is {values['format']!r:.20}; this version of hf_cxr reads {FORMAT}")
        gaussians, scales = {}, {}
        for name in AXES:
            own = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
            gaussians[name] = ShrunkGaussian.from_arrays(own)
        for name in PARTS:
            centre, spread = (float(number) for number in values["scales"][name])
            if not (np.isfinite([centre, spread]).all() and spread > 0):
                raise ValueError(f"the scale of {name} is {centre}, {spread}")
            scales[name] = (centre, spread)
        threshold = float(values["threshold"])
        if not np.isfinite(threshold):
            raise ValueError(f"the threshold is {threshold}")
        if values["measured"] is not None:
            _check_measured(values["measured"])
        rest = {key: values[key] for key in ("target", "images", "patients", "model_sha256", "measured")}
        return cls(gaussians, scales, threshold, **rest)

    def check_model(self, model_sha256: str, name: str | Path) -> None:
        """Refuse other weights than those that the check was fitted with.

        Raises:
            ValueError: they are.
        """
        if self.model_sha256 != model_sha256:
            raise ValueError(
                f"{INPUT_CHECK} in {name} was fitted for other weights or another preprocessing than this model's; "
                f"fit it again with hf-cxr calibrate, or remove it to predict without an input check"
            )

    def with_measured(self, measured: Mapping[str, Any]) -> "InputCheck":
        """The same check with its figures on test."""
        return replace(self, measured=measured)


def compared_values(pixel_BSS: NDArray[np.uint8], feature_BD: NDArray[np.floating]) -> dict[str, Array]:
    """What is compared, by part, each (B, values).

    Args:
        pixel_BSS: resized grey images, uint8.
        feature_BD: what the model's head got of them.
    """
    return pixel_values(pixel_BSS) | {"features": np.asarray(feature_BD, np.float64)}


def pixel_values(pixel_BSS: NDArray[np.uint8]) -> dict[str, Array]:
    """What needs no model of `compared_values`: the `PIXEL_PARTS`."""
    return {"statistics": picture_statistics(pixel_BSS), "layout": layout(pixel_BSS)}


def raw_scores(gaussians: Mapping[str, ShrunkGaussian], values: Mapping[str, Array]) -> dict[str, Array]:
    """What each part says before it is put on its scale, (B,): the higher, the less ordinary."""
    raw = {name: _log(gaussians[name].distances(value_BD)) for name, value_BD in values.items()}
    for name in UNDONE:
        raw[name] = raw["layout"] - _log(undone_distances(gaussians["layout"], values["layout"], name).min(axis=0))
    return raw


def undone_distances(gaussian: ShrunkGaussian, layout_BV: Array, part: str) -> Array:
    """The distance of each image's layout after each of the things that a part undoes, (ways, B)."""
    grid_BGG = layout_BV.reshape(len(layout_BV), LAYOUT, LAYOUT)
    return np.stack([gaussian.distances(undo(grid_BGG).reshape(layout_BV.shape)) for _, undo in UNDONE[part]])


def fit_input_check(
    values: Mapping[str, Array],
    patient_ids: Sequence[Any],
    *,
    model_sha256: str | None = None,
    target: float = TARGET,
    seed: int = 0,
) -> InputCheck:
    """Fit the check on validation images.

    Args:
        values: of `compared_values`, N rows each.
        patient_ids: of each image; the images of one patient are in one fold.
        model_sha256: `features_sha256` of the model.
        target: the share of ordinary images to report, in (0, 1). With fewer than 1 / share - 1 images the threshold
            is the highest score, and ``target`` of the check is the 1 / (n + 1) that this aims at.
        seed: of the folds.

    Raises:
        ValueError: fewer images or patients than `LEAST_IMAGES` and `LEAST_PATIENTS`, or values that are not finite.
    """
    check_enough(patient_ids)
    patient_N = np.unique(np.asarray(patient_ids, dtype=str), return_inverse=True)[1]
    images, patients = len(patient_N), int(patient_N.max()) + 1
    fold_N = np.random.default_rng(seed).permutation(patients)[patient_N] % FOLDS
    raw_N = {name: np.empty(images) for name in PARTS}
    for fold in range(FOLDS):
        held_N = fold_N == fold
        gaussians = {name: _gaussian(name, value_ND[~held_N]) for name, value_ND in values.items()}
        for name, raw_K in raw_scores(gaussians, {key: value[held_N] for key, value in values.items()}).items():
            raw_N[name][held_N] = raw_K
    scales = {}
    for name, value_N in raw_N.items():
        centre, ordinary = np.quantile(value_N, (0.5, ORDINARY))
        scales[name] = (float(centre), float(max(ordinary - centre, LEAST_SPREAD)))
    score_NP = [(raw_N[name] - centre) / spread for name, (centre, spread) in scales.items()]
    score_N = np.sort(np.max(score_NP, axis=0))
    rank = min(int(np.ceil((images + 1) * (1 - target))), images)
    threshold = float(np.nextafter(score_N[rank - 1], np.inf))  # reported from there on: above the quantile
    gaussians = {name: _gaussian(name, value_ND) for name, value_ND in values.items()}
    return InputCheck(gaussians, scales, threshold, max(target, 1 / (images + 1)), images, patients, model_sha256)


def check_enough(patient_ids: Sequence[Any]) -> None:
    """Refuse to fit on too few images.

    Raises:
        ValueError: fewer images or patients than `LEAST_IMAGES` and `LEAST_PATIENTS`.
    """
    images, patients = len(patient_ids), len(set(map(str, patient_ids)))
    if images < LEAST_IMAGES or patients < LEAST_PATIENTS:
        raise ValueError(
            f"validation has {images} images of {patients} patients; an input check needs at least {LEAST_IMAGES} "
            f"of {LEAST_PATIENTS}"
        )


def features_sha256(model: "PreTrainedModel", pixels: "PixelProcessor") -> str:
    """SHA-256 of what a model's features depend on: every weight but the head's, and the preprocessing."""
    from hf_cxr.models.head import head

    layer = head(model)
    own = {f"{name}." for name, module in model.named_modules() if module is layer}
    digest = hashlib.sha256()
    digest.update(json.dumps([pixels.resize_size, pixels.image_size, int(pixels.resample)]).encode())
    for module in (model, pixels):
        for name, tensor in sorted(module.state_dict().items()):
            if module is model and name.startswith(tuple(own)):
                continue
            array = tensor.detach().cpu().float().contiguous().numpy()
            digest.update(f"{name} {array.shape}".encode())
            digest.update(array)
    return digest.hexdigest()


def _check_measured(values: Mapping[str, Any]) -> None:
    """Refuse figures that `InputCheckRates.to_dict` did not give: a sentence is made of them."""
    rates = [values["false_alarms"], *values["kinds"].values()]
    numbers = [rate[end] for rate in rates for end in ("value", "low", "high", "images")]
    titles = [kind["title"] for kind in values["kinds"].values()]
    if not all(isinstance(number, int | float) for number in numbers) or not all(isinstance(t, str) for t in titles):
        raise ValueError("its figures on test are not numbers")


def _log(distance: Array) -> Array:
    return np.log(np.minimum(distance, 1e30) + 1e-9)


def _gaussian(name: str, value_ND: Array) -> ShrunkGaussian:
    if name == "features":
        least = max(1e-3 * float(np.median(value_ND.std(axis=0))), 1e-6)
    else:
        least = LEAST if name == "statistics" else 1.0
    return ShrunkGaussian.fit(value_ND, axes=AXES[name], least_D=least)
