"""The losses as modules: each validates its options once and names its element-wise function; and the table of all.

Element-wise losses take ``class_weights``, (C,) or None, ready made: ``weights.class_weights`` computes them from
training counts, and ``build_loss`` does both. Some take the counts themselves: ``positives`` and ``known``, (C,),
positive and known training cells of each finding; a finding without any positive counts as if it had one.
``label_names``, if given, are the findings' names in warnings.

Refused: options out of their range.

B = images, C = findings, R = distinct label rows.
"""

import math
import warnings

import torch
from torch import Tensor

from hf_cxr.losses import elementwise
from hf_cxr.losses.listwise import TwoWayLoss, WeightedCrossEntropyLoss, ZLPRLoss
from hf_cxr.losses.ranges import check_above_zero, check_at_least_zero, check_hill_lambda, check_margin
from hf_cxr.losses.reduction import NO_INFORMATION_FLOOR, MultiLabelLoss, minimise
from hf_cxr.losses.weights import at_least_one_positive, checked_counts, named


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
        check_at_least_zero(gamma=gamma)
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
        check_at_least_zero(gamma_pos=gamma_pos, gamma_neg=gamma_neg)
        check_margin(margin)
        super().__init__(
            class_weights=class_weights, gamma_pos=float(gamma_pos), gamma_neg=float(gamma_neg), margin=float(margin)
        )

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.asymmetric(logit_BC, target_BC, **self.options)


class ClassAwareLoss(MultiLabelLoss):
    """Class-aware loss, see ``elementwise.class_aware``.

    Args:
        prevalence: (C,) in [0, 1], positives over known cells of the training data.
        class_weights: (C,) or None. ``build_loss`` gives "sqrt_inverse" by default.
        margin: in [0, 1); negatives with p <= margin are dropped.
        decoupled: negatives are weighted with base 1 - alpha; if False with alpha, like positives.

    Warns:
        UserWarning: a prevalence of exactly 0 or 1 leaves a side of that finding without gradient.
    """

    name = "class_aware"
    default_class_weights = "sqrt_inverse"

    def __init__(self, prevalence, class_weights=None, margin: float = 0.2, decoupled: bool = True, label_names=None):
        check_margin(margin)
        if not isinstance(decoupled, bool):
            raise ValueError(f"decoupled must be true or false; got {decoupled!r}")
        super().__init__(class_weights=class_weights, prevalence=prevalence, margin=float(margin), decoupled=decoupled)
        self._warn_of_silent_cells(label_names)

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.class_aware(logit_BC, target_BC, self.prevalence_C, **self.options)

    def _warn_of_silent_cells(self, label_names) -> None:
        ones = "positives get" if self.options["decoupled"] else "positives and negatives get"
        silent = {1.0: ones}
        if self.options["decoupled"]:
            silent[0.0] = "negatives get"
        for alpha, cells in silent.items():
            indices = (self.prevalence_C == alpha).nonzero().flatten().numpy()
            if indices.size:
                where = named(indices, label_names)
                warnings.warn(
                    f"prevalence is {alpha:g} {where}: there the class-aware loss's {cells} no gradient", stacklevel=3
                )


class ClassBalancedLoss(BinaryCrossEntropyLoss):
    """Class-balanced cross-entropy (Cui et al., CVPR 2019): ``bce`` with ``weights.effective_number`` by default."""

    name = "class_balanced"
    default_class_weights = "effective_number"


class ClassBalancedFocalLoss(FocalLoss):
    """Class-balanced focal loss (Cui et al., CVPR 2019): ``focal`` with ``weights.effective_number`` by default."""

    name = "class_balanced_focal"
    default_class_weights = "effective_number"


class PosWeightedLoss(MultiLabelLoss):
    """Cross-entropy with negatives over positives as the weight of positives, see ``elementwise.pos_weighted``.

    Args:
        positives, known: (C,) training counts.
        pos_weight_cap: None, or the largest weight, above 0: 600 negatives for a positive make its gradient loud.
    """

    name = "pos_weighted"
    statistics = ("pos_weight",)

    def __init__(self, positives, known, class_weights=None, pos_weight_cap: float | None = None, label_names=None):
        if pos_weight_cap is not None:
            check_above_zero(pos_weight_cap=pos_weight_cap)
        super().__init__(
            class_weights=class_weights, pos_weight_cap=None if pos_weight_cap is None else float(pos_weight_cap)
        )
        positives_C, known_C = at_least_one_positive(*checked_counts(positives, known), label_names)
        # At least one negative too: a weight of 0 would silence a finding that is always there.
        weight_C = torch.as_tensor(known_C - positives_C).clamp(min=1) / torch.as_tensor(positives_C)
        cap = math.inf if pos_weight_cap is None else pos_weight_cap
        self.register_buffer("pos_weight_C", weight_C.clamp(max=cap).to(torch.float32))
        self._check_lengths()

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.pos_weighted(logit_BC, target_BC, self.pos_weight_C)


class LogitAdjustedLoss(MultiLabelLoss):
    """Logit-adjusted cross-entropy (Menon et al., ICLR 2021), see ``elementwise.logit_adjusted``.

    Args:
        prevalence: (C,) in [0, 1]; taken as 1e-6 from 0 and 1 if it is nearer.
        tau: >= 0, share of the prior log odds; 0 is cross-entropy.
    """

    name = "logit_adjusted"

    def __init__(self, prevalence, class_weights=None, tau: float = 1.0):
        check_at_least_zero(tau=tau)
        super().__init__(class_weights=class_weights, prevalence=prevalence, tau=float(tau))

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        prevalence_C = self.prevalence_C.clamp(NO_INFORMATION_FLOOR, 1 - NO_INFORMATION_FLOOR)
        return elementwise.logit_adjusted(logit_BC, target_BC, prevalence_C, **self.options)


class LDAMLoss(MultiLabelLoss):
    """Label-distribution-aware margin loss (Cao et al., NeurIPS 2019), see ``elementwise.ldam``.

    Its class weights are the effective number by default; the paper lets them act late in training only, see
    ``set_reweighting``.

    Args:
        positives, known: (C,) training counts; margins are proportional to positives^(-1/4).
        max_margin: >= 0, in logits: the margin of the rarest finding. The authors' is 0.5.
        logit_scale: above 0. The authors' 30 goes with logits that are cosines.
    """

    name = "ldam"
    default_class_weights = "effective_number"
    statistics = ("margin",)

    def __init__(
        self,
        positives,
        known,
        class_weights=None,
        max_margin: float = 0.5,
        logit_scale: float = 1.0,
        label_names=None,
    ):
        check_at_least_zero(max_margin=max_margin)
        check_above_zero(logit_scale=logit_scale)
        super().__init__(class_weights=class_weights, max_margin=float(max_margin), logit_scale=float(logit_scale))
        positives_C, _ = at_least_one_positive(*checked_counts(positives, known), label_names)
        margin_C = torch.as_tensor(positives_C) ** -0.25
        self.register_buffer("margin_C", (max_margin * margin_C / margin_C.max()).to(torch.float32))
        self._check_lengths()

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.ldam(logit_BC, target_BC, self.margin_C, logit_scale=self.options["logit_scale"])


class DistributionBalancedLoss(MultiLabelLoss):
    """Distribution-balanced focal loss (Wu et al., ECCV 2020): ``rebalanced_weight`` times ``negative_tolerant``.

    The weight of a cell depends on the known positives of its image. Defaults are the authors' for COCO.

    Args:
        positives, known: (C,) training counts.
        gamma: >= 0, focusing; 0 leaves the focal factor out.
        map_alpha: >= 0, the least weight of a cell.
        map_beta: >= 0, slope of the sigmoid that maps how rare a finding is in its image to the cell's weight.
        map_mu: >= 0, middle of that sigmoid.
        negative_scale: lambda, above 0: tolerance to negatives.
        bias_scale: kappa, >= 0: share of the prior log odds in the logit.
    """

    name = "distribution_balanced"
    statistics = ("count", "prior_logit")
    smoothable = False
    needs_label_rows = True

    def __init__(
        self,
        positives,
        known,
        class_weights=None,
        gamma: float = 2.0,
        map_alpha: float = 0.1,
        map_beta: float = 10.0,
        map_mu: float = 0.2,
        negative_scale: float = 2.0,
        bias_scale: float = 0.05,
        label_names=None,
    ):
        options = {"gamma": gamma, "map_alpha": map_alpha, "map_beta": map_beta, "map_mu": map_mu}
        check_at_least_zero(**options, bias_scale=bias_scale)
        check_above_zero(negative_scale=negative_scale)
        options |= {"negative_scale": negative_scale, "bias_scale": bias_scale}
        super().__init__(class_weights=class_weights, **{name: float(value) for name, value in options.items()})
        counted = checked_counts(positives, known)
        positives_C, known_C = map(torch.as_tensor, at_least_one_positive(*counted, label_names))
        prior_C = (positives_C / known_C).clamp(NO_INFORMATION_FLOOR, 1 - NO_INFORMATION_FLOOR)
        prior_C[torch.as_tensor(counted[1]) == 0] = 0.5  # nothing is known of these findings
        self.register_buffer("count_C", positives_C.to(torch.float32))
        self.register_buffer("prior_logit_C", prior_C.logit().to(torch.float32))
        self._check_lengths()

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return self._weight(target_BC) * self._cells(logit_BC, target_BC)

    def _weight(self, target_BC: Tensor) -> Tensor:
        mapping = {name: self.options[name] for name in ("map_alpha", "map_beta", "map_mu")}
        return elementwise.rebalanced_weight(target_BC, 1 / self.count_C, **mapping)

    def _cells(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        options = {name: self.options[name] for name in ("gamma", "negative_scale", "bias_scale")}
        return elementwise.negative_tolerant(logit_BC, target_BC, self.prior_logit_C, **options)

    def _find_optimum(self, alpha_C: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        # The weights do not depend on the logit: their mean over the training images' positives, and over their
        # negatives, is all that the search has to know.
        row_RC, share_R = rows
        share_RC = share_R[:, None] * self._weight(row_RC.nan_to_num(nan=0.0))
        mean_C = {}
        for label in (0, 1):
            cells_RC = (row_RC == label).to(torch.float64)
            images_C = (share_R[:, None] * cells_RC).sum(0)
            mean_C[label] = torch.where(images_C > 0, (share_RC * cells_RC).sum(0) / images_C, 1.0)

        def expected_loss(z_KC: Tensor) -> Tensor:
            positive = mean_C[1] * self._cells(z_KC, torch.ones_like(z_KC))
            return alpha_C * positive + (1 - alpha_C) * mean_C[0] * self._cells(z_KC, torch.zeros_like(z_KC))

        with torch.no_grad():
            return minimise(expected_loss, len(alpha_C))


class HillLoss(MultiLabelLoss):
    """Hill loss with focal margin for positives (Zhang et al., 2021), see ``elementwise.hill``.

    Args:
        gamma: >= 0, focusing of positives.
        logit_margin: >= 0, subtracted from the logit of positives. The authors recommend 0.5 to 1.
        hill_lambda: >= 1; below it, a certain negative would have a loss below 0, and at 1 it has none, so that to
            call everything positive costs nothing. The authors' is 1.5 throughout.
    """

    name = "hill"

    def __init__(self, gamma: float = 2.0, logit_margin: float = 1.0, hill_lambda: float = 1.5, class_weights=None):
        check_at_least_zero(gamma=gamma, logit_margin=logit_margin)
        check_hill_lambda(hill_lambda)
        super().__init__(
            class_weights=class_weights,
            gamma=float(gamma),
            logit_margin=float(logit_margin),
            hill_lambda=float(hill_lambda),
        )

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.hill(logit_BC, target_BC, **self.options)


class RobustAsymmetricLoss(MultiLabelLoss):
    """Robust asymmetric loss (Park et al., ICCV 2023 workshops), see ``elementwise.robust_asymmetric``.

    Args:
        gamma_pos: >= 0, focusing of positives.
        gamma_neg: >= 0, focusing of negatives.
        margin: in [0, 1); negatives with p <= margin are dropped.
        hill_lambda: >= 1.
        epsilon_pos: finite; added to the first coefficient of the positives' series.
        epsilon_pos_pow: finite; added to the second.
    """

    name = "robust_asymmetric"

    def __init__(
        self,
        gamma_pos: float = 0.0,
        gamma_neg: float = 4.0,
        margin: float = 0.05,
        hill_lambda: float = 1.5,
        epsilon_pos: float = 1.0,
        epsilon_pos_pow: float = -2.5,
        class_weights=None,
    ):
        check_at_least_zero(gamma_pos=gamma_pos, gamma_neg=gamma_neg)
        check_margin(margin)
        check_hill_lambda(hill_lambda)
        for name, value in (("epsilon_pos", epsilon_pos), ("epsilon_pos_pow", epsilon_pos_pow)):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite; got {value}")
        super().__init__(
            class_weights=class_weights,
            gamma_pos=float(gamma_pos),
            gamma_neg=float(gamma_neg),
            margin=float(margin),
            hill_lambda=float(hill_lambda),
            epsilon_pos=float(epsilon_pos),
            epsilon_pos_pow=float(epsilon_pos_pow),
        )

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        return elementwise.robust_asymmetric(logit_BC, target_BC, **self.options)


LOSSES = {
    "bce": BinaryCrossEntropyLoss,
    "focal": FocalLoss,
    "asymmetric": AsymmetricLoss,
    "class_aware": ClassAwareLoss,
    "pos_weighted": PosWeightedLoss,
    "class_balanced": ClassBalancedLoss,
    "class_balanced_focal": ClassBalancedFocalLoss,
    "ldam": LDAMLoss,
    "distribution_balanced": DistributionBalancedLoss,
    "robust_asymmetric": RobustAsymmetricLoss,
    "hill": HillLoss,
    "logit_adjusted": LogitAdjustedLoss,
    "two_way": TwoWayLoss,
    "w_cel": WeightedCrossEntropyLoss,
    "zlpr": ZLPRLoss,
}
"""Name, as in configs and on the command line -> loss."""
