"""The Triton kernel against softmax attention in float64; on a CPU Triton's interpreter runs the same kernel."""

import importlib

import pytest
import torch

CUDA = torch.cuda.is_available()
DTYPES = [torch.float32, torch.bfloat16, torch.float16] if CUDA else [torch.float32]  # the interpreter has no bfloat16
# Of the output and the gradients, relative to their norms: rounding of the inputs' dtype.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def kernel():
    with pytest.MonkeyPatch.context() as patch:
        if not CUDA:
            patch.setenv("TRITON_INTERPRET", "1")  # read where Triton is imported and where a kernel is defined
        pytest.importorskip("triton", reason="Triton comes with the CUDA build of torch")
        yield importlib.import_module("hf_cxr.models.triton_window_attention")


def attention_of(qkv, bias, mask, scale):
    """The formula, in the inputs' dtype: (W, A, 3, H, D) to (W, A, H * D)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) * scale + bias
    if mask is not None:
        logits = (logits.unflatten(0, (-1, len(mask))) + mask[:, None]).flatten(0, 1)
    return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)


def inputs(tokens, heads, width, windows, masked, dtype):
    device = "cuda" if CUDA else "cpu"
    rng = torch.Generator().manual_seed(0)
    qkv = torch.randn(2 * windows, tokens, 3, heads, width, generator=rng).to(device, dtype).requires_grad_()
    bias = torch.randn(heads, tokens, tokens, generator=rng).to(device).requires_grad_()
    mask = -100.0 * (torch.rand(windows, tokens, tokens, generator=rng) < 0.3).float().to(device) if masked else None
    return qkv, bias, mask


def distance(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "heads", "width", "masked"),
    [(49, 2, 32, True), (49, 1, 32, False), (16, 3, 16, True), (9, 1, 64, True)],
)
def test_output_and_gradients_are_those_of_the_formula(kernel, tokens, heads, width, masked, dtype):
    qkv, bias, mask = inputs(tokens, heads, width, 4, masked, dtype)
    scale = width**-0.5
    output = kernel.triton_window_attention(qkv, bias, mask, scale)
    grad = torch.randn_like(output)
    output.backward(grad)
    exact_qkv, exact_bias = (tensor.detach().double().requires_grad_() for tensor in (qkv, bias))
    exact = attention_of(exact_qkv, exact_bias, None if mask is None else mask.double(), scale)
    exact.backward(grad.double())
    assert output.shape == (8, tokens, heads * width)
    assert output.dtype == dtype
    assert distance(output, exact) < TOLERANCE[dtype]
    assert distance(qkv.grad, exact_qkv.grad) < TOLERANCE[dtype]
    assert distance(bias.grad, exact_bias.grad) < TOLERANCE[dtype]


def test_a_masked_token_takes_no_part_but_among_its_own(kernel):
    qkv, bias, _ = inputs(16, 1, 16, 1, False, torch.float32)
    mask = torch.zeros(1, 16, 16, device=qkv.device)
    mask[:, :8, 8:] = mask[:, 8:, :8] = -100.0
    together = kernel.triton_window_attention(qkv, bias, mask, 0.25)
    first = attention_of(qkv[:, :8], bias[:, :8, :8], None, 0.25)
    torch.testing.assert_close(together[:, :8], first, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not CUDA, reason="64 windows of 100 tokens take minutes in the interpreter")
def test_windows_of_more_than_64_tokens(kernel):
    qkv, bias, mask = inputs(100, 4, 32, 4, True, torch.bfloat16)
    output = kernel.triton_window_attention(qkv, bias, mask, 0.2)
    assert distance(output, attention_of(qkv.double(), bias.double(), mask.double(), 0.2)) < TOLERANCE[torch.bfloat16]
    output.sum().backward()
    assert qkv.grad.isfinite().all()
