"""The align_ti attention: stock results, keys and values kept in the graph, maps equal to eager's."""

import pytest
import torch
from transformers import DynamicCache

from align_ti.attention import maps as attention_maps
from align_ti.attention.interface import (
    AttentionCapture,
    require_align_ti_attention,
    use_align_ti_attention,
    uses_align_ti_attention,
)
from align_ti.attention.maps import MapRequest
from llava.errors import InputError


def run(model, batch, **kwargs):
    with torch.no_grad():
        embeds = model.get_input_embeddings()(batch.ids)
    return model.model(
        inputs_embeds=embeds, attention_mask=batch.attention_mask, position_ids=batch.position_ids, **kwargs
    )


@pytest.mark.parametrize("side", ["right", "left"])
def test_same_hidden_states_as_stock_sdpa(family, side, tiny_model, make_batch):
    model, batch = tiny_model(family), make_batch(side)
    capture = AttentionCapture(
        keep_prefix=True, maps=MapRequest(frozenset({0}), batch.instruction_mask, batch.attention_mask)
    )
    ours = run(model, batch, use_cache=False, capture=capture).last_hidden_state
    model.set_attn_implementation("sdpa")
    stock = run(model, batch, use_cache=False).last_hidden_state
    assert torch.equal(ours[batch.attention_mask], stock[batch.attention_mask])


def test_captured_prefix_is_what_a_cache_holds_and_carries_gradients(family, tiny_model, make_batch):
    model, batch = tiny_model(family, layers=3), make_batch("left")
    capture = AttentionCapture(keep_prefix=True)
    run(model, batch, use_cache=False, capture=capture)
    cache = DynamicCache(config=model.config)
    run(model, batch, use_cache=True, past_key_values=cache)
    assert sorted(capture.keys) == [0, 1, 2] and not capture.maps
    for layer, cached in enumerate(cache.layers):
        assert torch.equal(capture.keys[layer], cached.keys)
        assert torch.equal(capture.values[layer], cached.values)
    (gradient,) = torch.autograd.grad(capture.keys[2].sum(), model.model.layers[0].mlp.down_proj.weight)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("side", ["right", "left"])
def test_maps_equal_eager_attention_in_every_layer(family, side, tiny_model, make_batch, monkeypatch):
    monkeypatch.setattr(attention_maps, "ROWS_AT_ONCE", 2)  # several blocks of rows a sample
    # float32: eager turns float64's padding mask into minus infinity, and padded rows into NaN
    model = tiny_model(family, layers=4, heads=8, kv_heads=2, hidden=32, dtype=torch.float32, exact=False)
    batch = make_batch(side)
    request = MapRequest(frozenset(range(4)), batch.instruction_mask, batch.attention_mask)
    capture = AttentionCapture(maps=request)
    run(model, batch, use_cache=False, capture=capture)
    assert not capture.keys
    model.set_attn_implementation("eager")
    eager = run(model, batch, use_cache=False, output_attentions=True).attentions
    rows = batch.instruction_mask.double()
    for layer in range(4):
        expected = torch.einsum("bhuk,bu->bk", eager[layer].double(), rows) / rows.sum(1, keepdim=True) / 8
        ours = capture.maps[layer]
        assert not ours.requires_grad
        torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.sum(1), torch.ones(len(ours), dtype=ours.dtype))
        assert ours[~batch.attention_mask].abs().max() == 0


def test_only_chosen_layers_and_samples_without_instruction(tiny_model, make_batch):
    model, batch = tiny_model(layers=3), make_batch()
    batch.instruction_mask[1] = False
    capture = AttentionCapture(maps=MapRequest(frozenset({2}), batch.instruction_mask, batch.attention_mask))
    run(model, batch, use_cache=False, capture=capture)
    assert list(capture.maps) == [2]
    assert capture.maps[2][1].eq(0).all() and capture.maps[2][0].gt(0).any()


def test_half_precision_maps_are_float32(tiny_model, make_batch):
    model, batch = tiny_model(dtype=torch.bfloat16), make_batch()
    capture = AttentionCapture(maps=MapRequest(frozenset({1}), batch.instruction_mask, batch.attention_mask))
    run(model, batch, use_cache=False, capture=capture)
    assert capture.maps[1].dtype == torch.float32
    torch.testing.assert_close(capture.maps[1].sum(1), torch.ones(len(batch.ids)), atol=1e-5, rtol=0)


def test_recomputation_records_nothing_anew(tiny_model, make_batch):
    model, batch = tiny_model(), make_batch()
    name = "activation_checkpointing_enable"  # transformers' older releases: gradient_checkpointing_enable
    getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
    model.train()
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    request = MapRequest(frozenset({0, 1}), batch.instruction_mask, batch.attention_mask)
    capture = AttentionCapture(keep_prefix=True, maps=request)
    hidden = run(model, batch, use_cache=False, capture=capture).last_hidden_state
    before = dict(capture.keys), dict(capture.values), dict(capture.maps)
    (hidden.sum() + capture.keys[1].sum()).backward()
    assert len(calls) == 2  # the layer did run again
    for then, now in zip(before, (capture.keys, capture.values, capture.maps), strict=True):
        assert all(then[layer] is now[layer] for layer in now)


def test_switching_and_refusing(tiny_model, make_batch):
    model, batch = tiny_model(attention="sdpa"), make_batch()
    with pytest.raises(InputError, match="'sdpa' attention; this needs 'align_ti'"):
        require_align_ti_attention(model)
    use_align_ti_attention(model)
    assert uses_align_ti_attention(model.model)
    model.model.layers[1].self_attn.sliding_window = 4
    with pytest.raises(InputError, match="layer 1 uses a sliding window of 4"):
        run(model, batch, use_cache=False, capture=AttentionCapture(keep_prefix=True))
