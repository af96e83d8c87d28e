"""Eq. 4's weights, worked out by hand, and the whole term against a plain version."""

import torch

from align_ti.attention.interface import AttentionCapture
from align_ti.attention.maps import MapRequest
from align_ti.losses.iva import iva_rows
from align_ti.losses.linear_heads import linear_divergence


def test_rows_and_weights():
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    visual = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    rows = iva_rows(attention, visual.flatten().nonzero().flatten())
    assert rows.index.tolist() == [1, 2, 8, 9]  # the text-only sample has none
    torch.testing.assert_close(rows.weight, torch.tensor([0.2, 0.3, 0.0, 0.0]))  # not renormalised


def test_the_term_against_eager_attention_and_plain_divergences(tiny_model, make_batch):
    batch, layer = make_batch("right"), 1  # eager takes no left padding in float64
    student, teacher = tiny_model(seed=0), tiny_model(seed=1, layers=3, hidden=32, vocab=34)
    common = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
    capture = AttentionCapture(maps=MapRequest(frozenset({layer}), batch.instruction_mask, batch.attention_mask))
    student_hidden = student.model(input_ids=batch.ids, **common).last_hidden_state
    with torch.no_grad():
        teacher_hidden = teacher.model(input_ids=batch.ids, capture=capture, **common).last_hidden_state
    rows = iva_rows(capture.maps[layer], batch.visual_mask.flatten().nonzero().flatten())
    term = linear_divergence(
        student_hidden.flatten(0, 1)[rows.index], student.lm_head.weight,
        teacher_hidden.flatten(0, 1)[rows.index], teacher.lm_head.weight, weights=rows.weight,
    ).loss  # fmt: skip

    teacher.set_attn_implementation("eager")
    with torch.no_grad():
        eager = teacher.model(input_ids=batch.ids, output_attentions=True, **common).attentions[layer].double()
    expected = 0.0
    for sample in range(len(batch.ids)):
        instruction = batch.instruction_mask[sample].nonzero().flatten().tolist()
        for k in batch.visual_mask[sample].nonzero().flatten().tolist():
            weight = sum(eager[sample, :, u, k].mean() for u in instruction) / len(instruction)
            log_s = student.lm_head(student_hidden[sample, k]).log_softmax(-1)
            log_t = teacher.lm_head(teacher_hidden[sample, k])[:31].log_softmax(-1)
            expected = expected + weight * (log_t.exp() * (log_t - log_s)).sum()
    torch.testing.assert_close(term, expected, rtol=1e-6, atol=0)
    assert term > 0
