"""Multi-label losses that skip unknown cells: ``loss(logits, targets) -> scalar``, the mean over known cells.

``elementwise.py`` holds the equations, ``modules.py`` the losses, ``listwise.py`` those that compare cells,
``weights.py`` the class weights, ``reduction.py`` masking and averaging. ``build_loss`` makes a loss from its name and
the training counts. List-wise losses (zlpr, two_way, w_cel) are means over other things than cells, and say over what.

The signature and the docstring of a loss are the one place that says which options it has, with which defaults and
meanings: `loss_options` reads them, for ``loss_kwargs`` in a config and for ``--help``. A new loss is an element-wise
function, a class in ``modules.py``, a line in ``LOSSES`` below it, and a test.

>>> import torch
>>> loss = build_loss("class_aware", positives_C=[200, 1000], known_C=[10000, 10000], margin=0.1)
>>> loss
ClassAwareLoss(margin=0.1, decoupled=True, class_weights=sqrt_inverse, findings=2)
>>> loss(torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [0.0, torch.nan], [0.0, 0.0]]))
tensor(0.1738)
"""

import dataclasses
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_cxr.losses import weights
from hf_cxr.losses.elementwise import asymmetric, bce, class_aware, focal
from hf_cxr.losses.modules import (
    LOSSES,
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
    WeightedCrossEntropyLoss,
    ZLPRLoss,
)
from hf_cxr.losses.reduction import MultiLabelLoss, count_known_cells, masked_mean
from hf_cxr.losses.weights import CLASS_WEIGHTS, class_weights
from hf_cxr.options import Option, check_options, nearest, options_of

FROM_DATA = ("prevalence", "positives", "known", "class_weights", "label_names")
"""Arguments of a loss that ``build_loss`` takes from the training data; the rest are its options."""

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
    "WeightedCrossEntropyLoss",
    "ZLPRLoss",
    "asymmetric",
    "bce",
    "build_loss",
    "check_loss",
    "class_aware",
    "class_weights",
    "count_known_cells",
    "focal",
    "loss_options",
    "masked_mean",
]


def loss_options(name: str) -> dict[str, Option]:
    """The options of a loss by name: its own, and those of class weights that ``build_loss`` has, if it takes any.

    Raises:
        ValueError: an unknown loss.

    >>> list(loss_options("asymmetric"))
    ['gamma_pos', 'gamma_neg', 'margin', 'class_weights', 'given_class_weights', 'beta']
    >>> loss_options("asymmetric")["gamma_neg"].default
    4.0
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}{nearest(name, LOSSES)}; known: {', '.join(LOSSES)}")
    options = options_of(LOSSES[name], without=FROM_DATA)
    if "class_weights" not in inspect.signature(LOSSES[name]).parameters:
        return options
    shared = options_of(build_loss, without=("label_names",))
    shared["class_weights"] = dataclasses.replace(shared["class_weights"], default=LOSSES[name].default_class_weights)
    return options | shared


def build_loss(
    name: str,
    *,
    positives_C,
    known_C,
    label_names: Sequence[str] | None = None,
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
        label_names: C names of findings, for warnings; without them a warning numbers the findings from 0.
        class_weights: weight of each finding: none, inverse, sqrt_inverse, effective_number or given, see
            ``CLASS_WEIGHTS``. None is the loss's own default. The list-wise losses take "none" only.
        given_class_weights: C positive numbers, with class_weights "given" only; they are rescaled to mean 1.
        beta: of the effective number of samples, in [0, 1); read by class_weights "effective_number" only.
        **options: of the loss, see ``loss_options``; None is the loss's own default.

    Raises:
        ValueError: an unknown name, an option that this loss does not take, or a value out of range.
    """
    check_options(name, options, loss_options(name))
    loss_class = LOSSES[name]
    positives_C, known_C = weights.checked_counts(positives_C, known_C)
    kind = loss_class.default_class_weights if class_weights is None else class_weights
    parameters = inspect.signature(loss_class).parameters
    if kind != "none" and "class_weights" not in parameters:
        raise ValueError(f"{name} compares findings with one another and takes no class weights; got {kind!r}")
    from_data = {
        "positives": positives_C,
        "known": known_C,
        "prevalence": _prevalence(positives_C, known_C, label_names) if "prevalence" in parameters else None,
        "class_weights": weights.class_weights(
            kind, positives_C, known_C, beta=beta, given=given_class_weights, label_names=label_names
        ),
        "label_names": label_names,
    }
    loss = loss_class(
        **{key: value for key, value in from_data.items() if key in parameters},
        **{option: value for option, value in options.items() if value is not None},
    )
    loss.class_weights_kind = kind
    return loss


def check_loss(name: str, options: Mapping[str, Any]) -> MultiLabelLoss:
    """The loss as ``build_loss`` makes it, for findings of which every second cell is positive: no data are needed.

    Args:
        name: a key of ``LOSSES``.
        options: keyword arguments of ``build_loss``, such as a config's ``loss_kwargs``.

    Raises:
        ValueError: as ``build_loss``.

    >>> check_loss("focal", {"gamma": -1})
    Traceback (most recent call last):
    ValueError: gamma must be finite and not negative; got -1
    """
    check_options(name, options, loss_options(name))
    findings = max(1, np.size(options.get("given_class_weights", 0)))
    return build_loss(name, positives_C=[1] * findings, known_C=[2] * findings, **options)


def _prevalence(positives_C: np.ndarray, known_C: np.ndarray, label_names: Sequence[str] | None) -> np.ndarray:
    unknown = np.flatnonzero(known_C == 0)
    if unknown.size:
        where = weights.named(unknown, label_names)
        warnings.warn(f"no known training cell {where}: its prevalence is taken as 0.5", stacklevel=3)
    return np.where(known_C == 0, 0.5, positives_C / np.maximum(known_C, 1))
