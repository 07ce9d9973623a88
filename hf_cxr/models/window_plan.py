"""Where each token of a Swin goes from layer to layer, for one grid of patches: computed once, as buffers.

If windows fill the grid of a stage, its tokens lie window by window, and a layer whose windows are shifted takes them
into its own order by one gather. If they do not, the tokens lie row by row, and each layer takes them into padded
windows and back. Merging patches is a gather too, into the order of the next stage.

N = tokens of an image, K = tokens in windows (N and padding), A = tokens of a window, C = channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

MASKED = -100.0  # added to the score of two tokens that only the shift has brought together, as in the stock model


class Order(NamedTuple):
    """Grid (height, width) of patches, and the windows of a layer: their side, and their shift up and to the left."""

    height: int
    width: int
    window: int
    shift: int

    @property
    def tokens(self) -> int:
        """N."""
        return self.height * self.width

    @property
    def whole(self) -> bool:
        """Windows fill the grid."""
        return self.height % self.window == 0 and self.width % self.window == 0


class Gather(nn.Module):
    """Rows of (B, n, C) in another order, (B, m, C), whose gradient is a gather too.

    Args:
        index: (m,) int64, which row goes to each place; n is a row of zeros. No row goes to two places.
        rows: n.
    """

    def __init__(self, index: torch.Tensor, rows: int):
        super().__init__()
        inverse = inverse_of(index, rows)
        self.index, self.inverse = (nn.Buffer(entry, persistent=False) for entry in (index, inverse))
        self.padded = bool((index == rows).any())
        self.dropped = bool((inverse == len(index)).any())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Gathered.apply(x, self.index, self.inverse, self.padded, self.dropped)


class _Gathered(torch.autograd.Function):
    """torch's own gradient of a gather adds row by row into zeros; here every row has one place at most."""

    @staticmethod
    def forward(ctx, x, index, inverse, padded, dropped):
        ctx.save_for_backward(inverse)
        ctx.dropped = dropped
        return _take(x, index, padded)

    @staticmethod
    def backward(ctx, grad):
        return _take(grad, ctx.saved_tensors[0], ctx.dropped), None, None, None, None


def _take(x: torch.Tensor, index: torch.Tensor, zero_row: bool) -> torch.Tensor:
    return (functional.pad(x, (0, 0, 0, 1)) if zero_row else x).index_select(1, index)


class LayerPlan(nn.Module):
    """How one layer gets its windows.

    Attributes:
        area: A.
        enter: from the order of the layer before; None if it is the same.
        pad, crop: into padded windows and back; None if windows fill the grid.
        mask: (windows, A, A) float32, 0 or -100; None without a shift.
    """

    def __init__(self, order: Order, before: Order):
        super().__init__()
        self.area = order.window**2
        self.enter = self.pad = self.crop = None
        windows = window_index(order)
        if not order.whole:
            self.pad = Gather(windows, order.tokens)
            self.crop = Gather(self.pad.inverse.clone(), len(windows))
        elif order != before:
            self.enter = Gather(inverse_of(window_index(before), order.tokens)[windows], order.tokens)
        self.mask = nn.Buffer(shift_mask(order), persistent=False) if order.shift else None


class StagePlan(nn.Module):
    """The layers of a stage, and how its tokens are merged: (B, N, C) to (B, N', C), N' = 4 times those after it."""

    def __init__(self, orders: Sequence[Order], after: Order | None):
        super().__init__()
        self.layers = nn.ModuleList(LayerPlan(*pair) for pair in zip(orders, (orders[0], *orders), strict=False))
        self.merge = None if after is None else Gather(merged_index(orders[-1], after), orders[-1].tokens)


class Plan(nn.Module):
    """All stages of a Swin for one grid of patches.

    Args:
        height, width: of the grid.
        window: side of a window; where a stage's grid has that side, its windows are not shifted.
        depths: layers of each stage.

    Attributes:
        block: (height, width) of the blocks of patches, one after another, in the first layer's order.
        first: takes (B, N, C) row by row into that order.
        last: takes the last layer's tokens out of their order, row by row.

    Raises:
        ValueError: the grid of a stage is smaller than a window, for which the model has no bias.
    """

    def __init__(self, height: int, width: int, window: int, depths: Sequence[int]):
        super().__init__()
        self.height, self.width = height, width
        stages = []
        for depth in depths:
            if min(height, width) < window:
                raise ValueError(
                    f"a grid of {height} x {width} patches is smaller than the model's window of {window}"
                )
            shift = window // 2 if min(height, width) > window else 0
            stages.append([Order(height, width, window, number % 2 * shift) for number in range(depth)])
            height, width = -(-height // 2), -(-width // 2)
        after = [*(orders[0] for orders in stages[1:]), None]
        self.stages = nn.ModuleList(StagePlan(*pair) for pair in zip(stages, after, strict=True))
        start = stages[0][0]
        self.block = (window, window) if start.whole else (start.height, start.width)
        self.first = Gather(_layout(start), start.tokens)
        end = stages[-1][-1]
        self.last = Gather(inverse_of(_layout(end), end.tokens), end.tokens)


def window_index(order: Order) -> torch.Tensor:
    """The token at each place of the windows, (K,) int64, counted row by row; N where there is only padding."""
    height, width, window, shift = order
    grid = torch.arange(order.tokens).view(height, width)
    grid = functional.pad(grid, (0, -width % window, 0, -height % window), value=order.tokens)
    return _by_window(grid.roll((-shift, -shift), (0, 1)), window).flatten()


def shift_mask(order: Order) -> torch.Tensor:
    """(windows, A, A) float32: 0 between tokens that were neighbours before the shift, -100 between the rest.

    As the stock model has it: padding is masked like the part of the image that it belongs to, not as padding.
    """
    window, shift = order.window, order.shift
    rows, columns = (
        (place >= len(place) - window).long() + (place >= len(place) - shift).long()
        for place in (torch.arange(side + -side % window) for side in (order.height, order.width))
    )
    part = _by_window(rows[:, None] * 3 + columns, window)  # (windows, A)
    return (part[:, None] != part[:, :, None]) * torch.tensor(MASKED)


def merged_index(order: Order, after: Order) -> torch.Tensor:
    """The four tokens of each merged one, in the stock order of channels and in the next stage's order of tokens."""
    places = inverse_of(_layout(order), order.tokens).view(order.height, order.width)
    places = functional.pad(places, (0, order.width % 2, 0, order.height % 2), value=order.tokens)
    parts = [places[row::2, column::2].flatten() for column in range(2) for row in range(2)]
    return torch.stack(parts, 1)[_layout(after)].flatten()


def inverse_of(index: torch.Tensor, rows: int) -> torch.Tensor:
    """Where each of the rows is in an index (m,), (rows,) int64; m for a row that is nowhere."""
    inverse = torch.full((rows + 1,), len(index))
    inverse[index] = torch.arange(len(index))
    return inverse[:rows]


def _layout(order: Order) -> torch.Tensor:
    """The token at each place between two layers, (N,): window by window, or row by row if windows do not fit."""
    return window_index(order) if order.whole else torch.arange(order.tokens)


def _by_window(grid: torch.Tensor, window: int) -> torch.Tensor:
    """(windows, A) of a grid (height, width) that windows fill."""
    return grid.unflatten(1, (-1, window)).unflatten(0, (-1, window)).transpose(1, 2).reshape(-1, window**2)
