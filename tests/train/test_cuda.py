"""What only a GPU can show: compiled kernels, and steps that do not wait for the device."""

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_the_attention_kernel_compiles_without_a_graph_break():
    from hf_cxr.models.triton_window_attention import triton_window_attention

    rng = torch.Generator("cuda").manual_seed(0)
    qkv = torch.randn(64, 49, 3, 4, 32, generator=rng, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    bias = torch.randn(4, 49, 49, generator=rng, device="cuda", requires_grad=True)
    compiled = torch.compile(triton_window_attention, fullgraph=True)
    output = triton_window_attention(qkv, bias, None, 0.2)
    torch.testing.assert_close(compiled(qkv, bias, None, 0.2), output)
    grads = torch.autograd.grad(output.sum(), (qkv, bias))
    torch.testing.assert_close(torch.autograd.grad(compiled(qkv, bias, None, 0.2).sum(), (qkv, bias)), grads)
