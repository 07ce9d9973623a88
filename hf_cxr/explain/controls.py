"""What a heat map has to beat: maps that have not looked at the image, and a model that has learnt nothing.

| key                | what it is                                                                          |
|--------------------|-------------------------------------------------------------------------------------|
| random             | noise on the method's own grid                                                      |
| centre             | a Gaussian in the middle of the image                                               |
| usual_place        | the mean of the finding's boxes in other patients: what knowing the finding's name is worth |
| randomised_weights | the same method on the same image, by a model of random weights                     |

The last is Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: full randomisation of the parameters. The
other two that know nothing make chance visible, which is far above 0 for small boxes under Wang's IoBB.

h, w = grid of a map, C = findings, K = boxes, H, W = resolution of a drawn map.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageClassification, PreTrainedModel

from hf_cxr.explain.geometry import Geometry, on_the_grid

SPREAD = 0.25
"""Standard deviation of the Gaussian, as a fraction of the image's side: what looks like a chest."""


def random_maps(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Independent uniform values, (C, h, w)."""
    return rng.random(shape, dtype=np.float32)


def centre_map(geometry: Geometry, cells: int) -> NDArray[np.float32]:
    """A Gaussian in the middle of the original image, on the model's grid, (cells, cells)."""
    return on_the_grid(lambda x, y: np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / (2 * SPREAD**2)), geometry, cells)


def usual_place(
    boxes: Sequence[tuple[str, str, Sequence[Sequence[float]]]], cells: int
) -> Mapping[tuple[str, str], NDArray[np.float32]]:
    """For each patient and finding, how often each place is inside a box of the finding in *other* patients.

    Where no other patient has the finding, the boxes of all findings in other patients.

    Args:
        boxes: (patient, finding, K boxes as x, y, width, height in fractions) of each image and finding.
        cells: resolution, along a side.

    Returns:
        (patient, finding) -> (cells, cells), of the whole image, at most 1; zeros if there is no other patient.
    """
    centre = (np.arange(cells) + 0.5) / cells
    own: dict[tuple[str, str], NDArray[np.float64]] = {}
    by_finding: dict[str, NDArray[np.float64]] = {}
    by_patient: dict[str, NDArray[np.float64]] = {}
    for patient, finding, box_K4 in boxes:
        inside = np.zeros((cells, cells))
        for x, y, width, height in box_K4:
            across, down = (centre >= x) & (centre <= x + width), (centre >= y) & (centre <= y + height)
            inside[np.ix_(down, across)] = 1
        for sums, key in ((own, (patient, finding)), (by_finding, finding), (by_patient, patient)):
            sums[key] = sums.get(key, 0) + inside
    total = sum(by_finding.values(), np.zeros((cells, cells)))
    places = {}
    for (patient, finding), mine in own.items():
        place = by_finding[finding] - mine
        if not place.any():
            place = total - by_patient[patient]
        places[patient, finding] = (place / max(1.0, place.max())).astype(np.float32)
    return places


def randomised(model: PreTrainedModel, seed: int, number: int = 0) -> PreTrainedModel:
    """A model of the same architecture whose every weight is drawn again, as for training from scratch.

    Args:
        model: the trained one, which is not changed.
        seed: of the run.
        number: of this draw, 0 or more. Maps of one draw may resemble those of the model by chance: average over some.

    Returns:
        In evaluation mode, where the model is. A run that began with this seed did not begin with these weights. The
        process's random generators are left as they were.
    """
    config = copy.deepcopy(model.config)
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, 1 + number]).generate_state(1)[0]))
        fresh = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    parameter = next(model.parameters())
    return fresh.to(device=parameter.device, dtype=parameter.dtype).eval()
