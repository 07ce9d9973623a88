"""Attention within windows, with a learnt bias and a mask of each window, by the fastest kernel of the device.

`window_attention` computes softmax(scale * q k^T + bias + mask) v for every window and head. The kernels in `KERNELS`
give the same values up to rounding:

- ``matrix``: batched matrix products with a backward pass of its own. It keeps q, k, v and the probabilities.
- ``sdpa``: `torch.nn.functional.scaled_dot_product_attention`.
- ``triton``: one fused kernel for CUDA, see `triton_window_attention`.

W = windows of all images, image by image; A = tokens of a window; H = heads; D = channels of a head.
"""

import importlib.util
from collections.abc import Callable

import torch
from torch.nn import functional

TRITON_WIDTHS = (16, 32, 64)  # D
TRITON_AREA = 128  # most of A: a program holds A x A numbers in registers
HAS_TRITON = importlib.util.find_spec("triton") is not None


def kernel_of(device: str, dtype: torch.dtype, area: int, width: int, dropout: float = 0.0) -> str:
    """The kernel that `window_attention` takes: a key of `KERNELS`.

    Args:
        device: type of the device, such as "cuda".
        dtype: that the products are computed in.
        area: A.
        width: D.
        dropout: share of the probabilities that is dropped; only ``matrix`` can.
    """
    if device != "cuda" or dropout > 0:
        # On a CPU, SDPA takes its general path in float32 where the bias needs a gradient: forward and backward take
        # 1.8 to 2.2 times as long in bf16, a forward pass 0.9 to 1.4 times (benchmarks/step.py --attention).
        return "matrix"
    half = dtype in (torch.bfloat16, torch.float16)
    if half and area <= TRITON_AREA and width in TRITON_WIDTHS and HAS_TRITON:
        return "triton"
    return "sdpa"


def window_attention(
    qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scale: float, dropout: float = 0.0
) -> torch.Tensor:
    """Attention of each window's tokens to one another, (W, A, H * D) in the dtype of ``qkv``.

    Differentiable in ``qkv`` and ``bias``.

    Args:
        qkv: (W, A, 3, H, D) contiguous, queries, keys and values as one projection gives them. W = images * windows of
            an image, and the window of the image is the faster index.
        bias: (H, A, A) float32, added to the scores.
        mask: (windows of an image, A, A) float32, 0 or -100, added to the scores of that window in every image; None
            if nothing is masked.
        scale: that the products of queries and keys are multiplied with.
        dropout: share of the probabilities that is dropped, 0 to 1.
    """
    kernel = kernel_of(qkv.device.type, qkv.dtype, qkv.shape[1], qkv.shape[-1], dropout)
    if kernel == "matrix":
        return matrix_attention(qkv, bias, mask, scale, dropout)
    return KERNELS[kernel](qkv, bias, mask, scale)


def matrix_attention(
    qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scale: float, dropout: float = 0.0
) -> torch.Tensor:
    """`window_attention` by batched matrix products; arguments and result are the same."""
    if dropout == 0:
        return _MatrixAttention.apply(qkv, bias, mask, scale)
    W, A, _, H, D = qkv.shape
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (W, H, A, D)
    scores = query @ key.mT * scale + _added(bias, mask, W)
    probabilities = functional.dropout(scores.softmax(-1, dtype=torch.float32).to(qkv.dtype), dropout)
    return (probabilities @ value).transpose(1, 2).reshape(W, A, H * D)


def sdpa_attention(qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """`window_attention` by torch's `scaled_dot_product_attention`; arguments and result are the same."""
    W, A, _, H, D = qkv.shape
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (W, H, A, D)
    added = _added(bias, mask, W).to(qkv.dtype)
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=added, scale=scale)
    return out.transpose(1, 2).reshape(W, A, H * D)


def triton_attention(qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """`window_attention` by one fused kernel; arguments and result are the same."""
    from hf_cxr.models.triton_window_attention import triton_window_attention

    return triton_window_attention(qkv, bias, mask, scale)


KERNELS: dict[str, Callable] = {"matrix": matrix_attention, "sdpa": sdpa_attention, "triton": triton_attention}


def _added(bias: torch.Tensor, mask: torch.Tensor | None, W: int) -> torch.Tensor:
    """What is added to the scores, (1 or W, H, A, A)."""
    if mask is None:
        return bias[None]
    of_image = bias[None] + mask[:, None]  # (windows, H, A, A)
    return of_image.expand(W // len(mask), *of_image.shape).reshape(W, *bias.shape)


class _MatrixAttention(torch.autograd.Function):
    """Attention by batched products over (W * H), softmax in float32; the gradients of q, k and v share one tensor."""

    @staticmethod
    def forward(ctx, qkv, bias, mask, scale):
        W, A, _, H, D = qkv.shape
        query, key, value = qkv.permute(2, 0, 3, 1, 4).contiguous().view(3, W * H, A, D).unbind(0)
        added = bias[None] if mask is None else bias[None] + mask[:, None]  # (1 or windows, H, A, A)
        scores = torch.add(added, torch.bmm(query, key.mT).view(-1, *added.shape), alpha=scale)
        probabilities = scores.softmax(-1).to(qkv.dtype).view(W * H, A, A)
        ctx.scale, ctx.heads = scale, H
        ctx.save_for_backward(query, key, value, probabilities)
        return torch.bmm(probabilities, value).view(W, H, A, D).transpose(1, 2).reshape(W, A, H * D)

    @staticmethod
    def backward(ctx, grad):
        query, key, value, probabilities = ctx.saved_tensors
        (WH, A, D), H = query.shape, ctx.heads
        W = WH // H
        grad = grad.reshape(W, A, H, D).transpose(1, 2).reshape(WH, A, D)
        grad_scores = softmax_gradient(torch.bmm(grad, value.mT), probabilities)  # float32
        grad_bias = grad_scores.view(W, H, A, A).sum(0)
        grad_scores = grad_scores.mul_(ctx.scale).to(query.dtype)
        grad_qkv = query.new_empty(3, WH, A, D)
        torch.bmm(grad_scores, key, out=grad_qkv[0])
        torch.bmm(grad_scores.mT, query, out=grad_qkv[1])
        torch.bmm(probabilities.mT, grad, out=grad_qkv[2])
        return grad_qkv.view(3, W, H, A, D).permute(1, 3, 0, 2, 4).contiguous(), grad_bias, None, None


def softmax_gradient(grad: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """The gradient of the scores in float32, from that of their softmax over the last dimension; both (..., A)."""
    # In float32: torch's kernel for bf16 is 8 times slower for windows of 4 x 4.
    return torch.ops.aten._softmax_backward_data(grad.float(), probabilities.float(), -1, torch.float32)
