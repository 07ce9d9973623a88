"""Multi-label losses that skip unknown cells: ``loss(logits, targets) -> scalar``, the mean over known cells.

``elementwise.py`` holds the equations, ``listwise.py`` those of losses that compare cells, ``weights.py`` the class
weights, ``reduction.py`` masking and averaging, ``modules.py`` the losses. ``build_loss`` makes one from its name and
the training counts. List-wise losses (zlpr, two_way) are means over other things than cells, and say over what.

>>> import torch
>>> loss = build_loss("class_aware", positives_C=[200, 1000], known_C=[10000, 10000], margin=0.1)
>>> loss
ClassAwareLoss(margin=0.1, decoupled=True, class_weights=sqrt_inverse, findings=2)
>>> loss(torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [0.0, torch.nan], [0.0, 0.0]]))
tensor(0.1738)
"""

import difflib
import inspect
import warnings

import numpy as np

from hf_cxr.losses import weights
from hf_cxr.losses.elementwise import asymmetric, bce, class_aware, focal
from hf_cxr.losses.modules import (
    AsymmetricLoss,
    BinaryCrossEntropyLoss,
    ClassAwareLoss,
    ClassBalancedFocalLoss,
    ClassBalancedLoss,
    DistributionBalancedLoss,
    FocalLoss,
    HillLoss,
    LDAMLoss,
    LogitAdjustedLoss,
    PosWeightedLoss,
    RobustAsymmetricLoss,
    TwoWayLoss,
    ZLPRLoss,
)
from hf_cxr.losses.reduction import MultiLabelLoss, count_known_cells, masked_mean
from hf_cxr.losses.weights import CLASS_WEIGHTS, class_weights

LOSSES = {
    "bce": BinaryCrossEntropyLoss,
    "focal": FocalLoss,
    "asymmetric": AsymmetricLoss,
    "class_aware": ClassAwareLoss,
    "pos_weighted": PosWeightedLoss,
    "class_balanced": ClassBalancedLoss,
    "class_balanced_focal": ClassBalancedFocalLoss,
    "ldam": LDAMLoss,
    "distribution_balanced": DistributionBalancedLoss,
    "robust_asymmetric": RobustAsymmetricLoss,
    "hill": HillLoss,
    "logit_adjusted": LogitAdjustedLoss,
    "two_way": TwoWayLoss,
    "zlpr": ZLPRLoss,
}
"""Name, as in configs and on the command line -> loss."""

FROM_COUNTS = ("prevalence", "positives", "known", "class_weights")
"""Arguments of a loss that ``build_loss`` derives from the training counts; the others are its options."""

__all__ = [
    "CLASS_WEIGHTS",
    "LOSSES",
    "AsymmetricLoss",
    "BinaryCrossEntropyLoss",
    "ClassAwareLoss",
    "ClassBalancedFocalLoss",
    "ClassBalancedLoss",
    "DistributionBalancedLoss",
    "FocalLoss",
    "HillLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "MultiLabelLoss",
    "PosWeightedLoss",
    "RobustAsymmetricLoss",
    "TwoWayLoss",
    "ZLPRLoss",
    "asymmetric",
    "bce",
    "build_loss",
    "class_aware",
    "class_weights",
    "count_known_cells",
    "focal",
    "loss_options",
    "masked_mean",
]


def loss_options(name: str) -> tuple[str, ...]:
    """Names of the options that a loss takes, besides class weights and what follows from the training counts.

    >>> loss_options("asymmetric")
    ('gamma_pos', 'gamma_neg', 'margin')
    """
    return tuple(key for key in _parameters(name) if key not in FROM_COUNTS)


def build_loss(
    name: str,
    *,
    positives_C,
    known_C,
    class_weights: str | None = None,
    given_class_weights=None,
    beta: float = 0.9999,
    **options,
) -> MultiLabelLoss:
    """A loss from its name and the counts of the training data.

    Args:
        name: a key of ``LOSSES``.
        positives_C: (C,) positive training cells of each finding.
        known_C: (C,) known training cells of each finding; the prevalence is positives over known.
        class_weights: a key of ``CLASS_WEIGHTS``; None is the loss's own default, "sqrt_inverse" for class_aware,
            "effective_number" for class_balanced, class_balanced_focal and ldam, and "none" for the others. The
            list-wise losses take "none" only.
        given_class_weights: (C,) positive numbers, with ``class_weights="given"`` only.
        beta: in [0, 1), for "effective_number" only.
        **options: of the loss, see ``loss_options``; None is the loss's own default.

    Raises:
        ValueError: an unknown name, an option that this loss does not take, or a value out of range.
    """
    loss_class = LOSSES[_checked_name(name)]
    _check_options(name, options)
    options = {option: value for option, value in options.items() if value is not None}
    positives_C, known_C = weights.checked_counts(positives_C, known_C)
    kind = loss_class.default_class_weights if class_weights is None else class_weights
    weight_C = weights.class_weights(kind, positives_C, known_C, beta=beta, given=given_class_weights)
    parameters = _parameters(name)
    if "class_weights" in parameters:
        options["class_weights"] = weight_C
    elif kind != "none":
        raise ValueError(f"{name} compares findings with one another and takes no class weights; got {kind!r}")
    if "prevalence" in parameters:
        options["prevalence"] = _prevalence(positives_C, known_C)
    if "positives" in parameters:
        options |= {"positives": positives_C, "known": known_C}
    loss = loss_class(**options)
    loss.class_weights_kind = kind
    return loss


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(LOSSES[_checked_name(name)]).parameters)


def _checked_name(name: str) -> str:
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}{_nearest(str(name), LOSSES)}; known: {', '.join(LOSSES)}")
    return name


def _check_options(name: str, options: dict) -> None:
    allowed = loss_options(name)
    # A config holds the options of all losses, None where not set; a name that no loss takes is a slip all the same.
    elsewhere = {option for other in LOSSES for option in loss_options(other)}
    for option, value in options.items():
        if option in allowed or (value is None and option in elsewhere):
            continue
        listed = ", ".join(allowed) or "none"
        raise ValueError(f"{name} takes no option {option!r}{_nearest(option, allowed)}; its options: {listed}")


def _prevalence(positives_C: np.ndarray, known_C: np.ndarray) -> np.ndarray:
    unknown = np.flatnonzero(known_C == 0)
    if unknown.size:
        listed = ", ".join(map(str, unknown))
        warnings.warn(f"no known training cell at index {listed}: its prevalence is taken as 0.5", stacklevel=3)
    return np.where(known_C == 0, 0.5, positives_C / np.maximum(known_C, 1))


def _nearest(word: str, known) -> str:
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
