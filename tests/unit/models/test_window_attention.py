"""Every kernel of window attention is the softmax formula, forward and backward."""

import pytest
import torch

from hf_cxr.models.window_attention import KERNELS, kernel_of, matrix_attention, window_attention

W, A, H, D = 6, 9, 2, 4
SCALE = 0.3


def inputs(dtype=torch.float32, masked=True, seed=0):
    """qkv (W, A, 3, H, D), bias (H, A, A) and mask (3, A, A) or None."""
    torch.manual_seed(seed)
    mask = torch.where(torch.rand(3, A, A) < 0.3, -100.0, 0.0) if masked else None
    return torch.randn(W, A, 3, H, D, dtype=dtype), torch.randn(H, A, A), mask


def reference(qkv, bias, mask):
    """One window and one head after another, in float64."""
    qkv, bias = qkv.double(), bias.double()
    windows = []
    for w in range(W):
        heads = []
        for h in range(H):
            query, key, value = (qkv[w, :, part, h] for part in range(3))
            scores = SCALE * query @ key.T + bias[h] + (0 if mask is None else mask[w % len(mask)])
            heads.append(torch.exp(scores - scores.amax(1, keepdim=True)))
            heads[-1] = heads[-1] / heads[-1].sum(1, keepdim=True) @ value
        windows.append(torch.cat(heads, 1))
    return torch.stack(windows)


def with_gradients(function, qkv, bias, mask):
    """Output, and its gradients in qkv and bias, for one fixed gradient of the output."""
    qkv, bias = (entry.detach().clone().requires_grad_() for entry in (qkv, bias))
    out = function(qkv, bias, mask)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(weight.to(out.dtype))
    return out.detach(), qkv.grad, bias.grad


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kernel", ["matrix", "sdpa"])
def test_a_kernel_is_the_formula(kernel, masked):
    own = with_gradients(lambda *given: KERNELS[kernel](*given, SCALE), *inputs(masked=masked))
    for value, wanted in zip(own, with_gradients(reference, *inputs(masked=masked)), strict=True):
        torch.testing.assert_close(value, wanted.to(value.dtype), rtol=1e-5, atol=1e-5)


def test_bf16_is_the_formula_up_to_its_rounding():
    own = with_gradients(lambda *given: matrix_attention(*given, SCALE), *inputs(torch.bfloat16))
    assert own[0].dtype == own[1].dtype == torch.bfloat16
    assert own[2].dtype == torch.float32
    for value, wanted in zip(own, with_gradients(reference, *inputs(torch.bfloat16)), strict=True):
        assert (value - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_a_masked_token_has_no_weight():
    qkv, bias, _ = inputs()
    mask = torch.zeros(1, A, A)
    mask[:, :, 0] = -100.0
    other = qkv.clone()
    other[:, 0, 2] += 5.0  # its value
    torch.testing.assert_close(*(window_attention(entry, bias, mask, SCALE) for entry in (qkv, other)))
    assert not torch.allclose(*(window_attention(entry, bias, None, SCALE) for entry in (qkv, other)))


def test_dropout_keeps_the_mean():
    qkv, bias, mask = inputs()
    wanted = window_attention(qkv, bias, mask, SCALE)
    torch.manual_seed(0)
    drawn = torch.stack([window_attention(qkv, bias, mask, SCALE, dropout=0.3) for _ in range(400)])
    assert drawn.std(0).mean() > 0.1
    assert ((drawn.mean(0) - wanted).abs() < 6 * drawn.std(0) / 20 + 1e-6).all()


def test_the_kernel_follows_the_device():
    assert kernel_of("cpu", torch.bfloat16, 49, 32) == "matrix"
    assert kernel_of("cuda", torch.bfloat16, 49, 32, dropout=0.1) == "matrix"
    assert kernel_of("cuda", torch.float32, 49, 32) == "sdpa"
    assert kernel_of("cuda", torch.bfloat16, 49, 24) == "sdpa"  # a width that the Triton kernel does not have
    assert kernel_of("cuda", torch.bfloat16, 289, 32) == "sdpa"
