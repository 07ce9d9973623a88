"""Test-time augmentation: one image is predicted in several views, and the logits are averaged.

    views = AveragedViews(("flip", "scales"))        # six views: mirrored or not, at 1.0, 0.9 and 1.1 times the size
    classifier = Classifier("runs/mine", views=views)
    classifier = Classifier("runs/mine", views=AveragedViews.load("runs/mine_views"))    # calibrated

Every view is made from the same prepared pixels; the first is the image as it is evaluated without views. N views cost
N passes of the model. Averaged logits are those of another system: its probabilities need a calibration and operating
points of their own, which ``hf-cxr evaluate --test_time_augmentation`` fits on validation and keeps.

Source: flips and scales as Krizhevsky et al., NeurIPS 2012, and Simonyan and Zisserman, ICLR 2015, averaged them.

B = images, C = findings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_cxr.files import read_json, write_json
from hf_cxr.options import nearest

if TYPE_CHECKING:  # help does without scipy
    from hf_cxr.evaluation.calibration import Calibration
    from hf_cxr.evaluation.operating_points import OperatingPoints

FOLDER = "test_time_augmentation"  # of an evaluation
CALIBRATION = f"{FOLDER}/calibration.json"
FILES = (CALIBRATION, *(f"{FOLDER}/{split}.parquet" for split in ("train", "validation", "test")))
"""What the folder of an evaluation may have of averaged views."""
SCALES = (1.0, 0.9, 1.1)
KINDS = {
    "flip": "as it is and mirrored",
    "scales": f"at {', '.join(f'{scale:g}' for scale in SCALES[:-1])} and {SCALES[-1]:g} times its size",
}


@dataclass(frozen=True)
class View:
    """One view: mirrored or not, and how large the image is in it."""

    flip: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class AveragedViews:
    """Which views are averaged, and what the average needs to give probabilities.

    Attributes:
        kinds: of `KINDS`, in the table's order.
        calibration: of the averaged logits; None for none.
        operating_points: of the calibrated probabilities; None for none.
        model_sha256: the model that both were fitted for (`saved_models.fingerprint`); None if there are none.

    Raises:
        ValueError: no kind, or an unknown one.
    """

    kinds: tuple[str, ...]
    calibration: "Calibration | None" = None
    operating_points: "OperatingPoints | None" = None
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", check_views(self.kinds))

    @property
    def views(self) -> tuple[View, ...]:
        """Every combination of the kinds; the first is the image as it is."""
        flips = (False, True) if "flip" in self.kinds else (False,)
        scales = SCALES if "scales" in self.kinds else (1.0,)
        return tuple(View(flip, scale) for scale in scales for flip in flips)

    @property
    def words(self) -> str:
        """What is averaged, for a reader."""
        return f"{len(self.views)} views (the image {', each '.join(KINDS[kind] for kind in self.kinds)})"

    def average(self, logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The mean over the views of logits (B, C), in float64 until the end, calibrated if there is a calibration."""
        logit_BC = np.mean(logits, axis=0, dtype=np.float64)
        if self.calibration is not None:
            logit_BC = self.calibration.apply(logit_BC)
        return logit_BC.astype(np.float32)

    def check_model(self, model_sha256: str, name: str) -> None:
        """Refuse another model than that of the calibration.

        Raises:
            ValueError: with both names.
        """
        if self.model_sha256 is not None and self.model_sha256 != model_sha256:
            raise ValueError(
                f"the calibration of these averaged views was fitted for another model than {name}, or for other "
                "weights of it; run hf-cxr evaluate --test_time_augmentation with this model"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "views": list(self.kinds),
            "model_sha256": self.model_sha256,
            "calibration": self.calibration and self.calibration.to_dict(),
            "operating_points": self.operating_points and self.operating_points.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "AveragedViews":
        """Read what `to_dict` gave."""
        from hf_cxr.evaluation.calibration import Calibration
        from hf_cxr.evaluation.operating_points import OperatingPoints

        calibration, points = values.get("calibration"), values.get("operating_points")
        return cls(
            tuple(values["views"]),
            None if calibration is None else Calibration.from_dict(calibration),
            None if points is None else OperatingPoints.from_dict(points),
            values.get("model_sha256"),
        )

    def save(self, folder: Path) -> None:
        """Write into the folder of an evaluation."""
        (folder / FOLDER).mkdir(exist_ok=True)
        write_json(folder / CALIBRATION, self.to_dict())

    @classmethod
    def load(cls, folder: str | Path) -> "AveragedViews":
        """Read from the folder of an evaluation that was made with ``--test_time_augmentation``.

        Raises:
            FileNotFoundError: it has none.
            ValueError: it cannot be read.
        """
        file = Path(folder) / CALIBRATION
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} has no {CALIBRATION}; make it with hf-cxr evaluate --model MODEL --test_time_augmentation "
                f"{','.join(KINDS)} --out {folder}"
            )
        repair = "write it again with hf-cxr evaluate --test_time_augmentation"
        try:
            return cls.from_dict(read_json(file, repair=repair))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is not what hf-cxr evaluate wrote ({error}); {repair}") from error


def check_views(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds in the table's order.

    Raises:
        ValueError: there is none, or one is not in `KINDS`.
    """
    known = ", ".join(KINDS)
    if not kinds:
        raise ValueError(f"no kind of view was given; choose from {known}")
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not a kind of view{nearest(kind, KINDS)}; choose from {known}")
    return tuple(kind for kind in KINDS if kind in kinds)
