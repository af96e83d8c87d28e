"""A packed row gives what the padded batch gives: layout, attention, maps, all losses and gradients."""

import pytest
import torch

from align_ti import passes as passes_module
from align_ti.attention import packing as packing_module
from align_ti.attention.interface import AttentionCapture, anything_4d
from align_ti.attention.maps import MapRequest
from align_ti.attention.packing import PackedFlash, PackedSdpa, pack
from align_ti.attention.ribbon import backends
from align_ti.attention.ribbon.flash import FlashRibbon
from align_ti.candidates.layout import supervised_tokens
from align_ti.config import PAPER
from tests.align_ti.attention.ribbon.emulated import EmulatedVarlen
from tests.align_ti.training.whole_objective import HIDDEN, settings, spliced, total, visual_of

VOCAB = 31


@pytest.fixture(params=["right", "left"])
def batch(request, make_batch):
    return make_batch(request.param, VOCAB)


def test_layout(batch, tiny_model):
    padded = spliced(batch, tiny_model(), visual_of(batch, HIDDEN, 0))
    row, packing = pack(padded)
    real = batch.attention_mask
    assert row.inputs_embeds.shape == (1, int(real.sum()), HIDDEN) and row.attention_mask.all()
    assert [stop - start for start, stop in packing.spans] == real.sum(1).tolist()
    for sample, (start, stop) in enumerate(packing.spans):
        assert row.position_ids[0, start:stop].tolist() == list(range(stop - start))
        assert torch.equal(row.labels[0, start:stop], batch.labels[sample][real[sample]])
    assert packing.sample_of(torch.tensor([0, packing.spans[1][0] - 1, packing.spans[1][0]])).tolist() == [0, 0, 1]
    before, after = (supervised_tokens(inputs.labels, inputs.attention_mask) for inputs in (padded, row))
    assert torch.equal(before.label, after.label)
    assert torch.equal(padded.inputs_embeds.flatten(0, 1)[before.predicting], row.inputs_embeds[0][after.predicting])


def test_a_target_at_the_start_of_a_sample_is_none(batch, tiny_model):
    padded = spliced(batch, tiny_model(), visual_of(batch, HIDDEN, 0))
    first = padded.attention_mask.long().argmax(1)
    padded.labels[torch.arange(len(first)), first] = 5
    row, _ = pack(padded)
    before, after = (supervised_tokens(inputs.labels, inputs.attention_mask) for inputs in (padded, row))
    assert torch.equal(before.label, after.label) and len(before) > 0


@pytest.mark.parametrize("attention", ["sdpa", "flash"])
def test_hidden_states_and_maps(attention, family, batch, tiny_model):
    model = tiny_model(family, layers=3)
    padded = spliced(batch, model, visual_of(batch, HIDDEN, 0))
    row, packing = pack(padded)
    packed = PackedSdpa(packing) if attention == "sdpa" else PackedFlash(packing, EmulatedVarlen())
    outputs, maps = [], []
    for inputs, mask, spans, extra in (
        (padded, padded.attention_mask, None, {}),
        (row, anything_4d(row.labels), packing.spans, {"packed": packed}),
    ):
        capture = AttentionCapture(
            maps=MapRequest(frozenset({1}), inputs.instruction_mask, inputs.attention_mask, spans)
        )
        hidden = model.model(
            inputs_embeds=inputs.inputs_embeds, attention_mask=mask, position_ids=inputs.position_ids,
            use_cache=False, capture=capture, **extra,
        ).last_hidden_state  # fmt: skip
        outputs.append(hidden[inputs.attention_mask])
        maps.append(capture.maps[1][inputs.attention_mask])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-12, atol=1e-13)
    assert maps[0].sum() > 1


@pytest.mark.parametrize("backend", ["sdpa", "flash"])
def test_all_losses_and_gradients(backend, family, batch, tiny_model, monkeypatch):
    student = tiny_model(family, vocab=VOCAB)
    teacher = tiny_model(family, vocab=VOCAB + 3, hidden=32, layers=3, seed=1)
    expected, expected_gradients = total(student, teacher, batch, settings(PAPER))
    if backend == "flash":
        kernel = EmulatedVarlen()
        ribbon = backends.Backend(lambda geometry: FlashRibbon(geometry, kernel), lambda: None)
        monkeypatch.setattr(backends, "BACKENDS", {"flash": ribbon})
        monkeypatch.setattr(backends, "resolve_backend", lambda *_: "flash")
        monkeypatch.setattr(passes_module, "resolve_backend", lambda *_: "flash")
        monkeypatch.setattr(packing_module, "varlen_kernel", lambda: kernel)
    found, gradients = total(student, teacher, batch, settings(PAPER, packing=True))
    assert found.keys() == expected.keys() and expected["tpa"] > 0.1 and expected["iva"] > 0.01
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-12, name
    for ours, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("losses", [("sft",), ("sft", "kd")])
def test_without_candidates(losses, batch, tiny_model):
    student, teacher = tiny_model(vocab=VOCAB), tiny_model(vocab=VOCAB, hidden=32, layers=3, seed=1)
    expected, expected_gradients = total(student, teacher, batch, settings(losses))
    found, gradients = total(student, teacher, batch, settings(losses, packing=True))
    assert abs(found["loss"] - expected["loss"]) < 1e-12
    for ours, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-11, rtol=1e-9)
