"""Element-wise multi-label losses: ``(logit_BC, target_BC, **options) -> loss_BC``, in nats.

B = images, C = findings. Nothing here reduces, weights findings or masks: see ``reduction.py``. Losses in which the
cells of an image or of a batch act on one another are in ``listwise.py``. Targets are 1 or
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


def pos_weighted(logit_BC: Tensor, target_BC: Tensor, pos_weight_C: Tensor) -> Tensor:
    """Cross-entropy in nats with its own weight for positives: ``-(w+ y log p + (1 - y) log(1 - p))``.

    ``pos_weight_C`` >= 0, as in ``torch.nn.BCEWithLogitsLoss(pos_weight)``; with negatives over positives, either side
    of a finding weighs the same in the whole training set. For chest X-rays: Wang et al., *ChestX-ray8*, CVPR 2017,
    whose weighted cross-entropy (W-CEL) weighs both sides, in the same ratio.

    Limit: a weight of 1 is exactly ``bce``.

    >>> pos_weighted(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([3.0, 3.0]))
    tensor([[2.0794, 0.6931]])
    """
    z, y = _widen(logit_BC, target_BC)
    return _two_sided(y, pos_weight_C.to(z.dtype) * F.logsigmoid(z), F.logsigmoid(-z))


def logit_adjusted(logit_BC: Tensor, target_BC: Tensor, prevalence_C: Tensor, *, tau: float = 1.0) -> Tensor:
    """Cross-entropy of the logit plus tau times the prior log odds, in nats (Menon et al., ICLR 2021, equation 10).

    Per finding, the paper's softmax has two classes of priors alpha and 1 - alpha:

        loss = bce(z + tau log(alpha / (1 - alpha)), y)

    alpha = ``prevalence_C``, in (0, 1). What the model then learns, z, leaves the prior out: it is the logit at a
    prevalence of one half if tau = 1.

    Limit: tau = 0 is exactly ``bce``.

    >>> logit_adjusted(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([0.1, 0.1]))
    tensor([[2.3026, 0.1054]])
    """
    z, y = _widen(logit_BC, target_BC)
    alpha_C = prevalence_C.to(z.dtype)
    return bce(z + tau * (alpha_C.log() - torch.log1p(-alpha_C)), y)


def ldam(logit_BC: Tensor, target_BC: Tensor, margin_C: Tensor, *, logit_scale: float = 1.0) -> Tensor:
    """Label-distribution-aware margin loss in nats (Cao et al., NeurIPS 2019), for many labels.

        L+ = log sigmoid(s (z - Delta))        Delta_c proportional to n_c^(-1/4)
        L- = log(1 - sigmoid(s z))
        loss = -(y L+ + (1 - y) L-)

    s = ``logit_scale``, Delta = ``margin_C``. A positive has to be won by a margin that is wider where positives are
    few. The paper's softmax becomes a sigmoid for each finding, and the margin is asked of positives alone: negatives
    are plentiful. Its scale of 30 goes with a head that compares unit vectors; ours is linear, so 1 is the default.

    Limit: Delta = 0, s = 1 is exactly ``bce``.

    >>> ldam(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([0.5, 0.5]))
    tensor([[0.9741, 0.6931]])
    """
    z, y = _widen(logit_BC, target_BC)
    return _two_sided(y, F.logsigmoid(logit_scale * (z - margin_C.to(z.dtype))), F.logsigmoid(-logit_scale * z))


def rebalanced_weight(
    target_BC: Tensor,
    inverse_count_C: Tensor,
    *,
    map_alpha: float = 0.1,
    map_beta: float = 10.0,
    map_mu: float = 0.2,
) -> Tensor:
    """The re-balanced weight of the distribution-balanced loss (Wu et al., ECCV 2020, section 3.1), (B, C), in float.

        r = (1 / n_c) / sum over the image's positives i of (1 / n_i)        weight = alpha + sigmoid(beta (r - mu))

    How often class-balanced sampling would show the finding, over how often it would show the image. An image without
    a positive is shown by no class: r is infinite and the weight alpha + 1. ``inverse_count_C``: 1 / n_c.

    >>> rebalanced_weight(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0.01, 0.5]))
    tensor([[0.2414, 1.0996],
            [1.1000, 1.1000]])
    """
    inverse_BC = inverse_count_C.to(torch.promote_types(inverse_count_C.dtype, torch.float32))
    shown_B1 = (target_BC.to(inverse_BC.dtype) * inverse_BC).sum(dim=1, keepdim=True)
    # A number, not infinity: beta = 0 times it has to be 0.
    ratio_BC = torch.where(shown_B1 > 0, inverse_BC / torch.where(shown_B1 > 0, shown_B1, 1.0), 1e30)
    return map_alpha + torch.sigmoid(map_beta * (ratio_BC - map_mu))


def negative_tolerant(
    logit_BC: Tensor,
    target_BC: Tensor,
    prior_logit_C: Tensor,
    *,
    gamma: float = 2.0,
    negative_scale: float = 2.0,
    bias_scale: float = 0.05,
) -> Tensor:
    """Negative-tolerant focal loss in nats (Wu et al., ECCV 2020, section 3.2), of distribution-balanced cells.

        z' = z - nu                                     nu = -kappa / lambda log(n / (N - n))
        loss = y focal(z', 1) + (1 - y) / lambda focal(lambda z', 0)

    lambda = ``negative_scale``, kappa = ``bias_scale``, log(n / (N - n)) = ``prior_logit_C``. Negatives are pushed
    down less hard, and less far. The equations are those of the authors' code (`resample_loss.py`), which divides
    kappa by lambda; its constant factor of 2 against the focal loss is left out.

    Limit: lambda = 1, kappa = 0 is exactly ``focal``, with gamma = 0 exactly ``bce``.

    >>> negative_tolerant(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([-2.0, -2.0]), gamma=0.0)
    tensor([[0.7185, 0.3222]])
    """
    z, y = _widen(logit_BC, target_BC)
    z = z + bias_scale / negative_scale * prior_logit_C.to(z.dtype)
    scaled = torch.where(y == 1, z, negative_scale * z)
    return focal(scaled, y, gamma=gamma) * torch.where(y == 1, 1.0, 1 / negative_scale)


def hill(
    logit_BC: Tensor, target_BC: Tensor, *, gamma: float = 2.0, logit_margin: float = 1.0, hill_lambda: float = 1.5
) -> Tensor:
    """Hill loss (Zhang et al., 2021, arXiv:2112.07368), in nats for positives.

        L+ = (1 - q)^gamma log q        q = sigmoid(z - m)        focal margin
        L- = -(lambda - p) p^2                                    Hill
        loss = -(y L+ + (1 - y) L-)

    m = ``logit_margin``, lambda = ``hill_lambda``. At lambda = 3/2 the slope of L- in p is -3 p (1 - p): it rises and
    falls again, so that a confident negative, which may be a missed positive, is let go.

    Limits: positives with m = 0 are exactly those of ``focal``; with gamma = 0 besides, of ``bce``.

    >>> hill(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([[0.7019, 0.2500]])
    """
    z, y = _widen(logit_BC, target_BC)
    shifted = z - logit_margin
    positive = F.logsigmoid(shifted)
    if gamma != 0:
        positive = (gamma * F.logsigmoid(-shifted)).exp() * positive
    p = torch.sigmoid(z)
    return _two_sided(y, positive, -(hill_lambda - p) * p.square())


def robust_asymmetric(
    logit_BC: Tensor,
    target_BC: Tensor,
    *,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    margin: float = 0.05,
    hill_lambda: float = 1.5,
    epsilon_pos: float = 1.0,
    epsilon_pos_pow: float = -2.5,
) -> Tensor:
    """Robust asymmetric loss (Park et al., ICCV 2023 workshop CVAMD, arXiv:2308.05542), as in the authors' code.

        L+ = (1 - p)^gamma_pos (log p + e1 (1 - p) + e2 / 2 (1 - p)^2)
        L- = p_m^gamma_neg log(1 - p_m) (lambda - p) p^2 (lambda - (1 - p_m))
        loss = -(y L+ + (1 - y) L-)

    e1 = ``epsilon_pos`` and e2 = ``epsilon_pos_pow`` change the first two coefficients of the logarithm's series in
    1 - p; lambda = ``hill_lambda``. Negatives with p <= margin have loss 0 and gradient 0, as in ``asymmetric``. The
    code's third coefficient, of negatives, is 0 by default there and left out here.

    Limits: with e1 = e2 = 0 positives are exactly those of ``asymmetric``; negatives are those of ``asymmetric`` times
    (lambda - p) p^2 (lambda - 1 + p_m).

    >>> robust_asymmetric(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), gamma_neg=0.0)
    tensor([[0.5056, 0.1420]])
    """
    z, y = _widen(logit_BC, target_BC)
    p, q = torch.sigmoid(z), torch.sigmoid(-z)
    positive = F.logsigmoid(z) + epsilon_pos * q + epsilon_pos_pow / 2 * q.square()
    if gamma_pos != 0:
        positive = (gamma_pos * F.logsigmoid(-z)).exp() * positive
    negative = _log_one_minus_shifted(z, margin)
    if gamma_neg != 0:
        negative = _shifted_power(z, margin, gamma_neg) * negative
    negative = negative * (hill_lambda - p) * p.square() * (hill_lambda - 1 + (p - margin).clamp(min=0))
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
