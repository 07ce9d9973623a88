"""Learning rates that differ between the layers of a model: layer by layer, the head's own, the head first.

    rate of a parameter = learning_rate * layer_decay ** (greatest depth - its depth)

with the depths of `models.depths`: the final norm has the full rate, the last block layer_decay times it, the patch
embedding the least. The head has ``head_learning_rate``, or learning_rate. The schedule multiplies each rate by the
same factor, a warm-up and a smallest rate included, except that the backbone's factor is 0 in the first
``freeze_backbone_epochs``.

Source: ELECTRA (Clark, Luong, Le and Manning, ICLR 2020) and BEiT (Bao, Dong, Piao and Wei, ICLR 2022) for the decay;
for the head before the backbone, Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification",
ACL 2018, section 3.3.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel

from hf_cxr.models.depths import depth_of_parameters, head_names


@dataclass(frozen=True)
class LayerRates:
    """How the learning rates differ; pass it to `CXRTrainer` as ``rates``.

    Args:
        layer_decay: factor from a layer to the one below it, above 0, at most 1; 1 is the same rate for all.
        head_learning_rate: of the head; None is the backbone's learning_rate.
        freeze_backbone_epochs: epochs at the start in which the head alone is trained. The backbone's rate is 0, so
            that its weights stay to the bit; its gradients are computed, and Adam's running means of them are kept.
    """

    layer_decay: float = 1.0
    head_learning_rate: float | None = None
    freeze_backbone_epochs: int = 0

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model whose layers cannot have rates of their own; it may be on the meta device.

        Raises:
            ValueError: as `groups`.
        """
        self._depths(model)

    def groups(
        self, model: PreTrainedModel, decayed: Collection[str], *, learning_rate: float, weight_decay: float
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer, the head's first, so that its rate is the one that the Trainer logs.

        Args:
            model: its parameters without gradient are left out.
            decayed: names of the parameters with weight decay.
            learning_rate: of the top of the backbone.
            weight_decay: of ``decayed``; the rest has none.

        Returns:
            Dictionaries with ``params``, ``lr``, ``weight_decay``, as torch's optimizers take them, and ``is_head``.

        Raises:
            ValueError: layers have different rates, and the model has no list of layers.
        """
        heads = head_names(model)
        depths = self._depths(model)
        top = max(depths.values(), default=0)
        members: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                key = (name in heads, depths.get(name, top), name in decayed)
                members.setdefault(key, []).append(parameter)
        return [
            {
                "params": members[is_head, depth, decays],
                "lr": self._rate(learning_rate, top - depth, is_head=is_head),
                "weight_decay": weight_decay if decays else 0.0,
                "is_head": is_head,
            }
            for is_head, depth, decays in sorted(members, reverse=True)
        ]

    def scheduled(
        self, scheduler: LRScheduler, optimizer: Optimizer, *, steps_in_epoch: int, steps: int
    ) -> LRScheduler:
        """The schedule, with the backbone's rates 0 in the first epochs.

        Args:
            scheduler: of ``optimizer``, whose groups are those of `groups`, before the first step.
            optimizer: whose rates it sets.
            steps_in_epoch, steps: optimizer steps of an epoch, and of the run.

        Raises:
            ValueError: the run ends before the backbone is trained.
        """
        if not self.freeze_backbone_epochs:
            return scheduler
        frozen = self.freeze_backbone_epochs * steps_in_epoch
        if frozen >= steps:
            raise ValueError(
                f"freeze_backbone_epochs is {self.freeze_backbone_epochs}, that is {frozen} steps, and the run has "
                f"{steps}: the backbone would never be trained; lower it, or train longer"
            )
        factors = [
            factor if group["is_head"] else partial(_held_back, factor, frozen)
            for factor, group in zip(scheduler.lr_lambdas, optimizer.param_groups, strict=True)
        ]
        return LambdaLR(optimizer, factors)

    def _depths(self, model: PreTrainedModel) -> dict[str, int]:
        return {} if self.layer_decay == 1 else depth_of_parameters(model)

    def _rate(self, learning_rate: float, layers_above: int, *, is_head: bool) -> float:
        if is_head and self.head_learning_rate is not None:
            return self.head_learning_rate
        return learning_rate * self.layer_decay**layers_above


def _held_back(factor: Callable[[int], float], steps: int, step: int) -> float:
    """The factor of the schedule from ``steps`` on, and 0 before."""
    return 0.0 if step < steps else factor(step)
