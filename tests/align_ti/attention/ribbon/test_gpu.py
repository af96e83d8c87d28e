"""The real kernels of a CUDA device against the reference; run with ``-m gpu``."""

import pytest
import torch

from align_ti.attention.packing import PackedFlash, PackedSdpa, Packing
from align_ti.attention.ribbon.backends import BACKENDS
from align_ti.attention.ribbon.geometry import ribbon_geometry
from align_ti.attention.ribbon.sdpa import SdpaRibbon
from align_ti.attention.varlen import Segments, varlen_kernel
from align_ti.candidates.layout import CandidateLayout
from tests.align_ti.attention.ribbon.emulated import EmulatedVarlen

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def close(found, expected, tolerance=2e-2):
    """Within a few roundings of bfloat16, relative to the tensor's size."""
    assert found.isfinite().all()
    assert (found.double() - expected.double()).norm() < tolerance * expected.double().norm()


def gradients(output, leaves):
    return torch.autograd.grad((output.float() * torch.linspace(-1, 1, output.shape[-1], device="cuda")).sum(), leaves)


@pytest.mark.parametrize("width", [64, 20])
@pytest.mark.parametrize("groups", [1, 7])
def test_kernel_against_its_emulation(groups, width):
    torch.manual_seed(0)
    lengths = torch.tensor([[5, 40], [1, 7], [33, 33]])
    edges = [torch.cat([torch.zeros(1, dtype=torch.long), column.cumsum(0)]).int().cuda() for column in lengths.T]
    segments = Segments(*edges, 33, 40)
    query = torch.randn(39, 2 * groups, width, device="cuda", dtype=torch.bfloat16)
    key, value = torch.randn(2, 80, 2, width, device="cuda", dtype=torch.bfloat16)
    kernel, slow = varlen_kernel(), EmulatedVarlen()
    out, lse = kernel.forward(query, key, value, segments, 0.125)
    exact = [tensor.double() for tensor in (query, key, value)]
    cpu = Segments(segments.cu_q.cpu(), segments.cu_k.cpu(), 33, 40)
    expected, expected_lse = slow.forward(*(tensor.cpu() for tensor in exact), cpu, 0.125)
    close(out.cpu(), expected)
    close(lse.cpu(), expected_lse)
    # A log-sum-exp over more keys than the call has: what merging hands to the backward.
    more = lse + 0.7
    grad = torch.randn_like(query)
    found = kernel.backward(grad, query, key, value, out, more, segments, 0.125)
    wanted = slow.backward(
        grad.double().cpu(), *(tensor.cpu() for tensor in exact), out.double().cpu(), more.double().cpu(), cpu, 0.125
    )
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours.cpu(), theirs)


@pytest.mark.parametrize("backend", ["flash", "flex"])
@pytest.mark.parametrize("groups", [1, 7])
def test_ribbon_against_sdpa(backend, groups):
    torch.manual_seed(0)
    lengths, total = [60, 200, 130], 210
    mask = torch.arange(total, device="cuda") < torch.tensor(lengths, device="cuda")[:, None]
    rows = [(sample, limit) for sample, length in enumerate(lengths) for limit in range(length - 40, length, 3)]
    rows = [row for row in rows for _ in range(1 + row[1] % 4)]
    sample, limit = torch.tensor(rows, device="cuda").T.contiguous()
    nothing = torch.zeros_like(sample)
    layout = CandidateLayout(sample, limit, nothing, nothing, nothing.float(), mask.float(), len(rows))
    geometry = ribbon_geometry(layout.sample, layout.limit, mask)
    options = {"device": "cuda", "dtype": torch.bfloat16}
    query = torch.randn(2 * groups, len(rows), 64, **options).requires_grad_()
    key, value = torch.randn(2, 2, len(rows), 64, **options).requires_grad_().unbind(0)
    prefix_key, prefix_value = torch.randn(2, 3, 2, total, 64, **options).requires_grad_().unbind(0)
    leaves = query, key, value, prefix_key, prefix_value
    output = BACKENDS[backend].make(geometry)(*leaves, None, 0.0)
    exact = [leaf.detach().float().requires_grad_() for leaf in leaves]
    expected = SdpaRibbon(geometry)(*exact, None, 0.0)
    close(output, expected)
    for ours, wanted in zip(gradients(output, leaves), gradients(expected, exact), strict=True):
        close(ours, wanted)


def test_packed_flash_against_sdpa():
    torch.manual_seed(0)
    edges = [0, 50, 51, 180]
    packing = Packing(torch.tensor(edges, device="cuda"), tuple(zip(edges, edges[1:], strict=False)))
    query = torch.randn(1, 14, 180, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    key, value = torch.randn(2, 1, 2, 180, 64, device="cuda", dtype=torch.bfloat16).requires_grad_().unbind(0)
    leaves = query, key, value
    output = PackedFlash(packing)(*leaves, None, 0.0)
    exact = [leaf.detach().float().requires_grad_() for leaf in leaves]
    expected = PackedSdpa(packing)(*exact, None, 0.0)
    close(output, expected)
    for ours, wanted in zip(gradients(output, leaves), gradients(expected, exact), strict=True):
        close(ours, wanted)
