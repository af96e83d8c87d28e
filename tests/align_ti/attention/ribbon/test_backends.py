"""Ribbon attention against the definition, candidate by candidate; and the pass around it."""

import pytest
import torch

from align_ti.attention.interface import AttentionCapture
from align_ti.attention.ribbon import backends, sdpa
from align_ti.attention.ribbon.backends import BACKENDS, resolve_backend
from align_ti.attention.ribbon.flash import FlashRibbon
from align_ti.attention.ribbon.flex import FlexRibbon
from align_ti.attention.ribbon.geometry import RibbonGeometry, SampleSpan, ribbon_geometry
from align_ti.attention.ribbon.sdpa import SdpaRibbon
from align_ti.candidates.layout import candidate_layout, supervised_tokens
from align_ti.candidates.prefix import candidate_pass
from llava.errors import InputError
from tests.align_ti.attention.ribbon.emulated import EmulatedVarlen


def packed(sample, limit):
    return torch.tensor(sample), torch.tensor(limit)


MASK = torch.tensor([[1] * 7 + [0] * 2, [1] * 9, [0] * 4 + [1] * 5], dtype=torch.bool)


def test_geometry():
    layout = packed([0, 0, 2], [3, 6, 7])
    geometry = ribbon_geometry(*layout, MASK)
    assert geometry.spans == (SampleSpan(0, 2, 0, 6), SampleSpan(1, 0, 0, 0), SampleSpan(2, 1, 4, 7))
    broken = MASK.clone()
    broken[1, 4] = False
    with pytest.raises(InputError, match="padding between real tokens"):
        ribbon_geometry(*layout, broken)


def make(backend, geometry):
    """A backend that runs without a GPU: ``flash`` through the emulated kernel, ``flex`` uncompiled."""
    if backend == "flash":
        return FlashRibbon(geometry, EmulatedVarlen())
    return {"sdpa": SdpaRibbon, "flex": FlexRibbon}[backend](geometry)


def by_definition(samples, limits, groups, mask, query, key, value, prefix_key, prefix_value):
    rows = []
    for row, (sample, limit) in enumerate(zip(samples, limits, strict=True)):
        real = mask[sample, :limit]
        heads = []
        for head in range(len(query)):
            shared = head // groups
            keys = torch.cat([prefix_key[sample, shared, :limit][real], key[shared, row][None]])
            values = torch.cat([prefix_value[sample, shared, :limit][real], value[shared, row][None]])
            heads.append((keys @ query[head, row] * 0.7).softmax(0) @ values)
        rows.append(torch.stack(heads))
    return torch.stack(rows)


LAYOUTS = {
    "several": ([0, 0, 0, 2, 2], [3, 3, 6, 5, 8]),
    "full": ([0, 0, 0, 0, 1, 1, 1, 2], [2, 2, 2, 6, 4, 8, 8, 7]),
    "nothing before": ([0, 0, 2], [0, 4, 4]),
    "only itself": ([1], [0]),
}


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_attention_against_the_definition(backend, groups, layout, monkeypatch):
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *_, **__: None)
    torch.manual_seed(0)
    samples, limits = LAYOUTS[layout]
    width, kv_heads = 4, 2
    geometry = ribbon_geometry(*packed(samples, limits), MASK)
    query = torch.randn(kv_heads * groups, len(samples), width, dtype=torch.float64, requires_grad=True)
    key, value = torch.randn(2, kv_heads, len(samples), width, dtype=torch.float64).requires_grad_().unbind(0)
    prefix_key, prefix_value = torch.randn(2, 3, kv_heads, 9, width, dtype=torch.float64).requires_grad_().unbind(0)
    leaves = query, key, value, prefix_key, prefix_value
    output = make(backend, geometry)(*leaves, 0.7, 0.0)
    expected = by_definition(samples, limits, groups, MASK, *leaves)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-13)
    for ours, wanted in zip(
        torch.autograd.grad(output.sin().sum(), leaves),
        torch.autograd.grad(expected.sin().sum(), leaves, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", ["flash", "flex"])
def test_dropout_is_refused(backend):
    samples, limits = LAYOUTS["several"]
    attention = make(backend, ribbon_geometry(*packed(samples, limits), MASK))
    query, prefix = torch.randn(2, 5, 4), torch.randn(3, 2, 9, 4)
    with pytest.raises(InputError, match=f"{backend} ribbon does not support dropout, found attention_dropout 0.1"):
        attention(query, query, query, prefix, prefix, None, 0.1)


def test_the_flash_call_reads_each_prefix_once():
    """Rows times keys a sample, whatever the number of draws: slots are heads, prefixes are not repeated."""
    samples, limits = [0] * 8, [3, 3, 3, 3, 6, 6, 6, 6]
    ribbon = FlashRibbon(ribbon_geometry(*packed(samples, limits), MASK), EmulatedVarlen())
    assert (ribbon.grid.rows, ribbon.grid.slots, len(ribbon.grid.columns)) == (4, 4, 6)
    ribbon(*torch.randn(3, 1, 8, 4), *torch.randn(2, 3, 1, 9, 4), None, 0.0)
    assert ribbon.kernel.scores == 4 * 4 * 6


def test_a_long_response_costs_its_neighbours_nothing():
    """Masks hold each sample's own rows times its own keys: 1-word answers do not pay for a description."""
    short, long = 2, 60
    spans = (SampleSpan(0, long, 0, 100), SampleSpan(1, short, 0, 20), SampleSpan(2, 0, 0, 0))
    limits = torch.full((long + short,), 20)
    attention = SdpaRibbon(RibbonGeometry(spans, limits, length=100, device=limits.device))
    sizes = [mask.numel() for mask in attention.masks]
    assert sizes == [long * (100 + long), short * (20 + short)]


def test_many_candidates_cost_no_square(monkeypatch):
    """Blocks of candidates see the prefix and their own block, and give what one block gives."""
    torch.manual_seed(0)
    samples, limits = [0] * 9 + [1] * 5, sorted([3, 3, 3, 3, 5, 6, 6, 2, 2]) + [4, 4, 8, 8, 8]
    geometry = ribbon_geometry(*packed(samples, limits), MASK)
    tensors = torch.randn(4, 14, 4), *torch.randn(2, 2, 14, 4), *torch.randn(2, 3, 2, 9, 4)
    whole = SdpaRibbon(geometry)(*tensors, None, 0.0)
    monkeypatch.setattr(sdpa, "BLOCK", 4)
    blocks = SdpaRibbon(geometry)
    assert blocks.candidates == [4, 4, 1, 4, 1]
    torch.testing.assert_close(blocks(*tensors, None, 0.0), whole)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_choice_of_backend_without_a_gpu():
    assert resolve_backend("auto") == resolve_backend("sdpa") == "sdpa"
    with pytest.raises(InputError, match="'turbo' is unknown; available names: auto, flash, flex, sdpa"):
        resolve_backend("turbo")
    with pytest.raises(InputError, match="'flash' is not available: .* needs a CUDA device. Here: auto, sdpa"):
        resolve_backend("flash")
    with pytest.raises(InputError, match="'flex' is not available: .* on CUDA devices only. Here: auto, sdpa"):
        resolve_backend("flex")


def test_choice_of_backend_where_all_run(monkeypatch):
    everywhere = {name: backend._replace(why_not=lambda: None) for name, backend in BACKENDS.items()}
    monkeypatch.setattr(backends, "BACKENDS", everywhere)
    assert resolve_backend("auto") == resolve_backend("flash") == "flash"
    assert resolve_backend("flex", torch.float32) == "flex"
    assert resolve_backend("auto", torch.float32) == "sdpa"
    with pytest.raises(InputError, match="'flash' is not available: .* runs in torch.float32. Here: auto, flex, sdpa"):
        resolve_backend("flash", torch.float32)


@pytest.fixture
def ended(make_batch):
    """A batch whose draws all end the turn: its layout keeps one row of weight 0."""
    batch = make_batch()
    supervised = supervised_tokens(batch.labels, batch.attention_mask)
    draws = torch.full((len(supervised), 4), 2)
    return batch, candidate_layout(supervised, draws, batch.attention_mask, batch.position_ids, end_of_turn_ids=[2])


def geometry_of(layout, batch):
    return ribbon_geometry(layout.sample, layout.limit, batch.attention_mask)


def test_a_pass_with_nothing_to_align_still_runs(tiny_model, ended):
    model, (batch, layout) = tiny_model(), ended
    prefix = AttentionCapture(keep_prefix=True)
    model.model(
        input_ids=batch.ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids,
        use_cache=False, capture=prefix,
    )  # fmt: skip
    hidden = candidate_pass(model.model, prefix, layout, geometry_of(layout, batch))
    assert hidden.shape == (1, 24) and hidden.isfinite().all()
    gradients = torch.autograd.grad(hidden.sum() * 0, list(model.model.parameters()))
    assert all(gradient.eq(0).all() for gradient in gradients)


def test_wrong_prefix_or_attention(tiny_model, ended):
    model, (batch, layout) = tiny_model(), ended
    with pytest.raises(InputError, match="has 0 layers, the decoder has 2"):
        candidate_pass(model.model, AttentionCapture(), layout, geometry_of(layout, batch))
    with pytest.raises(InputError, match="needs 'align_ti'"):
        candidate_pass(tiny_model(attention="sdpa").model, AttentionCapture(), layout, geometry_of(layout, batch))
