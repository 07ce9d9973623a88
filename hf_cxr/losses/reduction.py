"""From a loss per cell to one number: masking of unknown cells, class weights, the mean, and where it all starts.

B = images, C = findings, K = points of a search grid. A target cell is 1, 0 or NaN; a NaN cell takes no part, neither
in the value nor in the gradient. This is the only place that averages.

Refused: logits and targets of different shapes, and a number of findings other than the one of the class weights.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NO_INFORMATION_FLOOR = 1e-6
"""Prevalences are kept this far from 0 and 1 in the search for the no-information logits. It is below the smallest
prevalence that a million images can show, so it changes no measured one, and its log odds, -13.8, lie well inside the
search interval: the starting bias of a finding without positives is strongly negative for BCE, but can be unlearnt."""

SEARCH_LIMIT = 20.0
"""The no-information logits are searched in [-20, 20]; sigmoid(-20) is 2e-9."""


def count_known_cells(target_BC: Tensor) -> Tensor:
    """The number of known (non-NaN) cells, a float32 scalar tensor on the targets' device.

    >>> count_known_cells(torch.tensor([[1.0, torch.nan], [0.0, 0.0]]))
    tensor(3.)
    """
    return (~target_BC.isnan()).sum().to(torch.float32)


def masked_mean(
    loss_BC: Tensor,
    target_BC: Tensor,
    class_weights_C: Tensor | None = None,
    known_cells: Tensor | float | None = None,
) -> Tensor:
    """Mean of ``w_c * loss`` over the known cells, a scalar of the dtype of the loss.

    Args:
        loss_BC: finite everywhere, unknown cells included: there its value is dropped and its gradient is 0.
        target_BC: NaN marks the unknown cells; other values are not read.
        class_weights_C: w_c; None is 1 for all.
        known_cells: divide the sum by this number instead of the batch's own count. With the count of the whole
            optimizer step, the losses of its micro-batches add up to the loss of the undivided batch, however the
            unknown cells fall. A scalar tensor spares torch.compile a new graph for every number.

    Without known cells the result is 0, with a gradient of 0, still attached to the graph.

    >>> loss, target = torch.tensor([[1.0, 2.0, 30.0]]), torch.tensor([[1.0, 0.0, torch.nan]])
    >>> masked_mean(loss, target)
    tensor(1.5000)
    >>> masked_mean(loss, target, class_weights_C=torch.tensor([2.0, 0.5, 0.5]), known_cells=6)
    tensor(0.5000)
    """
    known_BC = ~target_BC.isnan()
    if class_weights_C is not None:
        loss_BC = loss_BC * class_weights_C.to(loss_BC.dtype)
    total = torch.where(known_BC, loss_BC, 0.0).sum()
    count = known_BC.sum() if known_cells is None else known_cells
    # Neither branch moves data between devices: that would wait. A scalar on the CPU divides one on a device as it is.
    count = count.to(total.dtype) if isinstance(count, Tensor) else total.new_full((), count)
    return total / torch.where(count > 0, count, 1.0)


class MultiLabelLoss(torch.nn.Module):
    """A multi-label loss: ``loss(logits, targets) -> scalar``. Subclasses name an element-wise function.

    Args:
        class_weights: (C,) finite, not negative; used as they are. None weighs all findings alike.
        prevalence: (C,) in [0, 1], for losses that depend on it.
        **options: numbers and switches that a subclass hands to its element-wise function.

    Both arrays become float32 buffers, ``class_weights_C`` and ``prevalence_C``: they follow the module from device to
    device and travel in its state. ``forward`` never waits for the device.
    """

    name: str = "multi_label"
    default_class_weights: str = "none"

    def __init__(self, *, class_weights=None, prevalence=None, **options):
        super().__init__()
        self.options = options
        self.class_weights_kind = "none" if class_weights is None else "given"
        self.reweighting = True
        self.register_buffer("class_weights_C", _buffer("class_weights", class_weights, upper=float("inf")))
        self.register_buffer("prevalence_C", _buffer("prevalence", prevalence, upper=1.0))
        if class_weights is not None and prevalence is not None and len(self.class_weights_C) != len(prevalence):
            raise ValueError(f"{len(self.class_weights_C)} class weights for {len(prevalence)} prevalences")

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        """Loss per cell, in nats; finite for targets 0 and 1."""
        raise NotImplementedError(f"{type(self).__name__} has to define elementwise(logit_BC, target_BC)")

    def forward(self, logits: Tensor, targets: Tensor, known_cells: Tensor | float | None = None) -> Tensor:
        """The mean over known cells; see ``masked_mean`` for ``known_cells``.

        Args:
            logits: (B, C), any float dtype.
            targets: (B, C) in {0, 1, NaN}.
        """
        self._check_shapes(logits, targets)
        # A NaN that enters the element-wise function leaves it as a NaN gradient, even if its loss is dropped after.
        filled = torch.where(targets.isnan(), 0.0, targets)
        weights_C = self.class_weights_C if self.reweighting else None
        return masked_mean(self.elementwise(logits, filled), targets, weights_C, known_cells)

    def set_reweighting(self, active: bool) -> None:
        """Whether the class weights act (as from the start) or every finding weighs 1; for deferred re-weighting."""
        self.reweighting = active

    def no_information_logits(self, prevalence_C: Sequence[float] | Tensor) -> Tensor:
        """Where each finding's logit settles if the image says nothing: a head's bias should start there.

        For every finding, the z in [-20, 20] that minimises ``alpha * loss(z, 1) + (1 - alpha) * loss(z, 0)``, found
        by search on the loss itself, in float64 on the CPU. For BCE that is the log odds of the prevalence. Of equal
        minima the one nearest to 0 counts, the negative one of a pair.

        A prevalence within 1e-6 of 0 or 1 is taken as 1e-6 from it, see ``NO_INFORMATION_FLOOR``; NaN (no known cell)
        as 0.5. The loss's own prevalence is treated likewise during the search: otherwise a finding without
        positives, whose negatives then weigh nothing, would start at probability 1.

        Args:
            prevalence_C: positives over known cells of each finding, in [0, 1] or NaN.

        Returns:
            float64 tensor (C,), finite.
        """
        alpha_C = torch.as_tensor(prevalence_C, dtype=torch.float64, device="cpu").detach()
        if alpha_C.ndim != 1 or ((alpha_C < 0) | (alpha_C > 1)).any():
            raise ValueError(f"prevalences must have shape (C,) and lie in [0, 1] or be NaN; got {alpha_C.tolist()}")
        self._check_findings(len(alpha_C))
        loss = copy.deepcopy(self).to(device="cpu", dtype=torch.float64)  # the device may have no float64
        if loss.prevalence_C is not None:
            loss.prevalence_C = _away_from_certainty(loss.prevalence_C)
        alpha_C = _away_from_certainty(alpha_C)

        def expected_loss(z_KC: Tensor) -> Tensor:
            positive = loss.elementwise(z_KC, torch.ones_like(z_KC))
            return alpha_C * positive + (1 - alpha_C) * loss.elementwise(z_KC, torch.zeros_like(z_KC))

        with torch.no_grad():
            return _minimise(expected_loss, len(alpha_C))

    def describe(self) -> dict:
        """What this loss is, in plain JSON values: for the run folder and the model card."""
        return {
            "name": self.name,
            "options": dict(self.options),
            "class_weights_kind": self.class_weights_kind,
            "class_weights": _rounded(self.class_weights_C),
            "prevalence": _rounded(self.prevalence_C),
        }

    def extra_repr(self) -> str:
        parts = [f"{option}={value!r}" for option, value in self.options.items()]
        parts.append(f"class_weights={self.class_weights_kind}")
        if self._num_findings() is not None:
            parts.append(f"findings={self._num_findings()}")
        return ", ".join(parts)

    def _num_findings(self) -> int | None:
        sized = self.class_weights_C if self.class_weights_C is not None else self.prevalence_C
        return None if sized is None else sized.shape[0]

    def _check_shapes(self, logits: Tensor, targets: Tensor) -> None:
        if logits.shape != targets.shape or logits.ndim != 2:
            raise ValueError(
                "logits and targets must have the same shape (images, findings); "
                f"got logits {tuple(logits.shape)} and targets {tuple(targets.shape)}"
            )
        self._check_findings(logits.shape[1])

    def _check_findings(self, num_findings: int) -> None:
        expected = self._num_findings()
        if expected is not None and num_findings != expected:
            raise ValueError(f"this {type(self).__name__} was built for {expected} findings; got {num_findings}")


def _buffer(name: str, values, *, upper: float) -> Tensor | None:
    if values is None:
        return None
    values_C = torch.as_tensor(values, dtype=torch.float32).detach().clone()
    if values_C.ndim != 1 or values_C.numel() == 0:
        raise ValueError(f"{name} must have shape (C,), one for each finding; got {tuple(values_C.shape)}")
    bad = ~values_C.isfinite() | (values_C < 0) | (values_C > upper)
    if bad.any():
        indices = ", ".join(str(index) for index in bad.nonzero().flatten().tolist())
        limits = "in [0, 1]" if upper == 1.0 else "not negative"
        raise ValueError(f"{name} must be finite and {limits}; not so at index {indices}")
    return values_C


def _away_from_certainty(alpha_C: Tensor) -> Tensor:
    return alpha_C.nan_to_num(nan=0.5).clamp(NO_INFORMATION_FLOOR, 1 - NO_INFORMATION_FLOOR)


def _rounded(values_C: Tensor | None) -> list[float] | None:
    return None if values_C is None else [round(value, 6) for value in values_C.tolist()]


def _minimise(objective: Callable[[Tensor], Tensor], num_findings: int) -> Tensor:
    """For every column the z in [-20, 20] of least ``objective(z_KC) -> (K, C)``, to about 1e-7.

    A grid over the whole interval, then finer grids around its best point. The loss may have several minima, so a
    descent from one point would not do.
    """
    step = 0.01
    grid_K = torch.arange(-round(SEARCH_LIMIT / step), round(SEARCH_LIMIT / step) + 1, dtype=torch.float64) * step
    # The tolerance lets two equal minima tie in spite of rounding; on finer grids it would only blur the minimum.
    best_C = _best(objective, grid_K[:, None].expand(-1, num_findings).contiguous(), tolerance=1e-12)
    while step > 1e-8:
        step /= 100
        offset_K = torch.arange(-100, 101, dtype=torch.float64) * step
        z_KC = (best_C + offset_K[:, None]).clamp(-SEARCH_LIMIT, SEARCH_LIMIT)
        best_C = _best(objective, z_KC, tolerance=0.0)
    return best_C


def _best(objective: Callable[[Tensor], Tensor], z_KC: Tensor, *, tolerance: float) -> Tensor:
    value_KC = objective(z_KC)
    least_C = value_KC.min(dim=0).values
    tied_KC = value_KC <= least_C + tolerance * least_C.abs()
    distance_KC = torch.where(tied_KC, z_KC.abs(), torch.inf)
    return z_KC.gather(0, distance_KC.argmin(dim=0, keepdim=True)).squeeze(0)
