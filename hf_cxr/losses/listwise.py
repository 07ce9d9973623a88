"""List-wise multi-label losses: cells compete with the other cells of their image, or of their finding.

B = images, C = findings. Targets are 1, 0 or NaN; a NaN cell takes part in no sum. Nothing here averages over images:
see the modules. Everything is computed in float32 or wider, and is finite with finite gradients for ``|z|`` up to 1e4.

Throughout: z = logit, y = target, P and N = the known positives and negatives among the cells of an image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEVER = -1e30
"""Stands for the logit of a cell that takes no part: far below any other, and finite, so that the gradient of a sum
without any cell is 0 and not NaN."""


def zlpr(logit_BC: Tensor, target_BC: Tensor) -> Tensor:
    """Zero-bounded log-sum-exp and pairwise rank-based loss (Su et al., 2022, arXiv:2208.02955): (B,).

        loss = log(1 + sum over N of exp(z)) + log(1 + sum over P of exp(-z))

    In nats. Every positive is ranked above every negative, and 0 between them. An image without a known cell has loss
    0 and gradient 0.

    Limit: with a single finding it is exactly ``elementwise.bce``.

    >>> zlpr(torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, torch.nan]]))
    tensor([0.4402])
    """
    z = _widened(logit_BC)
    negatives_B = torch.logsumexp(torch.where(target_BC == 0, z, NEVER), dim=1)
    positives_B = torch.logsumexp(torch.where(target_BC == 1, -z, NEVER), dim=1)
    return _softplus(negatives_B) + _softplus(positives_B)


def two_way(
    logit_BC: Tensor, target_BC: Tensor, dim: int, *, temperature_pos: float = 4.0, temperature_neg: float = 1.0
) -> Tensor:
    """One of the two ways of the two-way loss (Kobayashi, CVPR 2023), (B,) or (C,).

        loss = softplus(Tn log(sum over N of exp(z / Tn)) + Tp log(sum over P of exp(-z / Tp)))

    ``dim=1`` sums over the findings of each image (sample-wise), ``dim=0`` over the images of each finding
    (class-wise). Where positives or negatives are missing the loss and its gradient are 0. A shift of all logits of
    the list changes nothing: the loss ranks, it does not say where 0 is.

    >>> logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, torch.nan]])
    >>> two_way(logits, targets, dim=1)  # softplus(-1 - 2)
    tensor([0.0486])
    """
    z = _widened(logit_BC)
    negatives = torch.logsumexp(torch.where(target_BC == 0, z / temperature_neg, NEVER), dim=dim)
    positives = torch.logsumexp(torch.where(target_BC == 1, -z / temperature_pos, NEVER), dim=dim)
    return _softplus(temperature_neg * negatives + temperature_pos * positives)


def _widened(logit_BC: Tensor) -> Tensor:
    return logit_BC.to(torch.promote_types(logit_BC.dtype, torch.float32))


def _softplus(x: Tensor) -> Tensor:
    return -F.logsigmoid(-x)  # torch's softplus is the identity above 20
