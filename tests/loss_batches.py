"""What tests of losses share: random logits with partly unknown labels, and a loss with its gradient."""

import torch

from hf_cxr.losses import LOSSES

# Their cells depend on other cells' labels, so they take no label between 0 and 1.
OF_HARD_LABELS = {name for name, loss in LOSSES.items() if not loss.smoothable}


def random_batch(rows=7, seed=0, unknown=0.3, dtype=torch.float32):
    """Logits and targets of four findings, both (rows, 4); a target is 1, 0 or NaN."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, 4, generator=generator, dtype=dtype)
    targets = (torch.rand(rows, 4, generator=generator) < 0.4).to(dtype)
    return logits, targets.masked_fill(torch.rand(rows, 4, generator=generator) < unknown, torch.nan)


def value_and_gradient(loss, logits, *arguments):
    """The loss of the logits and its gradient by them."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *arguments)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient
