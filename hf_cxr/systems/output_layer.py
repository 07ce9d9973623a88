"""The last layer of a model whose findings have outputs of their own: calibration is folded into it."""

import torch
from torch import nn


class OutputLayer(nn.Linear):
    """Logits (B, C) to logits (B, C): the identity until a calibration is folded in. It is not trained.

    Calibration is affine in the logit of each finding, so it fits into one linear layer. Where a model computes each
    finding's logit by layers of its own, this is that one layer; the model starts its own outputs in
    ``start_outputs(bias_C)``, and names the part that has them in ``own_outputs``.

    >>> OutputLayer(2)(torch.tensor([[0.5, -1.0]])).tolist()
    [[0.5, -1.0]]
    """

    def __init__(self, findings: int):
        super().__init__(findings, findings)
        # As buffers they are never trained; transformers gives every parameter that it loads a gradient.
        for name, value in list(self.named_parameters()):
            delattr(self, name)
            self.register_buffer(name, value.detach())
        self.reset()

    def reset(self) -> None:
        """Make it the identity again."""
        with torch.no_grad():
            self.weight.copy_(torch.eye(self.out_features))
            self.bias.zero_()
