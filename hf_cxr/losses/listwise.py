"""List-wise multi-label losses: cells act on the other cells of their image, of their finding, or of the batch.

B = images, C = findings, R = distinct label rows. Targets are 1, 0 or NaN; a NaN cell takes part in no sum. The
functions do not average over images; the classes below them do. Class weights are refused: the papers have none.
Everything is computed in float32 or wider, and is finite with finite gradients for ``|z|`` up to 1e4.

Throughout: z = logit, y = target, P and N = the known positives and negatives among the cells of an image.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_cxr.losses.ranges import check_above_zero
from hf_cxr.losses.reduction import NO_INFORMATION_FLOOR, MultiLabelLoss, known_rows, known_rows_mean

RIDGE = 1e-6
"""Curvature that keeps a list-wise loss's no-information logits near the log odds where the loss does not care."""

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


def w_cel(logit_BC: Tensor, target_BC: Tensor) -> Tensor:
    """Weighted cross-entropy of a batch (Wang et al., *ChestX-ray8*, CVPR 2017, equation 1), a scalar in nats.

        loss = beta_P sum over P of -log p + beta_N sum over N of -log(1 - p),
        beta_P = (|P| + |N|) / |P|,    beta_N = (|P| + |N|) / |N|

    P and N are the known positives and negatives of the whole batch, all findings together. Divided by their number,
    as every loss here is, that is the mean of -log p over P plus the mean of -log(1 - p) over N: both sides weigh the
    same, however few positives there are. A side without a cell adds 0, so a batch without positives has the
    cross-entropy of its negatives.

    Limit: with as many positives as negatives it is twice ``elementwise.bce``'s mean.

    >>> w_cel(torch.tensor([[0.0, 0.0, 2.0, 5.0]]), torch.tensor([[1.0, 0.0, 0.0, torch.nan]]))
    tensor(2.1032)
    """
    z = _widened(logit_BC)
    known_BC = ~target_BC.isnan()
    positive_BC = torch.where(known_BC, target_BC, 0.0).to(z.dtype)
    negative_BC = torch.where(known_BC, 1 - target_BC, 0.0).to(z.dtype)
    return _mean_of(-F.logsigmoid(z), positive_BC) + _mean_of(-F.logsigmoid(-z), negative_BC)


def _mean_of(loss_BC: Tensor, chosen_BC: Tensor) -> Tensor:
    """The mean over the cells that are 1 in ``chosen_BC`` and not 0; 0, with a gradient of 0, without any."""
    count = chosen_BC.sum()
    return (chosen_BC * loss_BC).sum() / torch.where(count > 0, count, 1.0)


def _widened(logit_BC: Tensor) -> Tensor:
    return logit_BC.to(torch.promote_types(logit_BC.dtype, torch.float32))


def _softplus(x: Tensor) -> Tensor:
    return -F.logsigmoid(-x)  # torch's softplus is the identity above 20


class _ListwiseLoss(MultiLabelLoss):
    smoothable = False
    needs_label_rows = True

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        raise NotImplementedError(f"{self.name} has no loss of one cell: it depends on the labels of other cells")

    def _rows(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        """The loss of each image, (B,), for `_find_optimum`."""
        raise NotImplementedError(f"{type(self).__name__} has to define _rows(logit_BC, target_BC)")

    def _find_optimum(self, alpha_C: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        # One logit a finding, the same for all images. zlpr and two_way are convex; the ridge settles what they leave
        # open: the common shift that two_way does not see, and findings without a positive.
        row_RC, share_R = rows
        prior_C = alpha_C.logit()
        z_C = prior_C.clone().requires_grad_()
        search = torch.optim.LBFGS(
            [z_C], max_iter=1000, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def mean_loss() -> Tensor:
            search.zero_grad()
            loss = (share_R * self._rows(z_C.expand_as(row_RC), row_RC)).sum()
            loss = loss + RIDGE / 2 * (z_C - prior_C).square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            search.step(mean_loss)
        return z_C.detach()


class ZLPRLoss(_ListwiseLoss):
    """ZLPR (Su et al., 2022), see `zlpr`: the mean over images with at least one known cell."""

    name = "zlpr"

    def __init__(self):
        super().__init__()

    def forward(self, logits: Tensor, targets: Tensor, num_items: Tensor | float | None = None) -> Tensor:
        """The mean over images with a known cell; ``num_items`` counts such images."""
        self._check_shapes(logits, targets)
        return known_rows_mean(self._rows(logits, targets), targets, num_items)

    def count_items(self, targets: Tensor) -> Tensor:
        """What the loss is a mean of: the number of images with a known cell, a float32 scalar."""
        return known_rows(targets).sum().to(torch.float32)

    def _rows(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return zlpr(logit_BC, target_BC)


class TwoWayLoss(_ListwiseLoss):
    """Two-way loss (Kobayashi, CVPR 2023), see `two_way`: sample-wise mean plus class-wise mean.

    The first mean is over the images of the batch with a known positive, the second over the findings with one. The
    second compares the images of a batch with one another, so its value depends on the batch's size, its gradient on
    how an optimizer step is cut up, and a rare finding that has no positive in a batch gets no gradient from it: the
    Trainer refuses accumulation and several processes. An image without a finding takes part class-wise only. The loss
    does not see a shift of all logits: calibration finds it.

    Args:
        temperature_pos: of positives, above 0. The authors' is 4.
        temperature_neg: of negatives, above 0. The authors' is 1.
    """

    name = "two_way"
    additive = False

    def __init__(self, temperature_pos: float = 4.0, temperature_neg: float = 1.0):
        check_above_zero(temperature_pos=temperature_pos, temperature_neg=temperature_neg)
        super().__init__(temperature_pos=float(temperature_pos), temperature_neg=float(temperature_neg))

    def forward(self, logits: Tensor, targets: Tensor, num_items: Tensor | float | None = None) -> Tensor:
        """The loss of the batch; ``num_items`` is not read, see ``additive``."""
        self._check_shapes(logits, targets)
        total = 0.0
        for dim in (1, 0):
            loss = two_way(logits, targets, dim, **self.options)
            counted = (targets == 1).any(dim=dim)
            total = total + torch.where(counted, loss, 0.0).sum() / counted.sum().clamp(min=1).to(loss.dtype)
        return total

    def _rows(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        # Class-wise, a logit that is the same for all images cancels. Without a positive the sample-wise loss is 0.
        return two_way(logit_BC, target_BC, 1, **self.options)


class WeightedCrossEntropyLoss(_ListwiseLoss):
    """Cross-entropy whose positives and negatives weigh the same in each batch (Wang et al., CVPR 2017), see `w_cel`.

    The weights are counted in the batch, so its gradient depends on how an optimizer step is cut up: the Trainer
    refuses accumulation and several processes. In a small batch of rare findings they change from step to step by the
    number of positives that happen to be in it. ``pos_weighted`` has a weight for each finding, from training counts.
    """

    name = "w_cel"
    additive = False

    def __init__(self):
        super().__init__()

    def forward(self, logits: Tensor, targets: Tensor, num_items: Tensor | float | None = None) -> Tensor:
        """The loss of the batch; ``num_items`` is not read, see ``additive``."""
        self._check_shapes(logits, targets)
        return w_cel(logits, targets)

    def _find_optimum(self, alpha_C: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        # Of a batch with the training images' share of positives. A finding's own odds are then divided by the odds
        # of all findings together, because the weights are shared.
        row_RC, share_R = rows
        positives = (share_R[:, None] * (row_RC == 1)).sum()
        negatives = (share_R[:, None] * (row_RC == 0)).sum()
        share = (positives / (positives + negatives).clamp(min=torch.finfo(positives.dtype).tiny)).nan_to_num(nan=0.5)
        return alpha_C.logit() - share.clamp(NO_INFORMATION_FLOOR, 1 - NO_INFORMATION_FLOOR).logit()
