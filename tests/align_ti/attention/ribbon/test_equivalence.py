"""All ways to compute TPA give one loss and one gradient: naive, Algorithm 1, shared prefix, merged draws."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from align_ti.attention.interface import AttentionCapture
from align_ti.attention.ribbon import backends
from align_ti.attention.ribbon.flash import FlashRibbon
from align_ti.attention.ribbon.geometry import ribbon_geometry
from align_ti.candidates.algorithm1 import single_pass
from align_ti.candidates.layout import candidate_layout, supervised_tokens
from align_ti.losses.linear_heads import linear_divergence
from align_ti.losses.tpa import transitions
from tests.align_ti.attention.ribbon.emulated import EmulatedVarlen

END = 2
VOCAB = 31


class Case:
    """Student and teacher of one family, a batch, and draws of every kind."""

    def __init__(self, family, tiny_model, make_batch, side, **kwargs):
        self.student = tiny_model(family, vocab=VOCAB, hidden=24, layers=2, seed=0, **kwargs)
        self.teacher = tiny_model(family, vocab=VOCAB + 3, hidden=32, layers=3, heads=4, seed=1, **kwargs)
        self.dtype = kwargs.get("dtype", torch.float64)
        self.batch = make_batch(side, VOCAB)
        torch.manual_seed(2)
        visual = int(self.batch.visual_mask.sum())
        self.student_visual = torch.randn(visual, 24).to(self.dtype).requires_grad_()
        self.teacher_visual = torch.randn(visual, 32).to(self.dtype)
        self.supervised = supervised_tokens(self.batch.labels, self.batch.attention_mask)
        self.draws = torch.randint(3, VOCAB, (len(self.supervised), 4))
        self.draws[::2, 1] = self.supervised.label[::2]  # equal to the label, at an end of turn too
        self.draws[-1, :2] = self.supervised.label[-1]
        self.draws[1::3, 2] = self.draws[1::3, 0]  # equal draws
        self.draws[::4, 3] = END
        last = self.supervised.label[torch.tensor([3, 10])]  # cut-off final turn of "turns" included
        assert END in last.tolist() and (last != END).any()
        self.draws[10] = torch.tensor([last[1], last[1], last[1], 5])

    def embeds(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher = self.batch.embed(self.teacher, self.teacher_visual)
        return self.batch.embed(self.student, self.student_visual), teacher

    def leaves(self) -> list[Tensor]:
        return [self.student_visual, *self.student.parameters()]

    def outcome(self, loss: Tensor) -> tuple[Tensor, list[Tensor]]:
        return loss.detach(), list(torch.autograd.grad(loss, self.leaves()))


def plain_kl(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    log_s = student_logits[..., :VOCAB].log_softmax(-1)
    log_t = teacher_logits[..., :VOCAB].log_softmax(-1)
    return (log_t.exp() * (log_t - log_s)).sum(-1)


def main_hidden(model, embeds, batch, **kwargs) -> Tensor:
    return model.model(
        inputs_embeds=embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
        **kwargs,
    ).last_hidden_state


def naive(case: Case) -> Tensor:
    """SFT + KD + TPA with stock attention, whole logits, and one forward pass per candidate."""
    for model in (case.student, case.teacher):
        model.set_attn_implementation("sdpa")
    embeds_s, embeds_t = case.embeds()
    logits_s = case.student.lm_head(main_hidden(case.student, embeds_s, case.batch)).flatten(0, 1)
    with torch.no_grad():
        logits_t = case.teacher.lm_head(main_hidden(case.teacher, embeds_t, case.batch)).flatten(0, 1)
    at = case.supervised.predicting
    total = cross_entropy(logits_s[at], case.supervised.label, reduction="sum")
    total = total + plain_kl(logits_s[at], logits_t[at]).sum()
    steps, d = case.draws.shape
    for step in range(steps):
        sample, column = int(case.supervised.sample[step]), int(case.supervised.column[step])
        real = case.batch.attention_mask[sample, :column]
        for token in case.draws[step]:
            if token == END:
                continue
            logits = []
            for model, embeds in ((case.student, embeds_s), (case.teacher, embeds_t)):
                drawn = model.get_input_embeddings()(token)[None]
                sequence = torch.cat([embeds[sample, :column][real], drawn])
                logits.append(model.lm_head(model.model(inputs_embeds=sequence[None]).last_hidden_state[0, -1]))
            total = total + plain_kl(logits[0], logits[1].detach()) / d
    for model in (case.student, case.teacher):
        model.set_attn_implementation("align_ti")
    return total / steps


def fast(case: Case, *, way: str, merge: bool, chunk_rows: int | None = 3) -> Tensor:
    """The same total through the library: Algorithm 1 or the shared prefix, one chunked pass of the heads."""
    batch = case.batch
    embeds_s, embeds_t = case.embeds()
    layout = candidate_layout(
        case.supervised,
        case.draws,
        batch.attention_mask,
        batch.position_ids,
        end_of_turn_ids={END},
        merge=merge,
        dtype=torch.float64,
    )
    if way == "algorithm1":
        arguments = batch.attention_mask, batch.position_ids, layout
        main_s, candidates_s = single_pass(case.student.model, embeds_s, *arguments)
        with torch.no_grad():
            main_t, candidates_t = single_pass(case.teacher.model, embeds_t, *arguments)
    else:
        prefix_s, prefix_t = AttentionCapture(keep_prefix=True), AttentionCapture(keep_prefix=True)
        main_s = main_hidden(case.student, embeds_s, batch, capture=prefix_s)
        with torch.no_grad():
            main_t = main_hidden(case.teacher, embeds_t, batch, capture=prefix_t)
        candidates_s, candidates_t = transitions(
            case.student.model,
            case.teacher.model,
            prefix_s,
            prefix_t,
            layout,
            ribbon_geometry(layout.sample, layout.limit, batch.attention_mask),
        )
    places = batch.attention_mask.numel()
    weights = layout.main_weight.flatten().clone()
    weights[case.supervised.predicting] += 1.0
    targets = torch.full((places + len(layout),), -100)
    targets[case.supervised.predicting] = case.supervised.label
    result = linear_divergence(
        torch.cat([main_s.flatten(0, 1), candidates_s]),
        case.student.lm_head.weight,
        torch.cat([main_t.flatten(0, 1), candidates_t]),
        case.teacher.lm_head.weight,
        weights=torch.cat([weights, layout.weight]) / layout.steps,
        targets=targets,
        ce_weights=(targets != -100).double() / layout.steps,
        chunk_rows=chunk_rows,
    )
    return result.loss


def enable_checkpointing(model) -> None:
    name = "activation_checkpointing_enable"  # transformers' older releases: gradient_checkpointing_enable
    getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
    model.train()
    assert all(layer.gradient_checkpointing for layer in model.model.layers)


WAYS = [
    ("algorithm1", False, False),
    ("algorithm1", True, False),
    ("prefix", False, False),
    ("prefix", True, False),
    ("prefix", False, True),
    ("prefix", True, True),
]


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_way_equals_one_forward_per_candidate(family, side, tiny_model, make_batch):
    case = Case(family, tiny_model, make_batch, side)
    expected, expected_gradients = case.outcome(naive(case))
    assert expected > 1 and all(gradient.abs().max() > 1e-4 for gradient in expected_gradients[:2])
    for way, merge, checkpointing in WAYS:
        if checkpointing:
            enable_checkpointing(case.student)
        loss, gradients = case.outcome(fast(case, way=way, merge=merge))
        assert abs(loss - expected) < 1e-12, (way, merge, checkpointing)
        for gradient, wanted in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("merge", [False, True])
def test_the_flash_merge_in_whole_models(family, side, merge, tiny_model, make_batch, monkeypatch):
    """The algebra of the flash backend, forward and backward, with the varlen call written out."""
    case = Case(family, tiny_model, make_batch, side)
    expected, expected_gradients = case.outcome(fast(case, way="prefix", merge=merge))
    kernel = EmulatedVarlen()
    emulated = backends.Backend(lambda geometry: FlashRibbon(geometry, kernel), lambda: None)
    monkeypatch.setattr(backends, "BACKENDS", {"flash": emulated})
    monkeypatch.setattr(backends, "resolve_backend", lambda *_: "flash")
    loss, gradients = case.outcome(fast(case, way="prefix", merge=merge))
    assert kernel.scores > 0 and abs(loss - expected) < 1e-12
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-9, rtol=1e-9)


def test_with_the_family_s_own_norms(family, tiny_model, make_batch):
    case = Case(family, tiny_model, make_batch, "right", exact=False)
    expected, expected_gradients = case.outcome(naive(case))
    loss, gradients = case.outcome(fast(case, way="prefix", merge=True))
    assert abs(loss - expected) < 1e-6
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-5)


def test_llava_classes(family, tiny_model, make_batch):
    case = Case(family, tiny_model, make_batch, "left", llava=True)
    assert type(case.student).__name__.startswith("Llava")
    expected, expected_gradients = case.outcome(naive(case))
    loss, gradients = case.outcome(fast(case, way="prefix", merge=True))
    assert abs(loss - expected) < 1e-12
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_near_single(autocast, tiny_model, make_batch):
    """bfloat16 parameters, or float32 ones under autocast: as near to float32 as Algorithm 1 is."""
    single = Case("qwen2", tiny_model, make_batch, "right", dtype=torch.float32, exact=False)
    expected, expected_gradients = single.outcome(fast(single, way="prefix", merge=True))
    dtype = torch.float32 if autocast else torch.bfloat16
    half = Case("qwen2", tiny_model, make_batch, "right", dtype=dtype, exact=False)
    errors = []
    for way in ("prefix", "algorithm1"):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = fast(half, way=way, merge=True)
        loss, gradients = half.outcome(loss)
        assert loss.dtype == torch.float32
        assert abs(loss - expected) < 0.02 * expected
        differences = zip(gradients, expected_gradients, strict=True)
        errors.append(sum(float((mine.float() - wanted).norm() ** 2) for mine, wanted in differences) ** 0.5)
    size = sum(float(wanted.norm() ** 2) for wanted in expected_gradients) ** 0.5
    assert errors[0] < 0.1 * size and errors[0] < 1.5 * errors[1]


def test_merging_saves_rows_and_nothing_is_padded(tiny_model, make_batch):
    case = Case("qwen2", tiny_model, make_batch, "right")
    layouts = [
        candidate_layout(
            case.supervised, case.draws, case.batch.attention_mask, case.batch.position_ids,
            end_of_turn_ids={END}, merge=merge,
        )
        for merge in (False, True)
    ]  # fmt: skip
    wanted = {
        (step, int(token))
        for step, tokens in enumerate(case.draws)
        for token in tokens
        if token not in (END, case.supervised.label[step])
    }
    assert len(layouts[0]) == case.draws.numel()
    assert len(layouts[1]) == len(wanted) < len(layouts[0])
