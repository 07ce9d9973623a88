"""Class weights w_c from training counts: ``(positives_C, known_C) -> weight_C``, rescaled to mean 1.

C = findings. positives_C counts the positive training cells of each finding, known_C its known ones (1 or 0). Mean 1
keeps the size of the loss, and with it the meaning of the learning rate, comparable between kinds of weights.

Refused: counts that are negative, NaN or infinite, more positives than known cells. A finding without any positive is
weighted as if it had one, with a warning that names it: its frequency says nothing, and 1 / 0 would silence every
other finding.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hf_cxr.options import nearest


def uniform(positives_C: np.ndarray, known_C: np.ndarray) -> np.ndarray:
    """Weight 1 for every finding.

    >>> uniform(np.array([10.0, 40.0]), np.array([100.0, 100.0]))
    array([1., 1.])
    """
    return np.ones(len(positives_C))


def inverse(positives_C: np.ndarray, known_C: np.ndarray) -> np.ndarray:
    """One over the prevalence: known / positives. Over equal numbers of known cells, one over the count.

    >>> inverse(np.array([10.0, 40.0]), np.array([100.0, 100.0]))
    array([10. , 2.5])
    """
    return known_C / positives_C


def sqrt_inverse(positives_C: np.ndarray, known_C: np.ndarray) -> np.ndarray:
    """One over the square root of the prevalence: half-way, in the logarithm, from ``uniform`` to ``inverse``.

    >>> sqrt_inverse(np.array([4.0, 25.0]), np.array([100.0, 100.0]))
    array([5., 2.])
    """
    return np.sqrt(known_C / positives_C)


def effective_number(positives_C: np.ndarray, known_C: np.ndarray, beta: float) -> np.ndarray:
    """One over the effective number of positives, (1 - beta) / (1 - beta^n) (Cui et al., CVPR 2019, proposition 1).

    n is the count of positives; beta in [0, 1). beta = 0 is ``uniform``; beta -> 1 is 1 / n.

    >>> effective_number(np.array([1.0, 2.0]), np.array([100.0, 100.0]), beta=0.5).round(4)
    array([1.    , 0.6667])
    """
    with np.errstate(divide="ignore"):  # log(0) = -inf is right here: 0^n = 0
        return (1 - beta) / -np.expm1(positives_C * np.log(beta))


CLASS_WEIGHTS = {
    "none": uniform,
    "inverse": inverse,
    "sqrt_inverse": sqrt_inverse,
    "effective_number": effective_number,
    "given": None,  # the caller's own numbers
}
"""Kind of class weights -> the function of ``(positives_C, known_C)`` that gives them, before rescaling."""


def class_weights(
    kind: str,
    positives_C: Sequence[float] | Tensor | np.ndarray,
    known_C: Sequence[float] | Tensor | np.ndarray,
    *,
    beta: float = 0.9999,
    given: Sequence[float] | Tensor | None = None,
    label_names: Sequence[str] | None = None,
) -> Tensor:
    """Class weights of mean 1, float32, shape (C,).

    Args:
        kind: a key of ``CLASS_WEIGHTS``.
        positives_C: positive training cells of each finding.
        known_C: known (1 or 0) training cells of each finding.
        beta: in [0, 1), read by "effective_number" only.
        given: C positive numbers, for "given" only.
        label_names: C names of findings, for warnings.

    Raises:
        ValueError: an unknown kind, bad counts, a beta out of range, or ``given`` missing, misplaced or not positive.

    >>> counts = dict(positives_C=[10, 40], known_C=[100, 100])
    >>> class_weights("none", **counts)
    tensor([1., 1.])
    >>> class_weights("inverse", **counts)
    tensor([1.6000, 0.4000])
    >>> class_weights("sqrt_inverse", **counts)
    tensor([1.3333, 0.6667])
    >>> class_weights("effective_number", **counts, beta=0.9)
    tensor([1.2040, 0.7960])
    >>> class_weights("given", **counts, given=[3, 1])
    tensor([1.5000, 0.5000])
    """
    if kind not in CLASS_WEIGHTS:
        known = ", ".join(CLASS_WEIGHTS)
        raise ValueError(f"unknown class_weights {kind!r}{nearest(kind, CLASS_WEIGHTS)}; known: {known}")
    positives_C, known_C = checked_counts(positives_C, known_C)
    if kind == "given":
        weight_C = _checked_given(given, len(positives_C))
    elif given is not None:
        raise ValueError(f"given_class_weights go with class_weights given, and class_weights is {kind}")
    elif kind == "none":
        weight_C = uniform(positives_C, known_C)
    else:
        options = {}
        if kind == "effective_number":
            if not 0 <= beta < 1:
                raise ValueError(f"beta must lie in [0, 1); got {beta}")
            options = {"beta": beta}
        weight_C = CLASS_WEIGHTS[kind](*at_least_one_positive(positives_C, known_C, label_names), **options)
    return torch.tensor(weight_C / weight_C.mean(), dtype=torch.float32)


def checked_counts(positives_C, known_C) -> tuple[np.ndarray, np.ndarray]:
    """Both counts as float64 arrays of shape (C,), or a ValueError that names the column at fault."""
    arrays = []
    for name, counts in (("positives", positives_C), ("known cells", known_C)):
        counts_C = np.asarray(counts, dtype=np.float64)
        if counts_C.ndim != 1 or counts_C.size == 0:
            raise ValueError(f"counts of {name} must have shape (C,), one for each finding; got {counts_C.shape}")
        bad = np.flatnonzero(~np.isfinite(counts_C) | (counts_C < 0))
        if bad.size:
            raise ValueError(f"counts of {name} must be finite and not negative; not so at index {_listed(bad)}")
        arrays.append(counts_C)
    positives_C, known_C = arrays
    if len(positives_C) != len(known_C):
        raise ValueError(f"{len(positives_C)} counts of positives for {len(known_C)} counts of known cells")
    excess = np.flatnonzero(positives_C > known_C)
    if excess.size:
        raise ValueError(f"more positives than known cells at index {_listed(excess)}")
    return positives_C, known_C


def _checked_given(given, num_findings: int) -> np.ndarray:
    if given is None:
        raise ValueError("class_weights given needs given_class_weights: one positive number for each finding")
    try:
        weight_C = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"given_class_weights must be numbers, one for each finding; got {given!r}") from None
    if weight_C.shape != (num_findings,):
        raise ValueError(
            f"{num_findings} findings need given weights of shape ({num_findings},); got {weight_C.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(weight_C) | (weight_C <= 0))
    if bad.size:
        raise ValueError(f"given weights must be finite and positive; not so at index {_listed(bad)}")
    return weight_C


def at_least_one_positive(
    positives_C: np.ndarray, known_C: np.ndarray, label_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The counts with a positive where there was none, and a warning that names these findings."""
    empty = np.flatnonzero(positives_C == 0)
    if empty.size:
        where = named(empty, label_names)
        warnings.warn(f"no training positives {where}: weighted as if there were one", stacklevel=3)
    positives_C = np.where(positives_C == 0, 1, positives_C)
    return positives_C, np.maximum(known_C, positives_C)


def named(indices: np.ndarray, label_names: Sequence[str] | None) -> str:
    """Which findings, for a warning.

    >>> named(np.array([0, 2]), ["Mass", "Edema", "Hernia"]), named(np.array([0, 2]), None)
    ('of Mass, Hernia', 'at index 0, 2')
    """
    return f"of {', '.join(label_names[i] for i in indices)}" if label_names else f"at index {_listed(indices)}"


def _listed(indices: np.ndarray) -> str:
    return ", ".join(str(index) for index in indices)
