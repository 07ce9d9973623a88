"""Attention within windows as one Triton kernel for each direction: for CUDA devices.

The stock form writes the logits, the softmax and their gradients to memory, A * A numbers for each head of each
window. A window is small enough (49 tokens) to be kept on the chip from its queries to its output: the forward kernel
reads queries, keys and values once and writes the output once, and the backward kernel recomputes the softmax. The
gradient of the bias is summed over windows in registers, in a fixed order, so it is the same in every run.

Which windows it is for, `window_attention.kernel_of` says.

W = windows of the whole batch, A = tokens of a window, H = heads, D = channels of a head.
"""

import torch
import triton
import triton.language as tl
from torch.library import triton_op, wrap_triton

PROGRAMS = 1024  # about eight for each multiprocessor of an H100; each goes through its share of the windows


@triton.jit
def _softmax(q_AD, k_AD, bias_AA, mask, window, row_A, A: tl.constexpr, SCALE: tl.constexpr, MASKED: tl.constexpr):
    """Softmax of one window's logits, (A, A) float32; columns beyond A have a bias of minus infinity."""
    logit_AA = tl.dot(q_AD, tl.trans(k_AD), input_precision="ieee") * SCALE + bias_AA
    if MASKED:
        place_AA = row_A[:, None] * A + row_A[None, :]
        inside_AA = (row_A[:, None] < A) & (row_A[None, :] < A)
        logit_AA += tl.load(mask + window * A * A + place_AA, mask=inside_AA, other=0.0)
    power_AA = tl.exp(logit_AA - tl.max(logit_AA, 1)[:, None])
    return power_AA / tl.sum(power_AA, 1)[:, None]


@triton.jit
def _bias_of(bias, head, row_A, A: tl.constexpr):
    inside_AA = (row_A[:, None] < A) & (row_A[None, :] < A)
    bias_AA = tl.load(bias + head * A * A + row_A[:, None] * A + row_A[None, :], mask=inside_AA, other=0.0)
    return tl.where(row_A[None, :] < A, bias_AA, float("-inf"))


@triton.jit
def _forward(
    qkv,
    bias,
    mask,
    out,
    W,
    windows,
    A: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALE: tl.constexpr,
    MASKED: tl.constexpr,
):
    head = tl.program_id(1)
    row_A, channel_D = tl.arange(0, BLOCK), tl.arange(0, D)
    inside_A1 = row_A[:, None] < A
    place_AD = row_A[:, None] * (3 * H * D) + head * D + channel_D[None, :]
    bias_AA = _bias_of(bias, head, row_A, A)
    for w in range(tl.program_id(0), W, tl.num_programs(0)):
        start = qkv + tl.cast(w, tl.int64) * (A * 3 * H * D)
        q_AD = tl.load(start + place_AD, mask=inside_A1, other=0.0)
        k_AD = tl.load(start + H * D + place_AD, mask=inside_A1, other=0.0)
        v_AD = tl.load(start + 2 * H * D + place_AD, mask=inside_A1, other=0.0)
        p_AA = _softmax(q_AD, k_AD, bias_AA, mask, w % windows, row_A, A, SCALE, MASKED)
        out_AD = tl.dot(p_AA.to(v_AD.dtype), v_AD, input_precision="ieee")
        place = row_A[:, None] * (H * D) + head * D + channel_D[None, :]
        tl.store(out + tl.cast(w, tl.int64) * (A * H * D) + place, out_AD.to(v_AD.dtype), mask=inside_A1)


@triton.jit
def _backward(
    qkv,
    bias,
    mask,
    grad_out,
    grad_qkv,
    grad_bias,
    W,
    windows,
    A: tl.constexpr,
    H: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    SCALE: tl.constexpr,
    MASKED: tl.constexpr,
):
    head = tl.program_id(1)
    row_A, channel_D = tl.arange(0, BLOCK), tl.arange(0, D)
    inside_A1 = row_A[:, None] < A
    place_AD = row_A[:, None] * (3 * H * D) + head * D + channel_D[None, :]
    bias_AA = _bias_of(bias, head, row_A, A)
    sum_AA = tl.zeros((BLOCK, BLOCK), tl.float32)
    for w in range(tl.program_id(0), W, tl.num_programs(0)):
        start = tl.cast(w, tl.int64) * (A * 3 * H * D)
        q_AD = tl.load(qkv + start + place_AD, mask=inside_A1, other=0.0)
        k_AD = tl.load(qkv + start + H * D + place_AD, mask=inside_A1, other=0.0)
        v_AD = tl.load(qkv + start + 2 * H * D + place_AD, mask=inside_A1, other=0.0)
        place = row_A[:, None] * (H * D) + head * D + channel_D[None, :]
        g_AD = tl.load(grad_out + tl.cast(w, tl.int64) * (A * H * D) + place, mask=inside_A1, other=0.0)
        p_AA = _softmax(q_AD, k_AD, bias_AA, mask, w % windows, row_A, A, SCALE, MASKED)
        grad_v_AD = tl.dot(tl.trans(p_AA.to(g_AD.dtype)), g_AD, input_precision="ieee")
        grad_p_AA = tl.dot(g_AD, tl.trans(v_AD), input_precision="ieee")
        grad_s_AA = p_AA * (grad_p_AA - tl.sum(p_AA * grad_p_AA, 1)[:, None])
        sum_AA += grad_s_AA
        low_AA = grad_s_AA.to(q_AD.dtype)
        grad_q_AD = tl.dot(low_AA, k_AD, input_precision="ieee") * SCALE
        grad_k_AD = tl.dot(tl.trans(low_AA), q_AD, input_precision="ieee") * SCALE
        tl.store(grad_qkv + start + place_AD, grad_q_AD.to(q_AD.dtype), mask=inside_A1)
        tl.store(grad_qkv + start + H * D + place_AD, grad_k_AD.to(q_AD.dtype), mask=inside_A1)
        tl.store(grad_qkv + start + 2 * H * D + place_AD, grad_v_AD.to(q_AD.dtype), mask=inside_A1)
    inside_AA = inside_A1 & (row_A[None, :] < A)
    place_AA = (tl.program_id(0) * H + head) * A * A + row_A[:, None] * A + row_A[None, :]
    tl.store(grad_bias + place_AA, sum_AA, mask=inside_AA)


def triton_window_attention(
    qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """softmax(scale q k' + bias + mask) v within each window; differentiable in ``qkv`` and ``bias``.

    Args:
        qkv: (W, A, 3, H, D), what one projection to queries, keys and values gives.
        bias: (H, A, A) float32, added to the logits of every window.
        mask: (windows, A, A) float32, 0 or -100; row w of ``qkv`` has mask[w % windows]. None: no mask.
        scale: of the logits, usually 1 / sqrt(D).

    Returns:
        (W, A, H * D) in the dtype of ``qkv``. The softmax and its gradient are computed in float32.

    Source: Liu et al., "Swin Transformer", ICCV 2021, equation 4; a window is kept on the chip as in Dao et al.,
    "FlashAttention", NeurIPS 2022.
    """
    return _attention(qkv.contiguous(), bias.contiguous(), None if mask is None else mask.contiguous(), scale)


def _sizes(qkv: torch.Tensor) -> tuple[dict[str, int], tuple[int, int]]:
    """Constants of a launch, and its grid: programs along the windows, heads."""
    W, A, _, H, D = qkv.shape
    block = max(16, triton.next_power_of_2(A))
    # A large window fills the shared memory by itself: no room for the next one's rows.
    schedule = {"num_warps": 4, "num_stages": 2} if block <= 64 else {"num_warps": 8, "num_stages": 1}
    return {"A": A, "H": H, "D": D, "BLOCK": block, **schedule}, (min(W, max(1, PROGRAMS // H)), H)


@triton_op("hf_cxr::window_attention", mutates_args=())
def _attention(qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    sizes, grid = _sizes(qkv)
    W, A, _, H, D = qkv.shape
    out = qkv.new_empty((W, A, H * D))
    wrap_triton(_forward)[grid](
        qkv,
        bias,
        bias if mask is None else mask,
        out,
        W,
        1 if mask is None else len(mask),
        **sizes,
        SCALE=scale,
        MASKED=mask is not None,
    )
    return out


@triton_op("hf_cxr::window_attention_backward", mutates_args=())
def _attention_backward(
    qkv: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor | None, grad_out: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    sizes, grid = _sizes(qkv)
    W, A, _, H, _ = qkv.shape
    grad_qkv = torch.empty_like(qkv)
    grad_bias = torch.empty((grid[0], H, A, A), dtype=torch.float32, device=qkv.device)
    wrap_triton(_backward)[grid](
        qkv,
        bias,
        bias if mask is None else mask,
        grad_out,
        grad_qkv,
        grad_bias,
        W,
        1 if mask is None else len(mask),
        **sizes,
        SCALE=scale,
        MASKED=mask is not None,
    )
    return grad_qkv, grad_bias.sum(0)


def _save(ctx, inputs, output) -> None:
    qkv, bias, mask, ctx.scale = inputs
    ctx.save_for_backward(qkv, bias, mask)


def _gradients(ctx, grad_out):
    qkv, bias, mask = ctx.saved_tensors
    grad_qkv, grad_bias = _attention_backward(qkv, bias, mask, grad_out.contiguous(), ctx.scale)
    return grad_qkv, grad_bias, None, None


_attention.register_autograd(_gradients, setup_context=_save)
