"""The four losses as modules: each validates its options once and names its element-wise function.

All take ``class_weights``, (C,) or None, ready made: ``weights.class_weights`` computes them from training counts, and
``build_loss`` does both. C = findings.
"""

import math
import warnings

from torch import Tensor

from hf_cxr.losses import elementwise
from hf_cxr.losses.reduction import MultiLabelLoss


class BinaryCrossEntropyLoss(MultiLabelLoss):
    """Binary cross-entropy, see ``elementwise.bce``."""

    name = "bce"

    def __init__(self, class_weights=None):
        super().__init__(class_weights=class_weights)

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.bce(logit_BC, target_BC)


class FocalLoss(MultiLabelLoss):
    """Focal loss (Lin et al., ICCV 2017), see ``elementwise.focal``.

    Args:
        gamma: >= 0; 0 is cross-entropy. The paper's best is 2.
        alpha: None, or the weight in [0, 1] of positives against 1 - alpha for negatives. The paper's best with
            gamma 2 is 0.25.
    """

    name = "focal"

    def __init__(self, gamma: float = 2.0, alpha: float | None = None, class_weights=None):
        _check_at_least_zero(gamma=gamma)
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1] or be left out; got {alpha}")
        super().__init__(
            class_weights=class_weights, gamma=float(gamma), alpha=None if alpha is None else float(alpha)
        )

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.focal(logit_BC, target_BC, **self.options)


class AsymmetricLoss(MultiLabelLoss):
    """Asymmetric loss (Ridnik et al., ICCV 2021), see ``elementwise.asymmetric``.

    Args:
        gamma_pos: >= 0, focusing of positives.
        gamma_neg: >= 0, focusing of negatives.
        margin: in [0, 1); negatives with p <= margin are dropped.
    """

    name = "asymmetric"

    def __init__(self, gamma_pos: float = 0.0, gamma_neg: float = 4.0, margin: float = 0.05, class_weights=None):
        _check_at_least_zero(gamma_pos=gamma_pos, gamma_neg=gamma_neg)
        _check_margin(margin)
        super().__init__(
            class_weights=class_weights, gamma_pos=float(gamma_pos), gamma_neg=float(gamma_neg), margin=float(margin)
        )

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.asymmetric(logit_BC, target_BC, **self.options)


class ClassAwareLoss(MultiLabelLoss):
    """Class-aware loss, see ``elementwise.class_aware``.

    Args:
        prevalence: (C,) in [0, 1], positives over known cells of the training data.
        class_weights: (C,) or None. ``build_loss`` gives "sqrt_inverse" unless told otherwise.
        margin: in [0, 1); negatives with p <= margin are dropped.
        decoupled: negatives are weighted with base 1 - alpha; if False with alpha, like positives.

    Warns:
        UserWarning: a prevalence of exactly 0 or 1 leaves a side of that finding without gradient.
    """

    name = "class_aware"
    default_class_weights = "sqrt_inverse"

    def __init__(self, prevalence, class_weights=None, margin: float = 0.2, decoupled: bool = True):
        _check_margin(margin)
        if not isinstance(decoupled, bool):
            raise ValueError(f"decoupled must be true or false; got {decoupled!r}")
        super().__init__(class_weights=class_weights, prevalence=prevalence, margin=float(margin), decoupled=decoupled)
        self._warn_of_silent_cells()

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.class_aware(logit_BC, target_BC, self.prevalence_C, **self.options)

    def _warn_of_silent_cells(self) -> None:
        ones = "positives get" if self.options["decoupled"] else "positives and negatives get"
        silent = {1.0: ones}
        if self.options["decoupled"]:
            silent[0.0] = "negatives get"
        for alpha, cells in silent.items():
            indices = (self.prevalence_C == alpha).nonzero().flatten().tolist()
            if indices:
                listed = ", ".join(map(str, indices))
                warnings.warn(
                    f"prevalence is {alpha:g} at index {listed}: there the class-aware loss's {cells} no gradient",
                    stacklevel=3,
                )


def _check_at_least_zero(**options: float) -> None:
    for name, value in options.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative; got {value}")


def _check_margin(margin: float) -> None:
    if not 0 <= margin < 1:
        raise ValueError(f"margin must lie in [0, 1); got {margin}")
