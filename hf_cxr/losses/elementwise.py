"""Element-wise multi-label losses: ``(logit_BC, target_BC, **options) -> loss_BC``, in nats.

B = images, C = findings. Nothing here reduces, weights findings or masks: see ``reduction.py``. Targets are 1 or
0; an unknown cell (NaN) gives NaN, so it is replaced before it comes here. Options are trusted here and validated
in ``modules.py``.

Everything is computed in float32 or wider whatever the dtype of the logits (float64 stays float64), from
log-sigmoid, log-add-exp and expm1, so that loss and gradient are finite for ``|z|`` up to 1e4. Gradient flows through
the modulating weights, as in the papers' equations; nothing is detached.

Throughout: z = logit, p = sigmoid(z), y = target, p_m = max(p - m, 0) with margin m.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def bce(logit_BC: Tensor, target_BC: Tensor) -> Tensor:
    """Binary cross-entropy in nats: ``-(y log p + (1 - y) log(1 - p))``.

    Limit: its minimum for a finding of prevalence alpha is at the log odds, z = log(alpha / (1 - alpha)).

    >>> bce(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[0.6931, 0.6931]])
    """
    z, y = _widen(logit_BC, target_BC)
    return _two_sided(y, F.logsigmoid(z), F.logsigmoid(-z))


def focal(logit_BC: Tensor, target_BC: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """Focal loss in nats: ``-alpha_t (1 - p_t)^gamma log p_t`` (Lin et al., ICCV 2017, equations 4 and 5).

    p_t = p for positives and 1 - p for negatives. ``alpha`` is the paper's balance, one number for all findings:
    alpha_t = alpha for positives and 1 - alpha for negatives; None leaves it out (equation 4).

    Limit: gamma = 0 with alpha = None is exactly ``bce``.

    >>> focal(torch.tensor([[0.0]]), torch.tensor([[1.0]])) / bce(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    tensor([[0.2500]])
    """
    z, y = _widen(logit_BC, target_BC)
    positive, negative = F.logsigmoid(z), F.logsigmoid(-z)
    if gamma != 0:
        # exp(gamma log(1 - p)), not (1 - p) ** gamma: the gradient of a power is infinite at a base of 0.
        positive, negative = (gamma * negative).exp() * positive, (gamma * positive).exp() * negative
    if alpha is not None:
        positive, negative = alpha * positive, (1 - alpha) * negative
    return _two_sided(y, positive, negative)


def asymmetric(
    logit_BC: Tensor,
    target_BC: Tensor,
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """Asymmetric loss in nats (Ridnik et al., ICCV 2021): focal with two exponents and a margin for negatives.

        L+ = (1 - p)^gamma_pos log p
        L- = p_m^gamma_neg log(1 - p_m)
        loss = -(y L+ + (1 - y) L-)

    Negatives with p <= margin have loss 0 and gradient 0, p = margin itself included. The authors' code can stop the
    gradient through the powers; here, as in the equations, it flows.

    Limits: gamma_pos = gamma_neg = margin = 0 is exactly ``bce``; margin = 0 with equal gammas is ``focal``.

    >>> asymmetric(torch.tensor([[-3.0, 3.0]]), torch.zeros(1, 2))  # p = 0.047 is below the margin
    tensor([[0.0000, 1.5454]])
    """
    z, y = _widen(logit_BC, target_BC)
    positive, negative = F.logsigmoid(z), _log_one_minus_shifted(z, margin)
    if gamma_pos != 0:
        positive = (gamma_pos * F.logsigmoid(-z)).exp() * positive
    if gamma_neg != 0:
        negative = _shifted_power(z, margin, gamma_neg) * negative
    return _two_sided(y, positive, negative)


def class_aware(
    logit_BC: Tensor,
    target_BC: Tensor,
    prevalence_C: Tensor,
    *,
    margin: float = 0.2,
    decoupled: bool = True,
) -> Tensor:
    """Class-aware loss in nats: the weight of a cell depends on its probability and its finding's prevalence.

        L+ = w+ log p            w+ = 1 - alpha^(1 - p)
        L- = w- log(1 - p_m)     w- = 1 - (1 - alpha)^p     (decoupled = False: 1 - alpha^p)
        loss = -(y L+ + (1 - y) L-)

    alpha = ``prevalence_C``, in [0, 1]: the share of positives among known training cells. No paper is known to the
    authors of this package: the equations are those of the reference recipe, which leaves ``decoupled`` open.
    Negatives with p <= margin have loss 0 and gradient 0, p = margin itself included. A base of exactly 0 gives
    weight 1 (0^p = 0 for every p > 0), a base of exactly 1 gives weight 0: with ``decoupled``, alpha = 0 silences the
    negatives and alpha = 1 the positives.

    Limits: alpha = 0, margin = 0, decoupled = False is exactly ``bce``; at alpha = 0.5 and margin = 0 the sides mirror
    each other, L+(p) = L-(1 - p).

    >>> z, alpha = torch.zeros(1, 2), torch.tensor([0.5, 0.01])
    >>> class_aware(z, torch.ones(1, 2), alpha, margin=0.0)
    tensor([[0.2030, 0.6238]])
    >>> class_aware(z, torch.zeros(1, 2), alpha, margin=0.0)
    tensor([[0.2030, 0.0035]])
    """
    z, y = _widen(logit_BC, target_BC)
    alpha_C = torch.as_tensor(prevalence_C, device=z.device).to(z.dtype)
    positive = _one_minus_power(alpha_C, torch.sigmoid(-z)) * F.logsigmoid(z)
    base_C = 1 - alpha_C if decoupled else alpha_C
    log_base_C = torch.log1p(-alpha_C) if decoupled else None
    negative = _one_minus_power(base_C, torch.sigmoid(z), log_base_C) * _log_one_minus_shifted(z, margin)
    return _two_sided(y, positive, negative)


def _widen(logit_BC: Tensor, target_BC: Tensor) -> tuple[Tensor, Tensor]:
    # Before anything else: bfloat16 has 8 bits, and sigmoid of a float16 below -17 is 0.
    dtype = torch.promote_types(logit_BC.dtype, torch.float32)
    return logit_BC.to(dtype), target_BC.to(dtype)


def _two_sided(y: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    # Both sides are finite everywhere, so the idle one contributes 0 x finite to the loss and to its gradient.
    # Written so that a dropped negative costs 0, not -0.
    return (y - 1) * negative - y * positive


def _log_one_minus_shifted(z: Tensor, margin: float) -> Tensor:
    """log(1 - p_m); where p <= margin it is 0 and has gradient 0."""
    if margin == 0:
        return F.logsigmoid(-z)
    # 1 - p_m = (1 - p) + m, added in the log domain: 1 - (p - m) cancels for small m, and its logarithm reaches -inf.
    shifted = torch.logaddexp(F.logsigmoid(-z), z.new_full((), math.log(margin))).clamp(max=0)
    return torch.where(torch.sigmoid(z) > margin, shifted, 0.0)


def _shifted_power(z: Tensor, margin: float, gamma: float) -> Tensor:
    """p_m ** gamma where p > margin; where p <= margin it is 1, to be multiplied by the 0 of the logarithm."""
    if margin == 0:
        return (gamma * F.logsigmoid(z)).exp()
    excess = torch.sigmoid(z) - margin
    # The base is replaced before the power: for gamma < 1 its gradient at 0 is infinite, and 0 x inf is NaN even in
    # the branch that torch.where drops.
    return torch.where(excess > torch.finfo(z.dtype).tiny, excess, 1.0) ** gamma


def _one_minus_power(base_C: Tensor, exponent_BC: Tensor, log_base_C: Tensor | None = None) -> Tensor:
    """1 - base ** exponent for base in [0, 1] and exponent > 0, accurate where it is small."""
    positive_C = base_C > 0
    log_base_C = base_C.log() if log_base_C is None else log_base_C
    # log(0) is replaced before it meets an exponent that has underflowed to 0: their product would be NaN.
    power_BC = -torch.expm1(exponent_BC * torch.where(positive_C, log_base_C, 0.0))
    return torch.where(positive_C, power_BC, 1.0)
