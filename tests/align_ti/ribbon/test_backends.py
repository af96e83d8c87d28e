"""Ribbon attention against the definition, candidate by candidate; and the pass around it."""

import pytest
import torch

from align_ti.attention import AttentionCapture
from align_ti.ribbon.backends import BACKENDS, RibbonGeometry, SampleSpan, resolve_backend, ribbon_geometry
from align_ti.ribbon.layout import CandidateLayout, candidate_layout, supervised_tokens
from align_ti.ribbon.prefix import candidate_pass
from llava.errors import InputError


def packed(sample, limit):
    nothing = torch.zeros(len(sample), dtype=torch.long)
    return CandidateLayout(
        torch.tensor(sample),
        torch.tensor(limit),
        nothing,
        nothing,
        nothing.float(),
        torch.zeros(3, 9),
        len(sample),
    )


MASK = torch.tensor([[1] * 7 + [0] * 2, [1] * 9, [0] * 4 + [1] * 5], dtype=torch.bool)


def test_geometry():
    layout = packed([0, 0, 2], [3, 6, 7])
    geometry = ribbon_geometry(layout, MASK, groups=2)
    assert geometry.spans == (SampleSpan(0, 2, 0, 6), SampleSpan(1, 0, 0, 0), SampleSpan(2, 1, 4, 7))
    broken = MASK.clone()
    broken[1, 4] = False
    with pytest.raises(InputError, match="padding between real tokens"):
        ribbon_geometry(layout, broken, groups=2)


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize("groups", [1, 3])
def test_attention_against_the_definition(backend, groups):
    torch.manual_seed(0)
    samples, limits = [0, 0, 0, 2, 2], [3, 3, 6, 5, 8]
    width, kv_heads = 4, 2
    geometry = ribbon_geometry(packed(samples, limits), MASK, groups)
    query = torch.randn(kv_heads * groups, 5, width, dtype=torch.float64, requires_grad=True)
    key, value = torch.randn(2, kv_heads, 5, width, dtype=torch.float64).requires_grad_().unbind(0)
    prefix_key, prefix_value = torch.randn(2, 3, kv_heads, 9, width, dtype=torch.float64).requires_grad_().unbind(0)
    output = BACKENDS[backend](geometry)(query, key, value, prefix_key, prefix_value, 0.7, 0.0)
    assert output.shape == (5, kv_heads * groups, width)
    expected = torch.empty_like(output)
    for row, (sample, limit) in enumerate(zip(samples, limits, strict=True)):
        real = MASK[sample, :limit]
        for head in range(kv_heads * groups):
            shared = head // groups
            keys = torch.cat([prefix_key[sample, shared, :limit][real], key[shared, row][None]])
            values = torch.cat([prefix_value[sample, shared, :limit][real], value[shared, row][None]])
            expected[row, head] = (keys @ query[head, row] * 0.7).softmax(0) @ values
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-13)
    leaves = query, key, value, prefix_key, prefix_value
    for ours, wanted in zip(
        torch.autograd.grad(output.sin().sum(), leaves),
        torch.autograd.grad(expected.sin().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-11, atol=1e-12)


def test_a_long_response_costs_its_neighbours_nothing():
    """Masks hold each sample's own rows times its own keys: 1-word answers do not pay for a description."""
    short, long = 2, 60
    spans = (SampleSpan(0, long, 0, 100), SampleSpan(1, short, 0, 20), SampleSpan(2, 0, 0, 0))
    attention = BACKENDS["sdpa"](RibbonGeometry(spans, torch.full((long + short,), 20), groups=1))
    sizes = [mask.numel() for mask in attention.masks]
    assert sizes == [long * (100 + long), short * (20 + short), 0]


def test_choice_of_backend():
    assert resolve_backend("auto") in BACKENDS and resolve_backend("sdpa") == "sdpa"
    with pytest.raises(InputError, match="'turbo' is not available; there are: auto, sdpa"):
        resolve_backend("turbo")


@pytest.fixture
def ended(make_batch):
    """A batch whose draws all end the turn: its layout keeps one row of weight 0."""
    batch = make_batch()
    supervised = supervised_tokens(batch.labels, batch.attention_mask)
    draws = torch.full((len(supervised), 4), 2)
    return batch, candidate_layout(supervised, draws, batch.attention_mask, batch.position_ids, end_of_turn_ids=[2])


def test_a_pass_with_nothing_to_align_still_runs(tiny_model, ended):
    model, (batch, layout) = tiny_model(), ended
    prefix = AttentionCapture(keep_prefix=True)
    model.model(
        input_ids=batch.ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids,
        use_cache=False, capture=prefix,
    )  # fmt: skip
    hidden = candidate_pass(model.model, prefix, layout, batch.attention_mask)
    assert hidden.shape == (1, 24) and hidden.isfinite().all()
    gradients = torch.autograd.grad(hidden.sum() * 0, list(model.model.parameters()))
    assert all(gradient.eq(0).all() for gradient in gradients)


def test_wrong_prefix_or_attention(tiny_model, ended):
    model, (batch, layout) = tiny_model(), ended
    with pytest.raises(InputError, match="holds 0 layers, the decoder has 2"):
        candidate_pass(model.model, AttentionCapture(), layout, batch.attention_mask)
    with pytest.raises(InputError, match="needs 'align_ti'"):
        candidate_pass(tiny_model(attention="sdpa").model, AttentionCapture(), layout, batch.attention_mask)
