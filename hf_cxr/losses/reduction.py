"""From a loss per cell to one number: masking of unknown cells, class weights, the mean, and where it all starts.

B = images, C = findings, K = points of a search grid, N = training images, R = distinct label rows. A target cell is
1, 0 or NaN; a NaN cell takes no part, neither in the value nor in the gradient. Losses of cells are averaged here and
nowhere else; list-wise losses, which have no cells to average, say in `listwise.py` what they are a mean of.

Refused: logits and targets of different shapes, and a number of findings other than the one of the class weights.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hf_cxr.words import plural

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


def known_rows(target_BC: Tensor) -> Tensor:
    """Which images have a known cell, bool (B,)."""
    return (~target_BC.isnan()).any(dim=1)


def known_rows_mean(loss_B: Tensor, target_BC: Tensor, num_rows: Tensor | float | None = None) -> Tensor:
    """Mean of a loss per image over the images with a known cell; for ``num_rows`` see ``masked_mean``.

    >>> known_rows_mean(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([[1.0], [0.0], [torch.nan]]))
    tensor(1.5000)
    """
    # Images without a known cell become rows of one unknown cell, all other images rows of one known cell.
    known_B1 = torch.where(known_rows(target_BC), 0.0, torch.nan)[:, None]
    return masked_mean(loss_B[:, None], known_B1, known_cells=num_rows)


class MultiLabelLoss(torch.nn.Module):
    """A multi-label loss: ``loss(logits, targets) -> scalar``. Subclasses name an element-wise function.

    Args:
        class_weights: (C,) finite, not negative; used as they are. None weighs all findings alike.
        prevalence: (C,) in [0, 1], for losses that depend on it.
        **options: numbers and switches that a subclass hands to its element-wise function.

    Both arrays become float32 buffers, ``class_weights_C`` and ``prevalence_C``: they follow the module from device to
    device and travel in its state. ``forward`` never waits for the device.

    Attributes:
        statistics: names, without the _C, of further (C,) buffers that a subclass derives from the training counts.
        additive: the losses of an optimizer step's pieces, each given the step's ``num_items``, add up to the loss of
            the whole. Where it is false, the step must not be cut up.
        needs_label_rows: ``no_information_logits`` depends on which findings occur together.
        reweighting: whether the class weights act, see ``set_reweighting``.
        label_smoothing: epsilon, see ``set_label_smoothing``; 0 is none.
        smoothable: each cell has a separate loss, which depends on no other cell's label and is linear in its own:
            targets between 0 and 1 have the mean of the two losses.
    """

    name: str = "multi_label"
    default_class_weights: str = "none"
    statistics: tuple[str, ...] = ()
    additive: bool = True
    needs_label_rows: bool = False
    smoothable: bool = True

    def __init__(self, *, class_weights=None, prevalence=None, **options):
        super().__init__()
        self.options = options
        self.class_weights_kind = "none" if class_weights is None else "given"
        self.reweighting = True
        self.label_smoothing = 0.0
        self.register_buffer("class_weights_C", _buffer("class_weights", class_weights, upper=float("inf")))
        self.register_buffer("prevalence_C", _buffer("prevalence", prevalence, upper=1.0))
        if class_weights is not None and prevalence is not None and len(self.class_weights_C) != len(prevalence):
            raise ValueError(f"{len(self.class_weights_C)} class weights for {len(prevalence)} prevalences")

    def elementwise(self, logit_BC: Tensor, target_BC: Tensor) -> Tensor:
        """Loss per cell, in nats; finite for targets from 0 to 1."""
        raise NotImplementedError(f"{type(self).__name__} has to define elementwise(logit_BC, target_BC)")

    def forward(self, logits: Tensor, targets: Tensor, num_items: Tensor | float | None = None) -> Tensor:
        """The mean over known cells.

        Args:
            logits: (B, C), any float dtype.
            targets: (B, C) in {0, 1, NaN}; between 0 and 1 where the loss is ``smoothable``.
            num_items: divide by this instead of the batch's own ``count_items``, see ``masked_mean``.
        """
        self._check_shapes(logits, targets)
        # A NaN that enters the element-wise function leaves it as a NaN gradient, even if its loss is dropped after.
        filled = torch.where(targets.isnan(), 0.0, targets)
        weights_C = self.class_weights_C if self.reweighting else None
        cells = self.elementwise(logits, filled)
        if self.label_smoothing and self.training:
            share = self.label_smoothing / 2
            cells = (1 - share) * cells + share * self.elementwise(logits, 1 - filled)
        return masked_mean(cells, targets, weights_C, num_items)

    def count_items(self, targets: Tensor) -> Tensor:
        """What the loss is a mean of: the number of known cells, a float32 scalar."""
        return count_known_cells(targets)

    def set_reweighting(self, active: bool) -> None:
        """Whether the class weights act (as from the start) or every finding weighs 1; for deferred re-weighting.

        Not part of the state: after a resume it has to be set again.
        """
        if self.class_weights_C is None:
            raise ValueError(f"{self.name} has no class weights here, so re-weighting cannot be deferred")
        self.reweighting = active

    def set_label_smoothing(self, epsilon: float) -> None:
        """In training, a known label counts as its opposite with the share epsilon / 2; not in evaluation.

            loss = (1 - epsilon / 2) loss(z, y) + epsilon / 2 loss(z, 1 - y)

        The losses of single cells are linear in the label, so that is the loss of the target
        y (1 - epsilon) + epsilon / 2: label smoothing (Szegedy et al., *Rethinking the Inception Architecture*, CVPR
        2016, section 7) with each finding a choice between two. Unknown cells stay unknown.

        Args:
            epsilon: 0 (none) to below 1.

        Raises:
            ValueError: the cells of this loss depend on the labels of other cells.
        """
        if not 0 <= epsilon < 1:
            raise ValueError(f"label_smoothing_factor is {epsilon}; it must be 0 to below 1")
        if epsilon:
            self.check_soft_targets(f"label_smoothing_factor is {epsilon}")
        self.label_smoothing = epsilon

    def check_soft_targets(self, asked: str) -> None:
        """Refuse a loss whose targets can only be 0 and 1.

        Args:
            asked: what asks for targets between them, for the message.

        Raises:
            ValueError: the cells of this loss depend on the labels of other cells.
        """
        if not self.smoothable:
            raise ValueError(
                f"{asked}, and {self.name} has no loss of one cell to smooth: its cells "
                "depend on the labels of other cells; leave it out, or choose another loss"
            )

    def no_information_logits(
        self,
        prevalence_C: Sequence[float] | Tensor,
        label_NC=None,
        draws_N=None,
    ) -> Tensor:
        """The best logit of each finding without any information about the image: a head's bias should start there.

        For every finding, the z in [-20, 20] that minimises ``alpha * loss(z, 1) + (1 - alpha) * loss(z, 0)``, found
        by search on the loss itself, in float64 on the CPU. For BCE that is the log odds of the prevalence. Of equal
        minima the one nearest to 0 counts, the negative one of a pair.

        A prevalence within 1e-6 of 0 or 1 is taken as 1e-6 from it, see ``NO_INFORMATION_FLOOR``. NaN (no known cell)
        gives the logit 0: no training moves that output, and nothing is known of the finding. The loss's own
        prevalence is treated likewise during the search: otherwise a finding without positives, whose negatives then
        weigh nothing, would start at probability 1.

        Args:
            prevalence_C: positives over known cells of each finding, in [0, 1] or NaN.
            label_NC: training labels in {1, 0, NaN}; read by losses with ``needs_label_rows`` only.
            draws_N: how often each row counts; None is once.

        Returns:
            float64 tensor (C,), finite.
        """
        alpha_C = torch.as_tensor(prevalence_C, dtype=torch.float64, device="cpu").detach()
        if alpha_C.ndim != 1 or ((alpha_C < 0) | (alpha_C > 1)).any():
            raise ValueError(f"prevalences must have shape (C,) and lie in [0, 1] or be NaN; got {alpha_C.tolist()}")
        self._check_findings(len(alpha_C))
        rows = self._label_rows(label_NC, draws_N, len(alpha_C)) if self.needs_label_rows else None
        alpha_C = alpha_C * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = copy.deepcopy(self).to(device="cpu", dtype=torch.float64)  # the device may have no float64
        if loss.prevalence_C is not None:
            loss.prevalence_C = _away_from_certainty(loss.prevalence_C)
        logit_C = loss._find_optimum(_away_from_certainty(alpha_C), rows)
        return torch.where(alpha_C.isnan(), 0.0, logit_C)

    def _find_optimum(self, alpha_C: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        def expected_loss(z_KC: Tensor) -> Tensor:
            positive = self.elementwise(z_KC, torch.ones_like(z_KC))
            return alpha_C * positive + (1 - alpha_C) * self.elementwise(z_KC, torch.zeros_like(z_KC))

        with torch.no_grad():
            return minimise(expected_loss, len(alpha_C))

    def _label_rows(self, label_NC, draws_N, num_findings: int) -> tuple[Tensor, Tensor]:
        """The distinct label rows (R, C), float64, and the share of the training images that each is, (R,)."""
        if label_NC is None:
            raise ValueError(
                f"the no-information logits of {self.name} depend on which findings occur together: give label_NC"
            )
        label_NC = torch.as_tensor(label_NC, dtype=torch.float64, device="cpu")
        if label_NC.ndim != 2 or label_NC.shape[1] != num_findings or len(label_NC) == 0:
            raise ValueError(f"labels must have shape (images, {num_findings}); got {tuple(label_NC.shape)}")
        draws_N = torch.ones(len(label_NC)) if draws_N is None else torch.as_tensor(draws_N, device="cpu")
        # NaN is unlike itself, so rows with unknown cells would all be distinct.
        row_RC, index_N = torch.unique(label_NC.nan_to_num(nan=-1.0), dim=0, return_inverse=True)
        share_R = torch.zeros(len(row_RC), dtype=torch.float64).index_add(0, index_N, draws_N.to(torch.float64))
        return torch.where(row_RC < 0, torch.nan, row_RC), share_R / share_R.sum()

    def describe(self) -> dict:
        """What this loss is, in plain JSON values: for the run folder and the model card."""
        return {
            "name": self.name,
            "options": dict(self.options),
            "class_weights_kind": self.class_weights_kind,
            "class_weights": _rounded(self.class_weights_C),
            "prevalence": _rounded(self.prevalence_C),
            **{name: _rounded(self.get_buffer(f"{name}_C")) for name in self.statistics},
            **({"label_smoothing": self.label_smoothing} if self.label_smoothing else {}),
        }

    def _check_lengths(self) -> None:
        lengths = {name: len(buffer_C) for name, buffer_C in self.named_buffers()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name} was given arrays of different lengths: {lengths}")

    def extra_repr(self) -> str:
        parts = [f"{option}={value!r}" for option, value in self.options.items()]
        parts.append(f"class_weights={self.class_weights_kind}")
        if self._num_findings() is not None:
            parts.append(f"findings={self._num_findings()}")
        return ", ".join(parts)

    def _num_findings(self) -> int | None:
        return next((buffer_C.shape[0] for buffer_C in self.buffers()), None)

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
            raise ValueError(
                f"this {type(self).__name__} was built for {plural(expected, 'finding')}; got {num_findings}"
            )


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


def minimise(objective: Callable[[Tensor], Tensor], num_findings: int) -> Tensor:
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
